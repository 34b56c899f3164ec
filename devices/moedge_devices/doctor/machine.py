"""What a check may look at: files below a root, and what commands print. Tests give another root and other outputs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Output:
    """Of a command: its exit code, and what it printed on both streams."""

    code: int
    text: str


Run = Callable[[Sequence[str]], Output | None]


def run_command(command: Sequence[str]) -> Output | None:
    """Run a program; None if there is none of that name, or it does not end in time."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Output(done.returncode, done.stdout.decode(errors="replace"))


@dataclass(frozen=True)
class Machine:
    """This board, or one made of files and texts.

    Attributes:
        root: Where proc, sys and etc are.
        run: Runs a command.
    """

    root: Path = Path("/")
    run: Run = run_command

    def text(self, path: str) -> str | None:
        """Content of a text file; None if it cannot be read. Null characters, as in a device tree, become spaces."""
        content = self.content(path)
        return None if content is None else content.decode(errors="replace").replace("\0", " ").strip()

    def content(self, path: str) -> bytes | None:
        """Content of a file; None if it cannot be read."""
        try:
            return (self.root / path).read_bytes()
        except OSError:
            return None

    def texts(self, pattern: str) -> dict[str, str]:
        """Content of every text file that matches, by its path below the root."""
        found = {}
        for path in sorted(self.root.glob(pattern)):
            relative = path.relative_to(self.root).as_posix()
            text = self.text(relative)
            if text is not None:
                found[relative] = text
        return found
