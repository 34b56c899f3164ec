"""The thread of one camera: reads frames, keeps the newest, and submits the questions that are due."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from moedge_runtime.camera import Frame, FrameSource, LatestFrame
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.schedule import Interval, Job, Result
from moedge_runtime.errors import CameraError

log = logging.getLogger(__name__)

State = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class Watch:
    """A standing question, ready to be asked."""

    name: str
    question: Question
    interval_s: float
    publish_reasoning: bool


class CameraReader:
    """Reads one source to its end.

    Args:
        name: The camera's name.
        source: Consumed by this reader's thread.
        watches: The camera's watches.
        jobs: Where due questions go.
        lossless: Wait until the answers to a frame are there before the next due frame; else the newest frame wins.
        deliver: Gets the result of every job.
        on_state: Called with the camera's new state, and the reason if it is offline.
        on_due: Called with the watches that are due and those whose waiting frame was replaced.
        on_end: Called when `finished` has become true.

    Attributes:
        latest: The newest frame, for requests.
        frames: Frames read so far.
        state: online once there was a frame, offline before it and after the end.
        failed: The source ended with an error.
    """

    def __init__(
        self,
        name: str,
        source: FrameSource,
        watches: Sequence[Watch],
        jobs: JobQueue,
        *,
        lossless: bool,
        deliver: Callable[[Job, Result], None],
        on_state: Callable[[str, State, CameraError | None], None],
        on_due: Callable[[Sequence[str], Sequence[str]], None],
        on_end: Callable[[], None],
    ) -> None:
        self.name = name
        self.latest = LatestFrame()
        self.frames = 0
        self.state: State = "offline"
        self.failed = False
        self._source, self._jobs, self._lossless = source, jobs, lossless
        self._watches = [(watch, Interval(watch.interval_s)) for watch in watches]
        self._deliver, self._on_state, self._on_due = deliver, on_state, on_due
        self._on_end = on_end
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; does not wait."""
        self._stopping.set()
        self._source.close()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, at most `timeout_s` seconds."""
        self._thread.join(timeout_s)

    @property
    def finished(self) -> bool:
        """Whether the source has come to its end."""
        return self._finished.is_set()

    def last_frame_age_s(self) -> float | None:
        """Seconds since the newest frame; None before the first one."""
        frame = self.latest.peek()
        return None if frame is None else time.monotonic() - frame.monotonic_s

    def _run(self) -> None:
        reason = CameraError(f"Camera '{self.name}' has come to its end.", key="camera.ended")
        try:
            for frame in self._source.frames():
                self._take(frame)
            self._jobs.drain(self.name)
        except CameraError as error:
            reason, self.failed = error, True
        except Exception as error:
            log.exception("Camera '%s' failed.", self.name)
            reason = CameraError(f"Camera '{self.name}' failed: {type(error).__name__}: {error}.", key="internal")
            self.failed = True
        finally:
            self._source.close()
        if not self._stopping.is_set():
            log.log(logging.ERROR if self.failed else logging.INFO, "Camera '%s' is offline: %s", self.name, reason)
            self._set_state("offline", reason)
        self._finished.set()
        self._on_end()

    def _take(self, frame: Frame) -> None:
        self.latest.put(frame)
        self.frames += 1
        if self.state != "online":
            self._set_state("online", None)
        jobs = [
            Job(self.name, watch.name, watch.question, frame, watch.publish_reasoning, self._deliver)
            for watch, interval in self._watches
            if interval.due(frame.pts_s)
        ]
        if not jobs:
            return
        replaced = self._jobs.submit(jobs, wait=self._lossless)
        if replaced is None:
            self._source.close()
            return
        self._on_due([job.watch or "" for job in jobs], [job.watch or "" for job in replaced])

    def _set_state(self, state: State, reason: CameraError | None) -> None:
        self.state = state
        self._on_state(self.name, state, reason)
