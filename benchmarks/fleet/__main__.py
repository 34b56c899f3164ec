"""`PYTHONPATH=benchmarks:tests python -m fleet [--only files|simulator] [--minutes 15]`: one JSON object a line."""

from __future__ import annotations

import argparse
import sys

from machine import machine

from fleet.files import measure_files
from fleet.simulator import Load, measure_simulator


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["files", "simulator"])
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--rate", type=float, default=10.0, help="answers a minute of each device")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    print(machine(), file=sys.stderr)
    right = []
    if options.only != "simulator":
        right.append(measure_files())
    if options.only != "files":
        right.append(measure_simulator(Load(options.devices, options.rate, options.minutes, options.processes)))
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
