"""`moedge bundle`, which kills itself at a point: `python mortal_update.py POINT ARGUMENTS…`.

A point is CLASS.METHOD:before or :after, and optionally :NUMBER of the call, from 1.
"""

import os
import signal
import sys
from typing import Any

from moedge_devices.store import install, store, update
from moedge_devices.store.cli import bundle
from moedge_devices.store.journal import Journal
from moedge_devices.store.trust import Memory
from moedge_runtime.errors import MoedgeError

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


if __name__ == "__main__":
    update.STEP_S = 0.05
    if sys.argv[1] != "never":
        arm(sys.argv[1])
    try:
        sys.exit(bundle.main(args=sys.argv[2:], prog_name="moedge bundle", standalone_mode=False) or 0)
    except MoedgeError as error:
        print(f"{error.key}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
