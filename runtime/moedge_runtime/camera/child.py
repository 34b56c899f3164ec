"""A child process whose output is read while it runs, and which is gone with all of its own children afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from moedge_runtime.errors import CameraError

CHUNK_BYTES = 1 << 16
"""A pipe of Linux holds as much."""

STDERR_TAIL_BYTES = 4096
END_S = 1.0
"""From SIGTERM to SIGKILL."""

_POLL_S = 0.2
"""How often a silent child is looked at for `close`, if it survives SIGTERM."""


class Child:
    """A program in a process group of its own, without a shell between. Use as a context manager.

    Args:
        argv: Program and arguments.

    Raises:
        CameraError: It cannot be started.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise CameraError(
                f"'{argv[0]}' cannot be started ({error.strerror}). Install it, or give its whole path.",
                key="camera.tool_missing",
            ) from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdout, self._stderr = self._process.stdout, self._process.stderr
        self._poll = select.poll()
        for stream in (self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
            self._poll.register(stream, select.POLLIN)
        self._tail = b""
        self._ending = threading.Lock()
        self._ended = False
        self._closed = threading.Event()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._end()

    def read(self, timeout_s: float) -> bytes | None:
        """Some bytes of its standard output; b"" once there are none any more; None after `timeout_s` without any."""
        deadline_s = time.monotonic() + timeout_s
        while not self._closed.is_set():
            left_s = deadline_s - time.monotonic()
            ready = {number for number, _ in self._poll.poll(max(0.0, min(_POLL_S, left_s)) * 1000)}
            if self._stderr.fileno() in ready:
                self._keep(self._stderr.read(CHUNK_BYTES))
            if self._stdout.fileno() in ready:
                return self._stdout.read(CHUNK_BYTES) or b""
            if left_s <= 0:
                return None
        return b""

    def close(self) -> None:
        """Ask it to end; may be called from any thread. `read` then returns within a moment."""
        self._closed.set()
        with self._ending:
            if not self._ended:
                self._signal(signal.SIGTERM)

    def exit_status(self) -> int:
        """Its exit status, negative for a signal; waits for `END_S` at most and then kills it."""
        self._end()
        return self._process.returncode

    def last_words(self) -> str:
        """The last line of its standard error; call after `exit_status`."""
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _keep(self, chunk: bytes | None) -> None:
        if chunk == b"":  # it has closed its standard error
            with contextlib.suppress(KeyError):
                self._poll.unregister(self._stderr)
        self._tail = (self._tail + (chunk or b""))[-STDERR_TAIL_BYTES:]

    def _end(self) -> None:
        with self._ending:
            if self._ended:
                return
        # Its number, and so the group's, stays taken until it is waited for: nobody else's group is killed.
        exited = os.pidfd_open(self._process.pid)
        try:
            waiting = select.poll()
            waiting.register(exited, select.POLLIN)
            waiting.poll(END_S * 1000)
        finally:
            os.close(exited)
        with self._ending:
            self._signal(signal.SIGKILL)  # and the children that it leaves behind
            self._process.wait()
            self._ended = True
        self._keep(self._stderr.read(CHUNK_BYTES))
        self._stdout.close()
        self._stderr.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
