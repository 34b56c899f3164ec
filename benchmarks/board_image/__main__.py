"""`PYTHONPATH=benchmarks python -m board_image OUT --package DEB [--cuts 10]`: one JSON object a line.

Builds an image and updates (root; minutes), and runs them in qemu-system-aarch64: see README.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from machine import machine

from board_image.emulator import BoardError
from board_image.scenario import Scenario
from board_image.works import Works


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--package", type=Path, required=True, help="the moedge package for arm64")
    parser.add_argument("--bundle", type=Path, required=True, help="the demo model, exported")
    parser.add_argument("--cuts", type=int, default=10, help="power cuts, spread over one update")
    options = parser.parse_args()
    print(machine(), file=sys.stderr)
    works = Works.make(options.out, options.package, options.bundle)
    scenario = Scenario(works, options.out / "run")
    try:
        with scenario:
            scenario.first_boot()
            scenario.refusals()
            scenario.undone_update()
            scenario.kept_update()
            scenario.power_cuts(options.cuts)
    except BoardError as error:
        print(f"board_image: {error}", file=sys.stderr)
        return 1
    return 0 if all(scenario.right) else 1


if __name__ == "__main__":
    sys.exit(main())
