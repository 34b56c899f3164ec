"""A container of one of the images, and running something in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wheels.installed import ROOT

BUILDAH = ROOT / "tests/docker/buildah"
DEADLINE_S = 1200.0


@dataclass(frozen=True)
class Container:
    """A container that buildah has made of an image. Programs in it share the network of the tests.

    Attributes:
        name: buildah's.
        volumes: Directory or file in the container by the one outside; read-only, but for those in `writable`.
        writable: Of the paths outside.
    """

    name: str
    volumes: Mapping[Path, str] = field(default_factory=dict)
    writable: frozenset[Path] = frozenset()

    def command(self, *words: object) -> list[str]:
        """What starts a program in it, as the image's user."""
        mounts = [
            f"--volume={outside}:{inside}:{'rw' if outside in self.writable else 'ro'}"
            for outside, inside in self.volumes.items()
        ]
        return [str(BUILDAH), "run", *mounts, self.name, "--", *(str(word) for word in words)]

    def start(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, whatever that is."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=DEADLINE_S, cwd=ROOT
        )

    def run(self, *words: object) -> str:
        """Standard output; the test fails with all that the program printed if the program does."""
        done = self.start(*words)
        assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
        return done.stdout

    def megabytes(self) -> float:
        """Size of all files in it, in 1,000,000 bytes; a hard link counts once."""
        place = buildah("mount", self.name).strip()
        size = subprocess.run(
            ["du", "--summarize", "--block-size=1", place], capture_output=True, text=True, check=True
        )
        return round(int(size.stdout.split()[0]) / 1e6, 1)


def buildah(*words: str) -> str:
    """Standard output of buildah."""
    done = subprocess.run([str(BUILDAH), *words], capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def image_config(image: str) -> dict[str, Any]:
    """What the image says about how it is run: User, Entrypoint, Cmd, Healthcheck, Volumes."""
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    return config
