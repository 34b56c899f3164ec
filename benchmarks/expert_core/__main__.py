"""Runs every measurement of the expert core, or one of them; see `make bench-core`."""

from __future__ import annotations

import argparse
from pathlib import Path

from expert_core.cold import cold
from expert_core.endurance import endurance
from expert_core.kernels import kernels
from expert_core.stack import stack

PARTS = {part.__name__: part for part in (kernels, cold, stack, endurance)}


def main() -> None:
    """Entry point; exit code 1 if a bound was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where records are written once and kept: 18 GB")
    parser.add_argument("--only", choices=PARTS, help="one measurement instead of all")
    arguments = parser.parse_args()
    parts = [PARTS[arguments.only]] if arguments.only else PARTS.values()
    kept = [part(arguments.directory) for part in parts]
    raise SystemExit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
