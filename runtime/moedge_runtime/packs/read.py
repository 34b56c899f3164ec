"""Finds packs and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent
DESCRIPTION = "pack.yaml"


@dataclass(frozen=True)
class TestFrame:
    """A drawn picture of a pack.

    Attributes:
        path: A PNG.
        at_s: Camera time at which it comes, in seconds.
        gate: What the gate says to it: a trigger, `no_motion`, or `wait` if it comes within the interval.
        answer: What a right answer says; None if nobody asks.
    """

    path: Path
    at_s: float
    gate: str
    answer: dict[str, Any] | None


@dataclass(frozen=True)
class Pack:
    """A ready-made watch.

    Attributes:
        name: As in `pack: name`.
        title: One line.
        place: Where the camera is to look from; for people.
        watch: Keys of a watch in moedge.yaml, the defaults of one that names this pack.
        camera: Keys of a camera in moedge.yaml that are recommended; they are not taken over.
        frames: In their order.
    """

    name: str
    title: str
    place: str
    watch: dict[str, Any]
    camera: dict[str, Any]
    frames: list[TestFrame]

    @property
    def text(self) -> str:
        """The pack as it is written."""
        return (ROOT / self.name / DESCRIPTION).read_text(encoding="utf-8")


@cache
def pack_names() -> tuple[str, ...]:
    """Names of all packs, sorted."""
    return tuple(sorted(path.parent.name for path in ROOT.glob(f"*/{DESCRIPTION}")))


def load_pack(name: str) -> Pack:
    """The pack of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in pack_names():
        raise ValueError(f"there is no pack '{name}'; known are {', '.join(pack_names())}")
    directory = ROOT / name
    content = yaml.safe_load((directory / DESCRIPTION).read_text(encoding="utf-8"))
    frames = [
        TestFrame(directory / frame["file"], frame["at"], frame["gate"], frame.get("answer"))
        for frame in content["frames"]
    ]
    return Pack(name, content["title"], content["place"], content["watch"], content.get("camera", {}), frames)
