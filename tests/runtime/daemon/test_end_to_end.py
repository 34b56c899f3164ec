"""`moedge run` as it is shipped: a real bundle, a real video, a real broker; only the weights are random."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from moedge_runtime.mqtt.address import BrokerAddress
from runtime.daemon.fakes import write_config
from runtime.mqtt.listener import Listener

HEAVY = {"torch", "transformers", "optimum", "onnx", "onnx_ir", "safetensors"}
COMMAND = """
import sys
from moedge_runtime.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_bundle_answers_about_a_video_over_mqtt(place: Path, tiny: Path, broker: BrokerAddress) -> None:
    schema = {
        "type": "object",
        "properties": {"red": {"type": "boolean"}},
        "required": ["red"],
        "additionalProperties": False,
    }
    config = write_config(
        place,
        tiny,
        broker.port,
        model={"bundle": str(tiny), "max_context": 512, "threads": 1},
        watches=[
            {"name": "text", "camera": "panel", "question": "What is this?", "interval": 2, "max_tokens": 8},
            {"name": "json", "camera": "panel", "question": "Red?", "interval": 2, "json_schema": schema},
        ],
    )
    with Listener(broker, "t/d/#") as listener:
        run = subprocess.run(
            [sys.executable, "-c", COMMAND, "run", "--config", str(config), "--exit-when-done"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        listener.message("t/d/status", "stopped")
        answers = [json.loads(payload) for payload in listener.on("t/d/panel/answer")]
    assert not HEAVY & set(run.stdout.split())
    by_watch = {name: [item for item in answers if item["watch"] == name] for name in ("text", "json")}
    assert [item["frame"]["index"] for item in by_watch["text"]] == [0, 20]
    for item in by_watch["text"]:
        assert item["status"] == "ok"
        assert item["finish_reason"] in ("stop", "length")
        assert 0 < item["tokens"]["image"] < item["tokens"]["prompt"]
        assert item["timing"]["total_s"] >= item["timing"]["prefill_s"] > 0
        model = {"name": "checkpoint", "bundle": "tiny-int4", "version": None, "precision": "int4"}
        assert item["model"] == model
    assert [list(item["data"]) for item in by_watch["json"]] == [["red"], ["red"]]
