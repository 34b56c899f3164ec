"""Where the data of this component lies: beside the package in a clone, inside it in an installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


def data_path(name: str) -> Path:
    """The file or folder `name` of devices/, for example `profiles`."""
    installed = _PACKAGE / name
    return installed if installed.exists() else _PACKAGE.parent / name


@cache
def profile_names() -> frozenset[str]:
    """Names of the shipped profiles."""
    return frozenset(path.stem for path in data_path("profiles").glob("*.yaml"))
