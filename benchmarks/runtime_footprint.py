"""Size of an environment with the runtime only, and the idle daemon's memory. Run through `make bench`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from machine import machine

ROOT = Path(__file__).parent.parent
FORBIDDEN = ("torch", "transformers", "onnx", "optimum")
START_DEADLINE_S = 60.0
IDLE_S = 5.0
VIDEO = ROOT / "examples" / "panel" / "video" / "panel.mp4"


def environment(directory: Path) -> Path:
    """A new virtual environment with `moedge[camera,broker,update]` built from this tree; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = directory / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"{ROOT}[camera,broker,update]"], check=True)
    return python


def size_bytes(directory: Path, *, without: tuple[str, ...] = ()) -> int:
    """Bytes of all files, links not followed, leaving out the folders named in `without`."""
    return sum(
        path.lstat().st_size
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink() and not set(without) & set(path.parts)
    )


def idle_daemon(python: Path, bundle: Path, directory: Path) -> dict[str, Any]:
    """Start the daemon with a live camera and no watch, let it idle, and look at its memory.

    Returns:
        `rss_bytes`, `pss_bytes` without the broker's process, and `forbidden`: which of `FORBIDDEN` are mapped.
    """
    config = directory / "moedge.yaml"
    document = {
        "version": 1,
        "device": "footprint",
        "model": {"bundle": str(bundle.resolve())},
        "mqtt": {"embedded": {"port": 18830}},
        "cameras": {"panel": {"source": f"file:{VIDEO}", "loop": True, "realtime": True}},
    }
    config.write_text(yaml.safe_dump(document))
    daemon = subprocess.Popen(
        [str(python), "-m", "moedge_runtime", "run", "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_until_ready(daemon)
        time.sleep(IDLE_S)
        memory = _memory(daemon.pid)
        maps = Path(f"/proc/{daemon.pid}/maps").read_text()
        return memory | {"forbidden": [name for name in FORBIDDEN if f"/site-packages/{name}/" in maps]}
    finally:
        daemon.terminate()
        daemon.wait()


def _wait_until_ready(daemon: subprocess.Popen[str]) -> None:
    """Wait until the daemon logs that it runs."""
    assert daemon.stderr is not None
    deadline = time.monotonic() + START_DEADLINE_S
    for line in daemon.stderr:
        if "runs with" in line:
            return
        if time.monotonic() > deadline:
            break
    raise SystemExit(f"The daemon did not become ready in {START_DEADLINE_S:.0f} s.")


def _memory(pid: int) -> dict[str, int]:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    return {
        "rss_bytes": 1024 * int(fields["Rss"].split()[0]),
        "pss_bytes": 1024 * int(fields["Pss"].split()[0]),
        "anonymous_bytes": 1024 * int(fields["Anonymous"].split()[0]),
    }


def main() -> None:
    """Entry point; prints one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "out" / "demo" / "panel-int4")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        python = environment(directory / "venv")
        results: list[dict[str, Any]] = [
            {
                "name": "runtime-only environment",
                "value": round(size_bytes(directory / "venv", without=("pip", "setuptools")) / 1e6, 1),
                "unit": "MB",
            }
        ]
        idle = idle_daemon(python, arguments.bundle, directory)
        forbidden = idle.pop("forbidden")
        results += [
            {"name": f"idle daemon {key.removesuffix('_bytes')}", "value": round(value / 1e6, 1), "unit": "MB"}
            for key, value in idle.items()
        ]
        results.append(
            {"name": "workstation packages in memory", "value": len(forbidden), "unit": "", "bound": 0}
            | {"ok": not forbidden}
        )
    for result in results:
        print(json.dumps(result | {"machine": machine()}))


if __name__ == "__main__":
    main()
