"""`moedge bundle` in a forked process, which kills itself at a point; a new interpreter would take seconds to import.

A point is CLASS.METHOD:before or :after, and optionally :NUMBER of the call, from 1; or never.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from moedge_devices.store import install, store, update
from moedge_devices.store.journal import Journal
from moedge_devices.store.trust import Memory
from moedge_runtime.cli.main import main

OWNERS = {
    "Store": store.Store,
    "Journal": Journal,
    "Memory": Memory,
    "Daemon": update.RunningDaemon,
    "Updater": update.Updater,
    "install": install,
}


def arm(point: str) -> None:
    name, when, *number = point.split(":")
    owner, _, method = name.partition(".")
    original, left = getattr(OWNERS[owner], method), [int(number[0]) if number else 1]

    def mortal(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if left[0] == 0 and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(OWNERS[owner], method, mortal)


def run(point: str, arguments: list[str], output: Path) -> int:
    """The exit code, negative for the signal that killed it; standard output goes to a file."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            with output.open("wb") as file:
                os.dup2(file.fileno(), 1)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            update.STEP_S = 0.05
            if point != "never":
                arm(point)
            main(["bundle", *arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
