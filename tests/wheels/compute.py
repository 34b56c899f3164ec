"""Computes experts with the native core on the processor that runs it: `compute.py CASES RESULTS [ISA]`.

Every directory in CASES has a bundle's manifest.json and experts.bin, and inputs.npz. The results go to RESULTS (.npz);
what computed them is printed as JSON.
"""

import json
import platform
import sys
from pathlib import Path

import numpy as np
from moedge_runtime.bundle import Bundle, Manifest
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.library import LIBRARY, load_library

BUDGET_BYTES = 1 << 30


def main(cases: Path, results: Path, isa: str | None = None) -> None:
    computed: dict[str, np.ndarray] = {}
    used = set()
    for case in sorted(cases.iterdir()):
        bundle = Bundle(case, Manifest.model_validate_json((case / "manifest.json").read_text()))
        native = NativeExperts(bundle, BUDGET_BYTES, isa=isa)
        used.add(native.isa)
        with np.load(case / "inputs.npz") as inputs:
            for layer in bundle.manifest.model.text.moe_layers:
                for tokens in inputs["tokens"]:
                    x, logits = inputs["moe_input"][:tokens], inputs["router_logits"][:tokens]
                    computed[f"{case.name}/{layer}/{tokens}"] = native.compute(layer, x, logits)
        native.close()
    np.savez(results, **computed)
    facts = {
        "machine": platform.machine(),
        "best_isa": load_library().moedge_core_best_isa().decode(),
        "used": sorted(used),
        "code": mapped_code(LIBRARY),
    }
    print(json.dumps(facts))


def mapped_code(library: Path) -> tuple[int, int]:
    """First address and end of the instructions of a loaded library; source: proc_pid_maps(5)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, *_, name = line.split()
        if "x" in permissions and name == str(library):
            begin, end = addresses.split("-")
            return int(begin, 16), int(end, 16)
    raise SystemExit(f"{library} has no executable mapping")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
