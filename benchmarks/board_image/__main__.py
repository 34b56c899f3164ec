"""`PYTHONPATH=benchmarks python -m board_image OUT --package DEB --bundle DIR`: one JSON object a line.

Builds an image and an update (root; minutes), and runs them in qemu-system-aarch64: see README.md.
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
    parser.add_argument("--only", help="parts, joined by commas; `first-boot` makes what the others go on from")
    options = parser.parse_args()
    print(machine(), file=sys.stderr)
    scenario = Scenario(Works.make(options.out, options.package, options.bundle), options.out / "run", options.cuts)
    wanted = options.only.split(",") if options.only else list(scenario.parts)
    if unknown := set(wanted) - set(scenario.parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}. Choose from: {', '.join(scenario.parts)}.")
    went = True
    with scenario:
        for name in scenario.parts:
            if name in wanted:
                try:
                    scenario.run(name)
                except BoardError as error:  # the other parts can still be run
                    print(f"board_image: {name}: {error}", file=sys.stderr)
                    went = False
    return 0 if went and all(scenario.right) else 1


if __name__ == "__main__":
    sys.exit(main())
