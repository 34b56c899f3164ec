"""The thread of one camera: opens its source again and again, keeps the newest frame, and says how the camera is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from moedge_runtime.camera import Frame, FrameSource
from moedge_runtime.camera.picture_check import PictureCheck
from moedge_runtime.camera.timeouts import STALLED_KEY
from moedge_runtime.errors import CameraError
from moedge_runtime.frames.gate import Condition
from moedge_runtime.mqtt.backoff import Backoff

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 10.0
"""A camera that failed is opened again after 1, 2, 4, 8, 10, 10 … s."""

log = logging.getLogger(__name__)

State = Literal["connecting", "online", "frozen", "black", "stalled", "offline", "disabled"]
"""See docs/cameras.md; `CameraStatus` in mqtt/payloads.py knows the same words."""


class FrameTaker(Protocol):
    """What gets the frames of a camera; called on its thread."""

    def reopened(self) -> None:
        """The source is opened: the time of its frames begins at 0."""
        ...

    def take(self, frame: Frame, condition: Condition | None) -> bool:
        """Take a frame, and what is wrong with the pictures as of it; may block. False if no more are wanted."""
        ...

    def drain(self) -> None:
        """The source has come to its end: wait until nothing of the camera waits for the model."""
        ...


@dataclass(frozen=True)
class Policy:
    """How a reader treats frames and failures.

    Attributes:
        lossless: Wait until the answers to a frame are there before the next due frame; else the newest frame wins.
        retries: Open a source that failed again, with growing delays, as long as it takes.
        repeats: The source may be played again from its beginning after it has given frames. Otherwise it is given up
            then, because each of these frames has had its answers.
        endless: A source that comes to its end is opened again as one that failed.
    """

    lossless: bool
    retries: bool
    repeats: bool
    endless: bool = False


def starting(camera: str) -> CameraError:
    """Why a camera that is being opened is not online."""
    return CameraError(f"Camera '{camera}' has given no frame yet.", key="camera.starting")


def newest(reader: CameraReader) -> Frame:
    """The newest frame of a camera.

    Raises:
        CameraError: There is none yet.
    """
    frame = reader.latest
    if frame is None:
        raise CameraError(
            f"Camera '{reader.name}' has given no frame yet. See its status, and ask again later.",
            key="camera.no_frame",
        )
    return frame


class CameraReader:
    """Reads one source to its end, as often as it is switched on.

    Args:
        name: The camera's name.
        address: Where its frames come from, for people.
        open_source: Makes the source, anew for every attempt; consumed by this reader's thread.
        taker: Gets every frame.
        policy: How frames and failures are treated.
        check: Looks at the pictures for frozen and black ones; None for recordings.
        backoff: Delays between two attempts.
        enabled: Whether it begins to read at once.
        on_state: Called with the camera's new state, and the reason if it is offline.
        on_end: Called when `finished` has become true, and when the camera was switched off.

    Attributes:
        enabled: Whether it is switched on.
        latest: The newest frame, for requests; None before the first one, and while it is switched off.
        frames: Frames read so far.
        state: connecting before the first frame; then online, or what `check` found; stalled or offline after a
            failure, until there is a frame again; offline after the end; disabled while it is switched off.
        failed: The source was given up with an error.
    """

    def __init__(
        self,
        name: str,
        address: str,
        open_source: Callable[[], FrameSource],
        taker: FrameTaker,
        *,
        policy: Policy,
        on_state: Callable[[str, State, CameraError | None], None],
        on_end: Callable[[], None],
        check: PictureCheck | None = None,
        backoff: Backoff | None = None,
        enabled: bool = True,
    ) -> None:
        self.name = name
        self.enabled = enabled
        self.latest: Frame | None = None
        self.frames = 0
        self.state: State = "connecting" if enabled else "disabled"
        self.failed = False
        self._address, self._open_source, self._taker, self._policy = address, open_source, taker, policy
        self._source: FrameSource | None = None
        self._check = check
        self._backoff = backoff or Backoff(FIRST_RETRY_S, LAST_RETRY_S)
        self._changed = threading.Condition()
        self._last_reason = ""
        self._on_state, self._on_end = on_state, on_end
        self._stopping = False
        self._interrupted = False  # the source was closed from outside: how it ends says nothing about it
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; does not wait."""
        with self._changed:
            self._stopping = True
            self._interrupt()

    def enable(self, on: bool) -> None:
        """Open the source, anew if it has ended, or close it and take nothing of it any more; does not wait."""
        with self._changed:
            if on == self.enabled:
                return
            self.enabled = on
            if on:
                self._changed.notify_all()
            else:
                self.latest = None
                self._interrupt()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, at most `timeout_s` seconds."""
        self._thread.join(timeout_s)

    @property
    def finished(self) -> bool:
        """Whether the source has come to its end."""
        return self._finished.is_set()

    def last_frame_age_s(self) -> float | None:
        """Seconds since the newest frame; None before the first one."""
        frame = self.latest
        return None if frame is None else time.monotonic() - frame.monotonic_s

    def _run(self) -> None:
        while self._is_to_read():
            before, began_s = self.frames, time.monotonic()
            failure = self._attempt()
            if self._interrupted:
                continue
            if failure is None and self._policy.endless and self._policy.retries:
                failure = CameraError("It has come to its end.", key="camera.ended")
            if failure is None:
                self._end(CameraError(f"Camera '{self.name}' has come to its end.", key="camera.ended"))
                continue
            gave_frames = self.frames > before
            if not self._policy.retries or (gave_frames and not self._policy.repeats):
                self.failed = True
                self._end(self._described(failure, ""))
                continue
            if gave_frames and time.monotonic() - began_s > LAST_RETRY_S:
                self._backoff.reset()
            self._go_offline(self._described(failure, f" Retrying within {LAST_RETRY_S:.0f} s."))
            self._await_interruption(self._backoff.next_s())
        self._finished.set()
        self._on_end()

    def _is_to_read(self) -> bool:
        """Wait while it is switched off, and say so; False if the reader is to end."""
        if not self.enabled and not self._stopping:
            self._last_reason = ""
            if self.state != "disabled":
                self._set_state("disabled", None)
            self._on_end()
            with self._changed:
                self._changed.wait_for(lambda: self.enabled or self._stopping)
            if not self._stopping:
                self._backoff.reset()
                if self._check is not None:
                    self._check.restart()
                self._set_state("connecting", starting(self.name))
        with self._changed:
            self._interrupted = self._stopping or not self.enabled
        return not self._stopping

    def _end(self, reason: CameraError) -> None:
        """Nothing more is read unless it is switched off and on."""
        self._go_offline(reason)
        self._finished.set()
        self._on_end()
        self._await_interruption(None)
        if not self._stopping:
            self.failed = False
            self._finished.clear()

    def _interrupt(self) -> None:
        """Have the reader's thread look again what it is to do; with the lock held."""
        self._interrupted = True
        if self._source is not None:
            self._source.close()
        self._changed.notify_all()

    def _await_interruption(self, timeout_s: float | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._interrupted, timeout_s)

    def _attempt(self) -> CameraError | None:
        """Open the source and read it to its end; the error that ended it early."""
        with self._changed:
            if self._interrupted:
                return None
            try:
                source = self._source = self._open_source()
            except CameraError as error:
                return error
        self._taker.reopened()
        try:
            for frame in source.frames():
                self._take(frame)
            if not self._policy.endless:
                self._taker.drain()
        except CameraError as error:
            return error
        except Exception as error:
            log.exception("Camera '%s' failed.", self.name)
            return CameraError(f"{type(error).__name__}: {error}.", key="internal")
        finally:
            source.close()
        return None

    def _described(self, failure: CameraError, what_follows: str) -> CameraError:
        return CameraError(f"Camera '{self.name}' ({self._address}) failed: {failure}{what_follows}", key=failure.key)

    def _go_offline(self, reason: CameraError) -> None:
        """Say so, once for any number of equal failures in a row."""
        if str(reason) == self._last_reason:
            return
        self._last_reason = str(reason)
        log.log(logging.INFO if reason.key == "camera.ended" else logging.ERROR, "%s", reason)
        self._set_state("stalled" if reason.key == STALLED_KEY else "offline", reason)

    def _take(self, frame: Frame) -> None:
        with self._changed:
            if self._interrupted:
                return
            self.latest = frame
        self.frames += 1
        self._look_at(frame)
        if not self._taker.take(frame, self.state if self.state in ("frozen", "black") else None):
            self.stop()

    def _look_at(self, frame: Frame) -> None:
        finding = self._check.look(frame) if self._check else None
        state: State = finding.kind if finding else "online"
        if state == self.state:
            return
        self._last_reason = ""
        if finding is None:
            self._set_state(state, None)
            return
        reason = CameraError(f"Camera '{self.name}' ({self._address}): {finding.text}", key=f"camera.{finding.kind}")
        log.warning("%s", reason)
        self._set_state(state, reason)

    def _set_state(self, state: State, reason: CameraError | None) -> None:
        self.state = state
        self._on_state(self.name, state, reason)
