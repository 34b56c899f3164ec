"""The daemon as a process: logging, signals, exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moedge_runtime.config import Config
from moedge_runtime.daemon.logs import set_up
from moedge_runtime.daemon.service import Daemon
from moedge_runtime.daemon.setup import OpenAnswerer

EXIT_FORCED = 130
"""After the second signal."""

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
RELOADING_SIGNAL = signal.SIGHUP

log = logging.getLogger(__name__)


def run_process(
    config: Config,
    open_answerer: OpenAnswerer,
    *,
    exit_when_done: bool = False,
    verify: bool | None = None,
    log_level: str | None = None,
) -> int:
    """Run the daemon in the main thread until it is done or told to stop by SIGTERM or SIGINT.

    SIGHUP reads the configuration again. The first stopping signal stops it in order, the second ends the process at
    once; the broker then publishes the will. After a request to restart the process begins anew with the same command
    line, under the same process number.

    Returns:
        The exit code.

    Raises:
        MoedgeError: It cannot start.
    """
    set_up(log_level or config.log.level, config.log.format)
    daemon = Daemon(config, open_answerer, exit_when_done=exit_when_done, verify=verify, log_level=log_level)

    def on_signal(number: int) -> None:
        if number == RELOADING_SIGNAL:
            daemon.request_reload()
            return
        if daemon.stopping:
            os._exit(EXIT_FORCED)
        daemon.request_stop()
        log.info("%s: stopping. Once more to end at once.", signal.Signals(number).name)

    with _signals(on_signal):
        code = daemon.run()
    if daemon.restart:
        logging.shutdown()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if daemon.stuck:
        # A thread inside the model cannot be ended; everything that had to be said has been said.
        logging.shutdown()
        os._exit(code)
    return code


@contextmanager
def _signals(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Call `on_signal` on a thread of its own for every stopping or reloading signal that arrives in this block.

    Python runs its own handlers only between two steps of the main thread, takes two signals that come in between for
    one, and inside them no lock may be used. Here Python's C handler writes each signal's number into a pipe at once
    (signal.set_wakeup_fd), and a thread reads it.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def read() -> None:
        while (number := os.read(read_end, 1)) != b"":
            if number[0] in (*STOPPING_SIGNALS, RELOADING_SIGNAL):
                on_signal(number[0])
        os.close(read_end)

    previous_end = signal.set_wakeup_fd(write_end)
    previous = {number: signal.signal(number, lambda *_: None) for number in (*STOPPING_SIGNALS, RELOADING_SIGNAL)}
    threading.Thread(target=read, name="signals", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_end)
        os.close(write_end)
