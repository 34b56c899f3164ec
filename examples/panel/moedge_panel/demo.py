"""The demo: exports the model, runs broker, daemon and a client, compares every answer with the video's truth."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from moedge_runtime.mqtt.broker import EmbeddedBroker

from moedge_panel.contact_sheet import Tile, write_contact_sheet
from moedge_panel.truth import VideoTruth

ASSETS = Path(__file__).parent.parent
DEADLINE_S = 300.0
DELIVERY_S = 30.0
"""For answers on their way when the daemon has ended."""
POLL_S = 0.2
LEAST_CORRECT = 0.95
MARK = ".moedge-demo"
"""Lies in a directory that the demo made and may remove."""
MOEDGE = [sys.executable, "-m", "moedge_runtime"]

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


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


def run_demo(out: Path, checkpoint: Path, precision: str) -> dict[str, Any]:
    """Run everything in `out`, which is made anew.

    Returns:
        `answers` received by the client, `expected` of them, `correct` among them, `seconds` in all, `bundle`,
        `contact_sheet`.

    Raises:
        DemoError: `out` is not the demo's, or a part of it ended early.
    """
    started = time.monotonic()
    make_directory(out)
    video = ASSETS / "video" / "panel.mp4"
    truth = VideoTruth.read(video.with_name("truth.jsonl"))
    expected = expected_answers(truth.spans[-1]["end_s"])
    bundle = out / f"panel-{precision}"
    _export(checkpoint, bundle, precision)
    broker = EmbeddedBroker("127.0.0.1", 0)
    address = broker.start()
    try:
        answers = _answers(out, bundle, f"mqtt://{address.host}:{address.port}", expected)
    finally:
        broker.stop()
    tiles = [Tile(answer["frame"]["index"], _label(answer), truth.is_right(answer)) for answer in answers]
    sheet = out / "contact_sheet.png"
    write_contact_sheet(video, tiles, sheet)
    return {
        "answers": len(tiles),
        "expected": expected,
        "correct": sum(tile.right for tile in tiles),
        "seconds": round(time.monotonic() - started, 1),
        "bundle": str(bundle),
        "contact_sheet": str(sheet),
    }


def make_directory(out: Path) -> None:
    """Make `out` anew; one that is there is removed only if a demo made it.

    Raises:
        DemoError: It is something else.
    """
    if (out / MARK).is_file():
        shutil.rmtree(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DemoError(
            f"'{out}' exists and was not made by this demo (it has no {MARK}). Remove it, or choose another --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("The demo removes this directory when it runs again.\n")


def expected_answers(duration_s: float) -> int:
    """Answers to all watches about a video of `duration_s` seconds: one at its start and one after every interval."""
    return sum(math.ceil(duration_s / watch["interval"]) for watch in WATCHES)


def _answers(out: Path, bundle: Path, url: str, expected: int) -> list[dict[str, Any]]:
    """What a client of the broker receives while the daemon goes through the video once."""
    config, received = out / "moedge.yaml", out / "answers.jsonl"
    config.write_text(yaml.safe_dump(_configuration(out, bundle, url), sort_keys=False))
    with watching(url, received) as client:
        run_daemon(config, client)
        _wait_for_lines(received, expected, client)
    return [json.loads(line) for line in received.read_text().splitlines()]


@contextmanager
def watching(url: str, received: Path) -> Iterator[subprocess.Popen[str]]:
    """`moedge watch` as a process of its own, subscribed, writing to `received`; ended with the block.

    Raises:
        DemoError: It ended before it had subscribed.
    """
    with received.open("w") as file:
        client = subprocess.Popen(
            [*MOEDGE, "watch", "--json", "--url", url], stdout=file, stderr=subprocess.PIPE, text=True
        )
    try:
        assert client.stderr is not None
        line = client.stderr.readline()
        if not line.startswith("Watching"):
            raise _ended_early(client, line)
        yield client
    finally:
        client.kill()
        client.wait()


def run_daemon(config: Path, client: subprocess.Popen[str]) -> None:
    """`moedge run` until the video has ended.

    Raises:
        DemoError: It or `client` ended early, or it takes longer than DEADLINE_S.
    """
    deadline_s = time.monotonic() + DEADLINE_S
    with subprocess.Popen([*MOEDGE, "run", "--config", str(config), "--exit-when-done"]) as daemon:
        try:
            while True:
                if client.poll() is not None:
                    raise _ended_early(client)
                if daemon.poll() is not None:
                    break
                if time.monotonic() > deadline_s:
                    raise DemoError(f"`moedge run` had not gone through the video after {DEADLINE_S:.0f} s.")
                with suppress(subprocess.TimeoutExpired):
                    daemon.wait(POLL_S)
        finally:
            daemon.kill()
    if daemon.returncode != 0:
        raise DemoError(f"`moedge run` ended with code {daemon.returncode}; its messages are above.")


def _wait_for_lines(path: Path, count: int, client: subprocess.Popen[str]) -> None:
    """Wait until `client` has written `count` lines and then nothing for a second, DELIVERY_S at most."""
    deadline_s, size = time.monotonic() + DELIVERY_S, -1
    while time.monotonic() < deadline_s:
        if client.poll() is not None:
            raise _ended_early(client)
        if path.read_text().count("\n") >= count and size == path.stat().st_size:
            return
        size = path.stat().st_size
        time.sleep(1)


def _ended_early(client: subprocess.Popen[str], said: str = "") -> DemoError:
    assert client.stderr is not None
    said += client.stderr.read()
    return DemoError(f"`moedge watch` ended early, with code {client.wait()}: {said.strip()}")


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


def _export(checkpoint: Path, bundle: Path, precision: str) -> None:
    command = [*MOEDGE, "export", str(checkpoint), str(bundle), "--precision", precision]
    code = subprocess.run(command, check=False, timeout=DEADLINE_S).returncode
    if code != 0:
        raise DemoError(f"`moedge export` ended with code {code}; its messages are above.")


def main() -> None:
    """Entry point; the result is its last line. Exits 1 unless every answer came and 95 % of them are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--checkpoint", type=Path, default=ASSETS / "checkpoint")
    parser.add_argument("--precision", choices=("fp32", "int8", "int4"), default="int4")
    arguments = parser.parse_args()
    try:
        result = run_demo(arguments.out, arguments.checkpoint, arguments.precision)
    except DemoError as error:
        sys.exit(f"demo: {error}")
    print(json.dumps(result), flush=True)
    if result["answers"] != result["expected"]:
        sys.exit(f"demo: {result['answers']} answers came; {result['expected']} were expected.")
    if result["correct"] < LEAST_CORRECT * result["answers"]:
        sys.exit(f"demo: only {result['correct']} of {result['answers']} answers are right.")


if __name__ == "__main__":
    main()
