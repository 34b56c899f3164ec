"""Fuzzes one target, guided by coverage, until something breaks: `python -m fuzz TARGET [--seconds 300]`.

What is new goes to build/fuzz/TARGET; what breaks it, too, as crash-…, and its path is printed. `--merge` makes of both
the smallest corpus that covers as much, in build/fuzz/TARGET.merged. `make fuzz` runs all targets.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["moedge_runtime", "yaml"]):
    from fuzz.targets import CORPUS, TARGETS
    from moedge_runtime.config.schema import config_schema

FOUND = Path(__file__).parents[2] / "build" / "fuzz"
MAX_BYTES = 4096


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--merge", action="store_true")
    arguments, given = parser.parse_known_args()
    logging.disable()
    corpus, found = CORPUS / arguments.target, FOUND / arguments.target
    found.mkdir(parents=True, exist_ok=True)
    words = found.with_suffix(".dict")
    words.write_text("".join(f'"{word}"\n' for word in sorted(_words(config_schema()))))
    options = [f"-max_len={MAX_BYTES}", "-timeout=30", "-rss_limit_mb=4096", f"-artifact_prefix={found}/"]
    if given:
        options = given  # libFuzzer starts this program again to merge
    elif arguments.merge:
        smallest = found.with_suffix(".merged")
        shutil.rmtree(smallest, ignore_errors=True)
        smallest.mkdir()
        options += ["-set_cover_merge=1", str(smallest), str(corpus), str(found)]
        print(f"The merged corpus is in {smallest}.")
    else:
        options += [
            f"-max_total_time={arguments.seconds}",
            f"-dict={words}",
            "-print_final_stats=1",
            str(found),
            str(corpus),
        ]
    target = TARGETS[arguments.target]
    again = f"PYTHONPATH={os.environ.get('PYTHONPATH', '')} {sys.executable} -m fuzz {arguments.target}"
    atheris.Setup([again, *options], lambda data: target(data) and None)
    atheris.Fuzz()


def _words(schema: object) -> set[str]:
    """Every key and choice that a configuration can have."""
    if isinstance(schema, list):
        return set().union(*map(_words, schema))
    if not isinstance(schema, dict):
        return set()
    words = set(schema.get("properties", ())) | {word for word in schema.get("enum", ()) if isinstance(word, str)}
    return words.union(*map(_words, schema.values()))


if __name__ == "__main__":
    main()
