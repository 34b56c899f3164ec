"""The thread that runs the model, one job after the other; several may share a prefill."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from moedge_runtime.daemon.answerer import Answerer, Reply, ShouldStop
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
        """End after the running jobs; the queue must be closed.

        Args:
            finish_within_s: Seconds after which the running jobs are cancelled; what is not answered is not delivered.
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
            self._answer([job, *self._jobs.company(self._answerer.together - 1)])

    def _answer(self, jobs: list[Job]) -> None:
        """Answer jobs that share what they can, each as soon as possible; what is urgent goes in between."""
        began_s = time.monotonic()
        begun = self._begin(jobs)
        shared_s = (time.monotonic() - began_s) / len(jobs)
        for index, (job, answer) in enumerate(zip(jobs, begun, strict=True)):
            while index and (urgent := self._jobs.urgent()) is not None:
                self._answer([urgent])
            resumed_s = time.monotonic()
            try:
                self._deliver(job, answer, began_s)
            except Exception:
                log.exception("An answer of camera '%s' was not delivered.", job.camera)
            finally:
                self._jobs.done(job, shared_s + time.monotonic() - resumed_s)

    def _begin(self, jobs: list[Job]) -> list[Callable[[ShouldStop], Reply]]:
        if len(jobs) > 1:
            self._sign_s = time.monotonic()
            try:
                questions = [(job.question, job.frame.image) for job in jobs]
                return self._answerer.begin(questions, self._cancelled, self._jobs.urgent_waits)
            except BaseException:  # a panic inside a Rust extension is no Exception
                log.exception("The model failed on frames together; each goes alone.")
            finally:
                self._sign_s = None
        return [partial(self._answerer.ask, job.question, job.frame.image) for job in jobs]

    def _deliver(self, job: Job, answer: Callable[[ShouldStop], Reply], began_s: float) -> None:
        self._sign_s = time.monotonic()
        outcome: Reply | MoedgeError
        try:
            outcome = answer(lambda: self._cancelled() or job.overdue(time.monotonic()))
        except MoedgeError as error:
            outcome = error
        except BaseException as error:  # likewise
            log.exception("The model failed on a frame of camera '%s'.", job.camera)
            outcome = MoedgeError(
                f"The model failed: {type(error).__name__}: {error}. The daemon's log has the details.", key="internal"
            )
        finally:
            self._sign_s = None
        if isinstance(outcome, Reply) and outcome.finish_reason == "cancelled":
            log.info("Cancelled the answer that was under way for camera '%s'.", job.camera)
            job.drop(job, "stale" if job.overdue(time.monotonic()) else "stopping")
            return
        job.deliver(job, Result(outcome, began_s, time.monotonic()))

    def _cancelled(self) -> bool:
        self._sign_s = now_s = time.monotonic()
        return now_s >= self._cancel_at_s
