"""The demo: exports the model, runs broker, daemon and a client, compares every answer with the video's truth."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from moedge_runtime.mqtt.broker import EmbeddedBroker

from moedge_panel.contact_sheet import Tile, write_contact_sheet
from moedge_panel.truth import VideoTruth

ASSETS = Path(__file__).parent.parent
DEADLINE_S = 300.0

PANEL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reading": {"type": "integer", "minimum": 0, "maximum": 9999},
        "lamps": {"type": "array", "items": {"enum": ["red", "amber", "green", "blue"]}, "maxItems": 4},
        "gauge": {"enum": ["low", "high"]},
    },
    "required": ["reading", "lamps", "gauge"],
    "additionalProperties": False,
}

WATCHES: list[dict[str, Any]] = [
    {"name": "reading", "question": "What is the reading?", "interval": 3},
    {"name": "lamps", "question": "Which lamps are lit?", "interval": 6},
    {"name": "state", "question": "Report the panel as JSON.", "interval": 6, "json_schema": PANEL_SCHEMA},
    {"name": "gauge", "question": "Is the gauge above half?", "interval": 12, "thinking": True},
]


def run_demo(out: Path, checkpoint: Path, precision: str) -> dict[str, Any]:
    """Run everything in `out`, which is made anew.

    Returns:
        `answers` received by the client, `correct` among them, `seconds` in all, `bundle`, `contact_sheet`.
    """
    started = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    bundle = out / f"panel-{precision}"
    _moedge("export", str(checkpoint), str(bundle), "--precision", precision)
    broker = EmbeddedBroker("127.0.0.1", 0)
    address = broker.start()
    try:
        answers = _answers(out, bundle, f"mqtt://{address.host}:{address.port}")
    finally:
        broker.stop()
    video = ASSETS / "video" / "panel.mp4"
    truth = VideoTruth.read(video.with_name("truth.jsonl"))
    tiles = [Tile(answer["frame"]["index"], _label(answer), truth.is_right(answer)) for answer in answers]
    sheet = out / "contact_sheet.png"
    write_contact_sheet(video, tiles, sheet)
    return {
        "answers": len(tiles),
        "correct": sum(tile.right for tile in tiles),
        "seconds": round(time.monotonic() - started, 1),
        "bundle": str(bundle),
        "contact_sheet": str(sheet),
    }


def _answers(out: Path, bundle: Path, url: str) -> list[dict[str, Any]]:
    """What a client of the broker receives while the daemon goes through the video once."""
    config, received = out / "moedge.yaml", out / "answers.jsonl"
    config.write_text(yaml.safe_dump(_configuration(out, bundle, url), sort_keys=False))
    with _client(url, received):
        _moedge("run", "--config", str(config), "--exit-when-done")
        _wait_until_quiet(received)
    return [json.loads(line) for line in received.read_text().splitlines()]


@contextmanager
def _client(url: str, received: Path) -> Iterator[None]:
    """`moedge watch` as a process of its own, subscribed, writing to `received`; ended with the block."""
    command = [sys.executable, "-m", "moedge_runtime", "watch", "--json", "--url", url]
    with received.open("w") as file:
        client = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True)
    assert client.stderr is not None
    try:
        for line in client.stderr:
            if line.startswith("Watching"):
                break
        yield
    finally:
        client.terminate()
        client.wait()


def _wait_until_quiet(path: Path) -> None:
    """Wait until a file that another process appends to has kept its size for a second."""
    size = -1
    while size != (size := path.stat().st_size):
        time.sleep(1)


def _configuration(out: Path, bundle: Path, url: str) -> dict[str, Any]:
    return {
        "version": 1,
        "device": "demo",
        "model": {"bundle": str(bundle.relative_to(out))},
        "mqtt": {"url": url},
        "cameras": {"panel": {"source": f"file:{ASSETS.resolve() / 'video' / 'panel.mp4'}"}},
        "watches": [{"camera": "panel", **watch} for watch in WATCHES],
    }


def _label(answer: dict[str, Any]) -> str:
    if answer["status"] != "ok":
        return f"{answer['watch']}: {answer['error']['message']}"
    value = answer["text"] if answer["data"] is None else json.dumps(answer["data"], separators=(",", ":"))
    return f"{answer['watch']}: {value}"


def _moedge(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "moedge_runtime", *arguments], check=True, timeout=DEADLINE_S)


def main() -> None:
    """Entry point; prints the result as its last line and exits 1 below 20 answers or 95 % of them right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--checkpoint", type=Path, default=ASSETS / "checkpoint")
    parser.add_argument("--precision", choices=("fp32", "int8", "int4"), default="int4")
    arguments = parser.parse_args()
    result = run_demo(arguments.out, arguments.checkpoint, arguments.precision)
    print(json.dumps(result), flush=True)
    if result["answers"] < 20 or result["correct"] < 0.95 * result["answers"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
