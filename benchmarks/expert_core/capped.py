"""Runs a command under a memory cap that counts the page cache too: a control group, version 1 or 2, as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def run_capped(command: Sequence[str], cap_bytes: int, env: Mapping[str, str]) -> int:
    """Exit code of `command`; what it prints goes where this process prints.

    Raises:
        SystemExit: There is no control group to be had.
    """
    first_version = (ROOT / "memory").is_dir()
    group = (ROOT / "memory" if first_version else ROOT) / f"moedge-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first_version else "memory.max")).write_text(str(cap_bytes))
    except OSError as error:
        raise SystemExit(f"A memory cap needs root and a writable {ROOT}: {error}.") from error
    join = f'echo $$ >"{group}/cgroup.procs"; exec "$@"'
    try:
        return subprocess.run(["sh", "-c", join, "sh", *command], env=dict(env), check=False).returncode
    finally:
        group.rmdir()
