"""The comparison at full size: makes the work, runs moedge and the peers in turn, writes figures, a table and plots.

    python -m full_size out/bench-full --tokenizer tokenizer.json --peers out/peers
    python -m full_size out/bench-full --tokenizer tokenizer.json --peers out/peers --only curve,vision

Prints one JSON object a line (`name`, `value`, `unit`, `bound`, `ok`); progress goes to stderr. Exit code 1 if a bound
was broken. Needs root (memory caps, dropping the page cache), 24 GiB of memory for the largest cap, and 37 GB of disk;
`export` needs as much beside the models of an earlier run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from subprocess import CalledProcessError
from time import monotonic

from moedge_runtime.errors import MoedgeError

from full_size.parts import PARTS, Run
from full_size.peers import find_peers


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where models and results are kept")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of Qwen3-VL, plain or gzipped")
    parser.add_argument("--peers", type=Path, default=Path("out/peers"), help="what benchmarks/peers/install.sh made")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, in this order: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="of everything that is alternated")
    parser.add_argument("--frames", type=int, default=200, help="of the endurance run")
    parser.add_argument("--layers", type=int, default=48, help="fewer for a quick trial; its figures mean nothing")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}. Choose from: {', '.join(PARTS)}.")
    start = monotonic()

    def say(what: str) -> None:
        print(f"[{monotonic() - start:6.0f} s] {what}", file=sys.stderr, flush=True)

    run = Run(
        arguments.directory,
        tokenizer=arguments.tokenizer,
        layers=arguments.layers,
        rounds=arguments.rounds,
        frames=arguments.frames,
        peers=find_peers(arguments.peers),
        say=say,
    )
    ok = True
    for name in PARTS:
        if name in wanted:
            say(f"part {name}")
            try:
                ok &= PARTS[name](run)
            except (SystemExit, MoedgeError, CalledProcessError) as error:  # the other parts can still be measured
                say(f"part {name} failed: {error}")
                ok = False
    run.finish()
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
