"""What came over the network in the place of a file of /etc/moedge, where the daemon may not write; which one counts.

Decision: docs/decisions/0017-pushed-configuration.md.
"""

from __future__ import annotations

from pathlib import Path

ETC = Path("/etc/moedge")
"""Root's: keys of updates lie there."""

PUSHED = Path("/var/lib/moedge/pushed")
"""The daemon's."""


def pushed_path(path: Path) -> Path:
    """Where what comes in the place of `path` is written: where its links lead, or in PUSHED if that is ETC."""
    real = path.resolve()
    return PUSHED / real.name if real.parent == ETC else real


def is_pushed(path: Path) -> bool:
    """Whether a file came over the network and is not where it was asked for."""
    return path.parent == PUSHED


def in_force(path: Path) -> Path:
    """The file that counts where `path` is asked for: what was pushed in its place, or else itself.

    Raises:
        PermissionError: PUSHED may not be looked into.
    """
    pushed = pushed_path(path)
    return pushed if is_pushed(pushed) and pushed.exists() else path
