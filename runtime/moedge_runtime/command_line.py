"""What click lacks for the commands of all components: examples in their help, kinds of values."""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import Any

import click


def examples(*calls: str) -> str:
    """The end of a command's help: how it is called, one call a line, not wrapped."""
    return "\n".join(["\b", "Example:" if len(calls) == 1 else "Examples:", *(f"  {call}" for call in calls)])


class FiniteRange(click.FloatRange):
    """A number within limits. click's own takes `nan`, which is within all of them, and `inf` without an upper one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; ends the command if it is none."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


class OutputFile(click.Path):
    """A file that is written beside and renamed: what has that name until then is a file, or nothing."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; ends the command if a device, a pipe or a socket would be replaced."""
        path = Path(str(super().convert(value, param, ctx)))
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except OSError:  # nothing is there; or nobody may look, and writing says so
            return path
        if not regular:
            self.fail(f"'{path}' is no regular file, and would be replaced by one. Give another name.", param, ctx)
        return path


class OutputDirectory(click.Path):
    """A directory that files are put into. An empty name, as of a variable that is not set, would be this directory."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; ends the command if it is empty."""
        if value == "":
            self.fail("the name is empty. Give a directory; . is this one.", param, ctx)
        return Path(str(super().convert(value, param, ctx)))
