"""Replaces a configuration and kills itself on the way: `python mortal_config.py FILE NEW POINT`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moedge_runtime.config import load_config
from moedge_runtime.daemon.config_file import NewConfig

POINTS = ("draft not synced", "draft synced", "before the exchange", "after the exchange", "directory synced")


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(call: Callable[..., Any]) -> Callable[..., Any]:
    def method(*arguments: Any) -> Any:
        call(*arguments)
        die()

    return method


def main(path: Path, text: str, point: str) -> None:
    running = load_config(path)
    if point == "draft not synced":
        os.fsync = die
    new = NewConfig(running, text)
    if point == "draft synced":
        die()
    if point == "before the exchange":
        Path.replace = die  # type: ignore[assignment, method-assign]
    if point == "after the exchange":
        Path.replace = after(Path.replace)  # type: ignore[method-assign]
    if point == "directory synced":
        os.fsync = after(os.fsync)
    new.commit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_text(), sys.argv[3])
