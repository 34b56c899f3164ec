"""`moedge run` and `moedge watch` from the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from moedge_runtime.cli.main import main
from moedge_runtime.cli.watch import line_of, watch
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.session import Session
from runtime.daemon.fakes import write_config
from runtime.mqtt.certificates import Authority
from runtime.mqtt.examples import ANSWER, EXAMPLES
from runtime.mqtt.listener import Listener
from runtime.mqtt.test_tls import tls_broker


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err.strip()


def test_check_says_what_would_run(place: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(place, tiny, 1883)
    with pytest.raises(SystemExit) as caught:
        main(["run", "--config", str(path), "--check"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == (
        f"{path} is valid: device 'd', 1 camera, 1 watch, model checkpoint (paged), broker mqtt://127.0.0.1:1883.\n"
    )


def test_check_refuses_an_unknown_key_with_code_2(
    place: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(place, bundle, 1883, logging={"level": "info"})
    assert failure(capsys, "run", "--config", str(path), "--check") == (
        2,
        f"moedge: Configuration '{path}' has 1 error:\n  line 17: logging: unknown key. Did you mean 'log'?",
    )


@pytest.mark.parametrize("option", ["--check", "--exit-when-done"])
def test_everything_wrong_with_watches_is_told_before_the_first_frame(
    place: Path, tiny: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    panel = {"camera": "panel", "question": "?"}
    path = write_config(
        place,
        tiny,
        free_port(),
        model={"bundle": str(tiny), "max_context": 256},
        watches=[
            {**panel, "name": "a", "question": "<|im_end|>", "json_schema": {"type": "nothing"}},
            {**panel, "name": "b", "system": "<|im_start|>", "max_tokens": 5},
            {**panel, "name": "c", "max_tokens": 250},
            {**panel, "name": "d", "thinking": True, "thinking_budget": 90, "max_tokens": 92},
        ],
    )
    code, text = failure(capsys, "run", "-c", str(path), option)
    assert code == 2
    lines = text.splitlines()
    assert lines[0] == f"moedge: Configuration '{path}' has 5 errors:"
    assert lines[1] == (
        "  line 14: watches[0].question: got '<|im_end|>'; The question contains <|im_end|>, which the model does not "
        "read as text but as control tokens. Remove them."
    )
    assert lines[2] == (
        "  line 16: watches[0].json_schema: The JSON schema cannot be used: Invalid type: nothing. "
        "Correct or simplify it."
    )
    assert lines[3].startswith("  line 21: watches[1].system: got '<|im_start|>'; The system prompt contains <|im_sta")
    assert lines[4].startswith("  line 26: watches[2].max_tokens: got 250; The prompt has at least ")
    assert lines[5] == (
        "  line 31: watches[3].thinking_budget: got 90; thinking_budget=90 leaves no room for an answer: reasoning and "
        "answer may have 92 tokens together. Let them have 95 or more, or lower the budget."
    )


@pytest.mark.parametrize("check", [["--check"], []])
def test_a_camera_that_loops_is_refused_where_the_daemon_is_to_end(
    place: Path, tiny: Path, capsys: pytest.CaptureFixture[str], check: list[str]
) -> None:
    path = write_config(place, tiny, free_port(), cameras={"panel": {"source": "file:panel.mp4", "loop": True}})
    assert failure(capsys, "run", "-c", str(path), "--exit-when-done", *check) == (
        2,
        f"moedge: Configuration '{path}' has 1 error:\n"
        "  line 11: cameras.panel.loop: with exit_when_done a camera that loops never ends",
    )


def test_check_wants_the_files_and_folders_of_cameras(
    place: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = {
        "panel": {"source": "file:no.mp4"},
        "shelf": {"source": "folder:panel.mp4"},
        "off": {"source": "folder:nowhere", "enabled": False},
    }
    path = write_config(place, tiny, 1883, cameras=cameras)
    assert failure(capsys, "run", "-c", str(path), "--check") == (
        2,
        f"moedge: Configuration '{path}' has 2 errors:\n"
        f"  line 10: cameras.panel.source: there is no file '{place}/no.mp4'\n"
        f"  line 12: cameras.shelf.source: there is no folder '{place}/panel.mp4'",
    )


def test_run_refuses_a_missing_bundle_with_code_1(
    place: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(place, place / "no-bundle", 1883)
    assert failure(capsys, "run", "-c", str(path)) == (
        1,
        f"moedge: '{place}/no-bundle' is no moedge bundle: it has no manifest.json. "
        "Give the directory that `moedge export` wrote.",
    )


def test_watch_tells_that_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert failure(capsys, "watch", "--url", f"mqtt://127.0.0.1:{port}") == (
        1,
        f"moedge: Broker mqtt://127.0.0.1:{port} cannot be reached: Connection refused. "
        "Check that it runs, its address and its port.",
    )
    assert failure(capsys, "watch", "--url", "http://x")[0] == 2
    assert failure(capsys, "watch", "--device", "a/#") == (
        2,
        "moedge: The command line is wrong: a device's name has 1 to 64 of the characters a-z, A-Z, 0-9, _ and -; "
        "+ stands for all.",
    )
    assert failure(capsys, "watch", "--base", "a\udcff")[0] == 2


def test_watch_prints_answers_as_they_came(broker: BrokerAddress) -> None:
    arguments = ["watch", "--url", str(broker), "--base", "t", "--json", "--count", "2"]
    with (
        subprocess.Popen(
            [sys.executable, "-c", "from moedge_runtime.cli.main import main; main()", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        ) as command,
        Listener(broker, "t/ready") as publisher,
    ):
        publisher.publish("t/d/panel/answer", ANSWER.encode(), retain=True)
        publisher.publish("t/d/gate/answer", EXAMPLES["answer_error"].encode(), retain=True)
        output, _ = command.communicate(timeout=20)
    lines = [json.loads(line) for line in output.splitlines()]
    assert sorted(line["status"] for line in lines) == ["error", "ok"]
    assert command.returncode == 0


def test_watch_ends_with_130_on_ctrl_c(broker: BrokerAddress) -> None:
    arguments = ["watch", "--url", str(broker), "--base", "t", "--json", "--count", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", "from moedge_runtime.cli.main import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stderr is not None
        assert command.stderr.readline() == f"Watching t/+/+/answer on {broker}.\n"
        command.send_signal(signal.SIGINT)
        output, said = command.communicate(timeout=20)
    assert (command.returncode, output, said.strip()) == (130, "", "moedge: interrupted.")


def test_watch_filters_by_device_and_camera(broker: BrokerAddress) -> None:
    with Listener(broker, "t/ready") as publisher:
        for camera in ("gate", "panel"):
            answer = ANSWER.model_copy(update={"camera": camera})
            publisher.publish(f"t/d/{camera}/answer", answer.encode(), retain=True)
    result = CliRunner().invoke(
        watch, ["--url", str(broker), "--base", "t", "--device", "d", "--camera", "gate", "--count", "1"]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == '08:15:34 gate/level {"reading": "42.5", "red": false} 4.5 s\n'


def test_watch_shows_a_certificate_to_a_broker_that_wants_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("wall")
    lines = ("require_certificate true", f"cafile {authority.ca}", "use_identity_as_username true")
    broker, address = tls_broker(tmp_path, *authority.issue("server"), *lines)
    url, ca, cert = ["--url", str(address)], ["--ca", str(authority.ca)], ["--cert", str(certificate)]
    publisher = Session(Connection(address, ca=authority.ca, cert=certificate, key=key))
    publisher.open()
    publisher.publish(Message("t/d/panel/answer", ANSWER.encode(), retain=True))
    arguments = ["--base", "t", "--count", "1", *url, *ca, *cert, "--key", str(key)]
    result = CliRunner().invoke(watch, arguments)
    assert result.exit_code == 0 and "panel/level" in result.stdout, result.output
    assert failure(capsys, "watch", *url)[0] == 1
    assert "--cert and --key belong together" in failure(capsys, "watch", *url, *cert)[1]
    assert "go with a url that begins with mqtts://" in failure(capsys, "watch", "--url", "mqtt://x", *ca)[1]
    publisher.close()
    broker.stop()


def test_a_line_is_compact_and_cannot_take_over_the_terminal() -> None:
    hostile = ANSWER.model_copy(update={"data": None, "text": "all\nwell\x1b[2Jhidden"})
    line = line_of(Received("t/d/panel/answer", hostile.encode()))
    assert "all well [2Jhidden" in line
    assert "\n" not in line
    for payload in (b"\xff", b"[]", b"{}", b'{"answered_at": 1}'):
        assert "is no answer of moedge" in line_of(Received("t/x/y/answer", payload))
