"""Directories and links that are either the old or the new ones after a power cut."""

from __future__ import annotations

from pathlib import Path

from moedge_runtime.durable import sync_path


def make_directory(path: Path) -> None:
    """Make a directory and those above it, readable by all whatever the umask says, and make them last."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    sync_path(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file, which may be gone already, and make that last."""
    path.unlink(missing_ok=True)
    sync_path(path.parent)


def link_durably(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`; whoever follows it meets the old or the new one, never none."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)
    sync_path(path.parent)
