"""An update under way, on the disk, so that whoever is killed in it or rebooted finishes or undoes it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from moedge_runtime.durable import write_durably
from pydantic import BaseModel, ConfigDict, ValidationError

from moedge_devices.store.documents import Release
from moedge_devices.store.durable import remove_durably


class Pending(BaseModel):
    """One update, from before the link is changed until it counts or is undone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    phase: Literal["trying", "going_back"]
    release: Release
    before: str | None
    """The version to go back to; None if there was none."""
    tries: int = 1
    """How often somebody began to wait for answers: a board that reboots again and again goes back in the end."""
    reason: str | None = None
    """Why it goes back."""


class Journal:
    """The file of the update under way.

    Args:
        path: update.json.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Pending | None:
        """The update under way; None without one. It is written whole: a damaged one is a failing disk."""
        try:
            return Pending.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, pending: Pending) -> None:
        """Note how far it is."""
        write_durably(self._path, pending.model_dump_json().encode())

    def clear(self) -> None:
        """It is over."""
        remove_durably(self._path)
