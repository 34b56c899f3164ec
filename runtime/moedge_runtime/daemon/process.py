"""The daemon as a process: logging, signals, exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

from moedge_runtime.config import Config
from moedge_runtime.daemon.service import Daemon, OpenAnswerer

EXIT_FORCED = 130
"""After the second signal."""


def run_process(
    config: Config, open_answerer: OpenAnswerer, *, exit_when_done: bool = False, log_level: str | None = None
) -> int:
    """Run the daemon in the main thread until it is done or told to stop by SIGTERM or SIGINT.

    The first signal stops it in order, the second ends the process at once; the broker then publishes the will.

    Returns:
        The exit code.

    Raises:
        MoedgeError: It cannot start.
    """
    logging.basicConfig(
        level=(log_level or config.log.level).upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    daemon = Daemon(config, open_answerer, exit_when_done=exit_when_done)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if daemon.stopping:
            os._exit(EXIT_FORCED)
        daemon.request_stop()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = daemon.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if daemon.stuck:
        # A thread inside the model cannot be ended; everything that had to be said has been said.
        logging.shutdown()
        os._exit(code)
    return code
