"""The thread that runs the model, one job after the other."""

from __future__ import annotations

import logging
import threading
import time

from moedge_runtime.daemon.answerer import Answerer, Reply
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.schedule import Job, Result
from moedge_runtime.errors import MoedgeError

log = logging.getLogger(__name__)


class Worker:
    """Takes jobs, asks, delivers. An error of one job is its result and never ends the thread."""

    def __init__(self, jobs: JobQueue, answerer: Answerer) -> None:
        self._jobs, self._answerer = jobs, answerer
        self._cancel_at_s = float("inf")
        self._sign_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Whether the thread ends by itself within `timeout_s` seconds, once the queue is closed."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self, *, finish_within_s: float, give_up_after_s: float) -> bool:
        """End after the running job; the queue must be closed.

        Args:
            finish_within_s: Seconds after which the running job is cancelled; its answer is then not delivered.
            give_up_after_s: Further seconds to wait for the model to notice.

        Returns:
            Whether the thread has ended.
        """
        self._cancel_at_s = time.monotonic() + finish_within_s
        self._thread.join(finish_within_s + give_up_after_s)
        return not self._thread.is_alive()

    def silent_s(self) -> float:
        """Seconds since the model's last sign of life, a layer or a token, while it answers; 0 while it does not."""
        sign_s = self._sign_s
        return 0.0 if sign_s is None else time.monotonic() - sign_s

    def _run(self) -> None:
        while (job := self._jobs.take()) is not None:
            try:
                self._answer(job)
            except Exception:
                log.exception("An answer of camera '%s' was not delivered.", job.camera)
            finally:
                self._jobs.done()

    def _answer(self, job: Job) -> None:
        self._sign_s = began_s = time.monotonic()
        outcome: Reply | MoedgeError
        try:
            outcome = self._answerer.ask(job.question, job.frame.image, self._cancelled)
        except MoedgeError as error:
            outcome = error
        except BaseException as error:  # a panic inside a Rust extension is no Exception
            log.exception("The model failed on a frame of camera '%s'.", job.camera)
            outcome = MoedgeError(
                f"The model failed: {type(error).__name__}: {error}. The daemon's log has the details.", key="internal"
            )
        finally:
            self._sign_s = None
        if isinstance(outcome, Reply) and outcome.finish_reason == "cancelled":
            log.info("Cancelled the answer that was under way for camera '%s'.", job.camera)
            job.drop(job, "stopping")
            return
        job.deliver(job, Result(outcome, began_s, time.monotonic()))

    def _cancelled(self) -> bool:
        self._sign_s = now_s = time.monotonic()
        return now_s >= self._cancel_at_s
