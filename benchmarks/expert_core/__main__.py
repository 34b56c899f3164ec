"""Runs every measurement of the expert core; see `make bench-core`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from moedge_runtime.bundle import Precision
from moedge_runtime.inference.expert_core import NativeExperts

from expert_core.capped import run_capped
from expert_core.endurance import endurance
from expert_core.kernels import THREADS, kernels
from expert_core.records import HIDDEN, write_records
from expert_core.routing import Router
from expert_core.stack import LAYERS, PREFILL_TOKENS

CAP_BYTES = 8 << 30


def resident_seconds(directory: Path) -> dict[int, float]:
    """Seconds of a pass through all layers with everything resident, by tokens; from one layer with all its experts.

    One layer's experts are ten times the processor's cache, so that layer after layer would take no longer.
    """
    bundle = write_records(directory / "layer-int4-32", 1, Precision(bits=4))
    core = NativeExperts(bundle, threads=THREADS, max_tokens=1024)
    rng = np.random.default_rng(0)
    result = {}
    for tokens, rounds in ((PREFILL_TOKENS, 10), (1, 200)):
        hidden = rng.standard_normal((tokens, HIDDEN), dtype=np.float32)
        router = Router(1, 1.7)
        times = []
        for _ in range(rounds):
            logits = router.logits(tokens)[0]
            start = perf_counter()
            core.compute(0, hidden, logits)
            times.append(perf_counter() - start)
        result[tokens] = LAYERS * float(np.median(times))
    core.close()
    return result


def main() -> None:
    """Entry point; exit code 1 if a bound was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where records are written once and kept: 18 GB")
    directory = parser.parse_args().directory
    ok = kernels(directory)
    resident = {str(tokens): seconds for tokens, seconds in resident_seconds(directory).items()}
    write_records(directory / "stack-int4-32", LAYERS, Precision(bits=4))
    command = [sys.executable, "-m", "expert_core.stack", str(directory), json.dumps(resident)]
    ok &= run_capped(command, CAP_BYTES, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) == 0
    ok &= endurance(directory)
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
