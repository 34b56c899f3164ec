"""48 layers of records on flash under a memory cap: prefill and decode beside what flash and kernels allow.

Run by `__main__` in a process of its own, inside the cap.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from moedge_runtime.bundle import Precision
from moedge_runtime.inference.expert_core import NativeExperts

from expert_core.limits import flash_bandwidth
from expert_core.records import HIDDEN, write_records
from expert_core.report import report
from expert_core.routing import Router

LAYERS, PREFILL_TOKENS, DECODE_TOKENS = 48, 220, 20
BUDGET_BYTES = 5 << 30
MOST_BEYOND_BUDGET_MIB = 64.0
BOUND = 1.25
FRAMES = 5
READERS = 4
FLASH_RECORDS = 500
"""Records of one measurement of the flash: 1.3 GB, about a second."""


class Stack:
    """Passes through all layers, each with the same hidden states."""

    def __init__(self, core: NativeExperts, skew: float) -> None:
        self._core = core
        self._router = Router(LAYERS, skew)
        self._hidden = np.random.default_rng(0).standard_normal((PREFILL_TOKENS, HIDDEN), dtype=np.float32)

    def run(self, tokens: int) -> tuple[float, float]:
        """Seconds of a pass, and the bytes that it could not have found in memory."""
        logits = self._router.logits(tokens)
        before = self._core.statistics()
        start = perf_counter()
        for layer in range(LAYERS):
            self._core.compute(layer, self._hidden[:tokens], logits[layer])
        seconds = perf_counter() - start
        done = self._core.statistics() - before
        return seconds, done.read_bytes * (1 - done.prefetch_unused / max(1, done.reads))


def stack(directory: Path, resident_s: dict[int, float]) -> bool:
    """Frames of a prefill and a decode, at skewed and at uniform routing, the flash measured before and after each.

    Args:
        directory: Holds the records.
        resident_s: Seconds of a pass with everything resident, by tokens.
    """
    bundle = write_records(directory / "stack-int4-32", LAYERS, Precision(bits=4))
    path, record_bytes = bundle.file("experts.bin"), bundle.expert_layout.record_bytes
    ok = True
    seeds = iter(range(1000))

    def flash() -> float:
        return flash_bandwidth(path, record_bytes, FLASH_RECORDS, READERS, next(seeds))

    for skew in (1.7, 0.0):
        core = NativeExperts(bundle, BUDGET_BYTES, threads=2, readers=READERS, max_tokens=1024)
        passes = Stack(core, skew)
        passes.run(PREFILL_TOKENS)  # the first fills the memory
        for _ in range(DECODE_TOKENS):
            passes.run(1)
        shares: dict[str, list[float]] = {"prefill": [], "decode": []}
        times: dict[str, list[float]] = {"prefill": [], "decode": []}
        speeds = [flash()]
        for _ in range(FRAMES):
            for kind, tokens, count in (("prefill", PREFILL_TOKENS, 1), ("decode", 1, DECODE_TOKENS)):
                seconds, missed = np.sum([passes.run(tokens) for _ in range(count)], axis=0)
                speeds.append(flash())
                limit = max(float(missed) / statistics.mean(speeds[-2:]), count * resident_s[tokens])
                shares[kind].append(float(seconds) / limit)
                times[kind].append(float(seconds) / count)
        label = f"skew {skew}"
        for kind, values in shares.items():
            report(f"{label}: {kind}", times[kind], "s")
            ok &= report(f"{label}: {kind} over its limit", values, "ratio", BOUND)
        report(f"{label}: flash, plain reader", [speed / 1e9 for speed in speeds], "GB/s")
        peak = _peak_bytes()
        ok &= report(
            f"{label}: peak memory beyond the budget", [(peak - BUDGET_BYTES) / 2**20], "MiB", MOST_BEYOND_BUDGET_MIB
        )
        core.close()
    return ok


def cold(directory: Path) -> bool:
    """Experts that nobody has asked for before, beside a plain reader of the same records, in turn."""
    bundle = write_records(directory / "stack-int4-32", LAYERS, Precision(bits=4))
    path, record_bytes = bundle.file("experts.bin"), bundle.expert_layout.record_bytes
    hidden: npt.NDArray[np.float32] = np.ones((1, HIDDEN), np.float32)
    shares, ours, plain = [], [], []
    for seed in range(9):
        core = NativeExperts(bundle, 512 << 20, threads=2, readers=READERS, max_tokens=8)
        logits = Router(LAYERS, 0.0, seed).logits(1)
        start = perf_counter()
        for layer in range(LAYERS):
            core.compute(layer, hidden, logits[layer])
        speed = core.statistics().read_bytes / (perf_counter() - start)
        core.close()
        reader = flash_bandwidth(path, record_bytes, 8 * LAYERS, READERS, seed)
        ours.append(speed / 1e9)
        plain.append(reader / 1e9)
        shares.append(speed / reader)
    report("cold experts: core", ours, "GB/s")
    report("cold experts: plain reader", plain, "GB/s")
    return report("cold experts: core over a plain reader", shares, "ratio", 0.90, "higher")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    """Entry point of the capped process; exit code 1 if a bound was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("resident_s", type=json.loads)
    arguments = parser.parse_args()
    resident_s = {int(tokens): seconds for tokens, seconds in arguments.resident_s.items()}
    ok = cold(arguments.directory) & stack(arguments.directory, resident_s)
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
