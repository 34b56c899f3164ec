"""Speaks to the measured process, and reads what it has missed once more: the flash's limit for those passes.

The plain reader reads the same records in the same order with as many threads, right before and right after them, while
the measured process waits. It is this process, so that its buffers are not counted there.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from moedge_runtime.bench.bandwidth import read_seconds

from expert_core.capped import CappedProcess
from expert_core.measured import READERS, Memory, Passes, PassesWanted, Setup
from expert_core.read_log import build_read_log
from expert_core.records import stack_records

CAP_BYTES = 8 << 30


@dataclass(frozen=True)
class BesideFlash:
    """Passes, and what the plain reader got for the same records.

    Attributes:
        seconds: Of the passes.
        missed: The records that had to be read for them.
        missed_bytes: Of these.
        bandwidths: Bytes a second of the plain reader before and after the passes.
    """

    seconds: float
    missed: list[int]
    missed_bytes: int
    bandwidths: tuple[float, float]

    def over_limit(self, resident_s: float = 0.0) -> float:
        """Their time over their limit; `resident_s` is what they take with everything resident."""
        return self.seconds / limit_seconds(self.missed_bytes, self.bandwidths, resident_s)


def limit_seconds(missed_bytes: int, bandwidths: Sequence[float], resident_s: float) -> float:
    """What passes cannot be faster than: the longer of reading what they miss and computing with everything resident.

    Args:
        missed_bytes: Of all passes.
        bandwidths: Bytes a second of the plain reader before and after them; the mean of the times counts.
        resident_s: Seconds of all passes with everything resident.
    """
    return max(statistics.mean(missed_bytes / bandwidth for bandwidth in bandwidths), resident_s)


class Conductor:
    """A measured process under the cap, and the plain reader of its records."""

    def __init__(self, directory: Path, setup: Setup) -> None:
        self._path = stack_records(directory).file("experts.bin")
        library = build_read_log(directory)
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "LD_PRELOAD": str(library)}
        self._process = CappedProcess([sys.executable, "-m", "expert_core.measured"], CAP_BYTES, env)
        self._record_bytes = int(json.loads(self._process.ask(json.dumps(asdict(setup)))))
        self.most_anonymous_bytes = 0

    def run(self, wanted: PassesWanted) -> Passes:
        """Let it make passes."""
        passes = Passes(**json.loads(self._process.ask(json.dumps(asdict(wanted)))))
        self.most_anonymous_bytes = max(self.most_anonymous_bytes, self._process.anonymous_bytes())
        return passes

    def run_beside_flash(self, wanted: PassesWanted, earlier: list[int]) -> BesideFlash:
        """The passes between two readings: of `earlier`, what such passes missed last time, and of what they miss."""
        before = self.plain_bandwidth(earlier)
        passes = self.run(wanted)
        after = self.plain_bandwidth(passes.missed)
        return BesideFlash(passes.seconds, passes.missed, len(passes.missed) * self._record_bytes, (before, after))

    def memory(self) -> Memory:
        """Where its memory is."""
        return Memory(**json.loads(self._process.ask("null")))

    def plain_bandwidth(self, records: list[int], memory_bytes: int = 0) -> float:
        """Bytes a second of the plain reader, into as little memory as it needs or into more."""
        seconds = read_seconds(self._path, self._record_bytes, records, READERS, memory_bytes=memory_bytes)
        return len(records) * self._record_bytes / seconds

    def __enter__(self) -> Conductor:
        self._process.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)
