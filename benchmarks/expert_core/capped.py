"""A memory cap that counts the page cache too: a control group, version 1 or 2, as root."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

ROOT = Path("/sys/fs/cgroup")

_NUMBERS = itertools.count()
"""Of the groups that this process has made."""


class CappedProcess:
    """A process under a cap, spoken to through its standard input and output, a line at a time.

    Args:
        command: What to run.
        cap_bytes: Of its memory and of its page cache.
        env: Its environment.

    Raises:
        SystemExit: There is no control group to be had.
    """

    def __init__(self, command: Sequence[str], cap_bytes: int, env: Mapping[str, str]) -> None:
        self._first_version = (ROOT / "memory").is_dir()
        name = f"moedge-bench-{os.getpid()}-{next(_NUMBERS)}"
        self._group = (ROOT / "memory" if self._first_version else ROOT) / name
        try:
            self._group.mkdir(exist_ok=True)
            limit = "memory.limit_in_bytes" if self._first_version else "memory.max"
            (self._group / limit).write_text(str(cap_bytes), encoding="utf-8")
        except OSError as error:
            raise SystemExit(f"A memory cap needs root and a writable {ROOT}: {error}.") from error
        join = f'echo $$ >"{self._group}/cgroup.procs"; exec "$@"'
        self._process = subprocess.Popen(
            ["sh", "-c", join, "sh", *command], env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> str:
        """Send a line, and wait for the line that answers it.

        Raises:
            SystemExit: The process has ended.
        """
        to, answers = self._pipes()
        print(line, file=to, flush=True)
        answer = answers.readline()
        if not answer:
            raise SystemExit(f"The measured process ended with code {self._process.wait()}; see what it printed.")
        return answer

    def anonymous_bytes(self) -> int:
        """Memory that the group is charged for now, without its page cache."""
        text = (self._group / "memory.stat").read_text(encoding="utf-8")
        match = re.search(rf"^{'rss' if self._first_version else 'anon'} (\d+)$", text, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def peak_bytes(self) -> int:
        """The most memory that the group was ever charged for, page cache included."""
        name = "memory.max_usage_in_bytes" if self._first_version else "memory.peak"
        return int((self._group / name).read_text(encoding="utf-8"))

    def __enter__(self) -> CappedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes():
            pipe.close()
        self._process.wait()
        self._group.rmdir()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout
