"""`moedge run` with the fake answerer: `python fake_daemon.py CONFIG [OPTION …]`.

Prints what it imported. Options: --exit-when-done; --patient waits for an hour for an answer under way when it is told
to stop; --board=ROOT reads the board's sensors under ROOT; --sockets=DIRECTORY is where updates are
started; --die=POINT kills it at its twentieth answer (made, queued,
sent), acknowledgement or write into the spool, or at a step of its first reload.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from moedge_runtime.config import load_config
from moedge_runtime.daemon import outlets, reload, service, updates
from moedge_runtime.daemon.board import read_board
from moedge_runtime.daemon.config_file import NewConfig
from moedge_runtime.daemon.process import run_process
from moedge_runtime.daemon.setup import Setup
from moedge_runtime.mqtt.client import MqttClient
from moedge_runtime.mqtt.outbox import Outbox
from moedge_runtime.mqtt.session import Session
from moedge_runtime.mqtt.spool import Spool
from runtime.daemon.fakes import FakeAnswerer


def answers(argument: Any) -> int:
    """How many there are in what a method is called with: a batch for the spool, a message, or the number of one."""
    topics = [topic for topic, _ in argument] if isinstance(argument, list) else [getattr(argument, "topic", "answer")]
    return [topic.rpartition("/")[2] for topic in topics].count("answer")


class Death:
    """Kills the process in the call of `method` that has the twentieth answer."""

    def __init__(self, owner: type, method: str, *, after: bool) -> None:
        original, left = getattr(owner, method), [20]

        def watched(*arguments: Any, **options: Any) -> Any:
            count = answers(arguments[1])
            left[0] -= count
            last = count > 0 and left[0] <= 0
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, method, watched)


def after_first(owner: Any, name: str) -> None:
    """Kill the process at the end of the first call of `name`."""
    original = getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> None:
        original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, watched)


DEATHS = {
    "made": lambda: Death(MqttClient, "publish", after=False),
    "queued": lambda: Death(MqttClient, "publish", after=True),
    "sent": lambda: Death(Session, "publish", after=True),
    "acknowledged": lambda: Death(Outbox, "delivered", after=True),
    "kept": lambda: Death(Spool, "append", after=True),
    "checked": lambda: after_first(reload, "prepare"),
    "changed": lambda: after_first(Setup, "change"),
    "written": lambda: after_first(NewConfig, "commit"),
}

if __name__ == "__main__":
    for option in sys.argv:
        if option.startswith("--die="):
            DEATHS[option.removeprefix("--die=")]()
        if option.startswith("--board="):
            read = partial(read_board, Path(option.removeprefix("--board=")))
            outlets.Protection = partial(outlets.Protection, read=read)  # type: ignore[misc]
        if option.startswith("--sockets="):
            updates.SOCKETS = Path(option.removeprefix("--sockets="))
    if "--patient" in sys.argv:
        service.FINISH_S = 3600.0
    code = run_process(
        load_config(sys.argv[1]), FakeAnswerer.open, exit_when_done="--exit-when-done" in sys.argv, log_level="info"
    )
    print("modules:", *sorted({name.partition(".")[0] for name in sys.modules}))
    sys.exit(code)
