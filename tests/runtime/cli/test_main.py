"""What every command of `moedge` has in common: failures as JSON, output that cannot be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from moedge_runtime.cli.main import main


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "code", "key", "message"),
    [
        (["inspect", "nosuch", "--json"], 1, "bundle.not_found", "'nosuch' is no moedge bundle"),
        (["fleet", "show", "d", "-f", "nosuch", "--json"], 2, "fleet.unreadable", "Fleet file 'nosuch' cannot be read"),
        (["bundle", "use", "x", "--store", "nosuch", "--json"], 2, "config", "'x' names no bundle"),
        (["plan", "x", "--json"], 2, "usage", "Give either --device or --all."),
        (["watch", "--count", "0", "--json"], 2, "usage", "Invalid value for '--count'"),
    ],
)
def test_with_json_a_failure_is_an_object_on_standard_output_and_a_text_on_standard_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, key: str, message: str
) -> None:
    ended, output, text = failure(capsys, *arguments)
    said = json.loads(output)
    assert (ended, said["ok"], said["error"]["key"]) == (code, False, key)
    assert said["error"]["message"].startswith(message) and message in text


def test_without_json_a_failure_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, "inspect", "nosuch")[:2] == (1, "")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full, which every Linux has")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["watch", "packs"], "moedge: The output cannot be written: No space left on device. Free space, or"),
        (["inspect", "nosuch", "--json"], "moedge: 'nosuch' is no moedge bundle"),
    ],
)
def test_a_full_disk_behind_standard_output_leaves_one_sentence(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "moedge_runtime", *arguments]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(said) and ended.stderr.count("\n") == 1
