"""A wheel that is installed somewhere, and running what it brought."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Far beyond what it takes on two busy cores.
DEADLINE_S = 1200


@dataclass(frozen=True)
class Installed:
    """Where a wheel is installed.

    Attributes:
        python: Starts its Python.
        environment: For whatever is started.
    """

    python: Path
    environment: Mapping[str, str]

    def run(self, *arguments: object, **environment: str) -> str:
        """Standard output of its Python; the test fails with all that was printed if it does not end well."""
        return run(self.python, *arguments, environment={**self.environment, **environment})


def wheel_for(processor: str, wheels: Path) -> Path:
    """The only wheel for a processor."""
    (wheel,) = wheels.glob(f"moedge-*_{processor}.whl")
    return wheel


def run(*command: object, environment: Mapping[str, str]) -> str:
    """Standard output; the test fails with all that the command printed if the command does."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout
