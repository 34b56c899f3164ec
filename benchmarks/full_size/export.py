"""`moedge export` at the size of Qwen3-VL-30B-A3B: rate, memory, and the same bytes however often it is killed.

    python -m full_size.export --out out/bench-export --tokenizer tokenizer.json

Exports the whole synthetic model once without a stop, then a cut of two layers: from memory, from sharded safetensors
that are not in the page cache, and killed with SIGKILL five times, going on with what is there each time. Prints one
JSON object a line (`name`, `value`, `unit`, `bound`, `ok`). Exit code 1 if a bound was broken. Needs 20 GB of disk,
37 GB with --kill-whole; what it writes is removed again, but with --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from machine import machine
from moedge_export.checkpoint import Checkpoint, read_config
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_export.tasks import architecture_of
from moedge_runtime.bundle import Bundle
from moedge_runtime.bundle.verify import sha256_of
from tqdm import tqdm

from full_size.architecture import model_config, write_files
from full_size.shards import write_shards
from full_size.weights import SyntheticWeights

SKEW = 1.7
CUT_LAYERS = 2
RATE_BOUND = 80.0
"""MB of bfloat16 weights a second, on two cores."""
MEMORY_BOUND = 4.0
"""GiB resident at most, whatever the size of the model."""
KILLS = 5
"""Times that the export is killed at least before it may finish."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for everything that is written")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of Qwen3-VL, plain or gzipped")
    parser.add_argument("--precision", choices=("int4", "int8"), default="int4")
    parser.add_argument("--layers", type=int, default=48, help="of the whole model")
    parser.add_argument("--kill-whole", action="store_true", help="kill the export of the whole model as well: minutes")
    parser.add_argument("--keep", action="store_true", help="keep the bundle of the whole model")
    parser.add_argument("--one", type=Path, metavar="CHECKPOINT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        export_one(arguments.one, arguments.out, arguments.precision)
        return
    if arguments.tokenizer is None:
        parser.error("--tokenizer is missing.")
    print(json.dumps({"name": "machine", "value": machine()}), flush=True)
    whole, cut = arguments.out / "checkpoint", arguments.out / "cut"
    write_files(whole, model_config(arguments.layers), arguments.tokenizer)
    write_files(cut, model_config(CUT_LAYERS), arguments.tokenizer)
    ok, whole_s = measure("whole model", whole, arguments.out / "bundle", arguments.precision)
    if arguments.kill_whole:
        expected = digests(arguments.out / "bundle")
        ok &= check_killed(whole, arguments.out / "killed", arguments.precision, expected, whole_s)
        shutil.rmtree(arguments.out / "killed")
    if not arguments.keep:
        shutil.rmtree(arguments.out / "bundle")
    kept, cut_s = measure("two layers", cut, arguments.out / "cut-bundle", arguments.precision)
    expected = digests(arguments.out / "cut-bundle")
    ok &= kept & check_killed(cut, arguments.out / "killed", arguments.precision, expected, cut_s)
    weights = synthetic(cut).weights
    assert isinstance(weights, SyntheticWeights)
    write_shards(weights, weights.names, cut)
    drop_from_page_cache(cut)
    ok &= measure("two layers from files", cut, arguments.out / "from-files", arguments.precision)[0]
    got = digests(arguments.out / "from-files")
    same = [name for name in expected if name != "manifest.json" and got.get(name) == expected[name]]
    ok &= report("same files from shards as from memory", len(same), "files", bound=len(expected) - 2)
    for name in ("cut", "cut-bundle", "killed", "from-files", "checkpoint"):
        shutil.rmtree(arguments.out / name, ignore_errors=True)
    raise SystemExit(0 if ok else 1)


def export_one(directory: Path, out: Path, precision: str) -> None:
    """Export in this process and print what it took, as JSON; goes on with what an earlier one left."""
    has_files = (directory / "model.safetensors.index.json").exists()
    checkpoint: Path | Checkpoint = directory if has_files else synthetic(directory)
    start, busy = time.monotonic(), time.process_time()
    with tqdm(unit="B", unit_scale=True, mininterval=5, file=sys.stderr) as bar:
        export_bundle(checkpoint, out, ExportOptions(precision=precision), bar)  # type: ignore[arg-type]
        nbytes = bar.n
    measured = {
        "input_bytes": nbytes,
        "seconds": time.monotonic() - start,
        "busy_seconds": time.process_time() - busy,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }
    print(json.dumps(measured), flush=True)


def measure(name: str, directory: Path, out: Path, precision: str) -> tuple[bool, float]:
    """Export in a process of its own and report rate and memory; whether bounds are kept, and its seconds of life."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    done = subprocess.run(command(directory, out, precision), check=True, stdout=subprocess.PIPE, text=True)
    life_s = time.monotonic() - started
    measured = json.loads(done.stdout.splitlines()[-1])
    megabytes = measured["input_bytes"] / 1e6
    written = sum(entry.nbytes for entry in Bundle.open(out).manifest.files)
    report(f"{name}: input", round(megabytes), "MB")
    report(f"{name}: bundle", round(written / 1e6), "MB")
    report(f"{name}: time", round(measured["seconds"], 1), "s")
    report(f"{name}: processor time", round(measured["busy_seconds"], 1), "s")
    ok = report(f"{name}: rate", round(megabytes / measured["seconds"], 1), "MB/s", bound=RATE_BOUND)
    peak = round(measured["peak_bytes"] / 2**30, 2)
    return ok & report(f"{name}: peak memory", peak, "GiB", bound=MEMORY_BOUND, lower_is_better=True), life_s


def check_killed(directory: Path, out: Path, precision: str, expected: dict[str, str], whole_s: float) -> bool:
    """Kill exports at random moments, `KILLS` times, resume each, and compare what comes out whenever one finishes.

    Args:
        directory: The checkpoint.
        out: Where to.
        precision: Of the bundle.
        expected: SHA-256 of what an export without a stop has written.
        whole_s: What that took, from the start of its process to the end.
    """
    dice = random.Random(0)
    kills, finished, same = 0, 0, len(expected)
    while kills < KILLS or not finished:
        shutil.rmtree(out, ignore_errors=True)
        resumed = False
        while True:
            process = subprocess.Popen(command(directory, out, precision), stdout=subprocess.DEVNULL)
            try:
                process.wait(dice.uniform(0.2, 0.8) * whole_s if kills < KILLS else None)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                resumed = True
                if out.exists():  # complete: it was killed between its last step and its end
                    break
        assert process.returncode == 0 or (resumed and out.exists())
        if resumed:
            finished += 1
            got = digests(out)
            alike = sum(got.get(name) == digest for name, digest in expected.items())
            same = min(same, alike if got.keys() == expected.keys() else 0)
    report("killed with SIGKILL", kills, "times", bound=KILLS)
    report("resumed to the end", finished, "exports")
    return report("same files after kills", same, "files", bound=len(expected))


def synthetic(directory: Path) -> Checkpoint:
    """The checkpoint of the files in `directory` with synthetic weights."""
    architecture = architecture_of(read_config(directory))
    return Checkpoint(directory, "synthetic", None, architecture, SyntheticWeights(architecture, SKEW))


def command(directory: Path, out: Path, precision: str) -> list[str]:
    """Of `export_one` in a process of its own."""
    arguments = ["--one", str(directory), "--out", str(out), "--precision", precision]
    return [sys.executable, "-m", "full_size.export", *arguments]


def digests(bundle: Path) -> dict[str, str]:
    """SHA-256 of every file by path, read anew."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): sha256_of(path) for path in files}


def drop_from_page_cache(directory: Path) -> None:
    """Have the files of a directory read from the disk next time."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def report(name: str, value: float, unit: str, bound: float | None = None, *, lower_is_better: bool = False) -> bool:
    """Print one figure; returns whether it keeps its bound."""
    line: dict[str, object] = {"name": name, "value": value, "unit": unit}
    ok = bound is None or (value <= bound if lower_is_better else value >= bound)
    if bound is not None:
        line |= {"bound": bound, "ok": ok}
    print(json.dumps(line), flush=True)
    return ok


if __name__ == "__main__":
    main()
