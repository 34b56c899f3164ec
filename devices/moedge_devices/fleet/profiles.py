"""Which profiles of boards there are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import moedge_devices

_PACKAGE = Path(moedge_devices.__file__).parent
_PLACES = (_PACKAGE / "profiles", _PACKAGE.parent / "profiles")
"""In an installed package, and in a checkout."""


@cache
def profile_names() -> frozenset[str] | None:
    """Names that a fleet file may use as `profile`; None if no profiles are installed, and none can be checked."""
    places = [place for place in _PLACES if place.is_dir()]
    return frozenset(path.stem for place in places for path in place.glob("*.yaml")) if places else None
