"""The command line: options arrive, errors are sentences, progress only where somebody looks."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from moedge_export.cli import export
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bundle import Bundle
from moedge_runtime.cli.main import main
from moedge_runtime.errors import StorageError


def test_the_last_line_says_where_size_and_time(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(export, [str(checkpoint[0]), str(tmp_path / "out"), "--precision", "int8"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Wrote paged bundle '{tmp_path / 'out'}': ")
    assert result.stdout.endswith(" s.\n") and " MB in " in result.stdout
    assert result.stderr == ""


def test_every_option_reaches_the_bundle(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    options = [
        "--precision",
        "int4",
        "--experts",
        "inline",
        "--asymmetric",
        "--vision",
        "fp32",
        "--head",
        "int4",
        "--progress",
    ]
    result = CliRunner().invoke(export, [str(checkpoint[0]), str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.form == "inline"
    assert not manifest.quantization.experts.symmetric
    assert (manifest.quantization.vision.bits, manifest.quantization.head.bits) == (32, 4)
    assert "100%" in result.stderr


def test_a_dry_run_says_what_would_be_and_writes_nothing(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    arguments = [str(checkpoint[0]), str(tmp_path / "out"), "--dry-run"]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Would write paged bundle '{tmp_path / 'out'}': up to 18 MB, from 1 MB")
    for part in ("experts", "attention layers", "head", "embedding", "vision tower", "tokenizer and settings"):
        assert f"\n  {part} " in result.stdout
    assert " MB free. Memory: up to " in result.stdout
    as_json = json.loads(CliRunner().invoke(export, [*arguments, "--json"]).stdout)
    assert as_json["output_bytes"] == sum(as_json["parts"].values())
    export_bundle(checkpoint[0], tmp_path / "made", ExportOptions())
    made = {entry.path: entry.nbytes for entry in Bundle.open(tmp_path / "made").manifest.files}
    assert as_json["parts"]["experts"] == made["experts.bin"]
    assert as_json["parts"]["embedding"] == made["embedding.bin"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_dry_run_fails_where_the_export_would(
    checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moedge_export.plan.part_bytes", lambda *_: {"experts": 10**15})
    result = CliRunner().invoke(export, [str(checkpoint[0]), str(tmp_path / "out"), "--dry-run"])
    assert "up to 1,000,000,000 MB" in result.stdout
    assert isinstance(result.exception, StorageError) and result.exception.key == "storage.full"
    result = CliRunner().invoke(export, [str(checkpoint[0]), str(tmp_path), "--dry-run"])
    assert isinstance(result.exception, StorageError) and result.exception.key == "storage.exists"


def test_a_dry_run_counts_what_an_interrupted_export_has_written(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    arguments = [str(checkpoint[0]), str(tmp_path / "out"), "--dry-run"]
    assert "interrupted" not in CliRunner().invoke(export, arguments).stdout
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "experts.bin").write_bytes(bytes(5_000_000))
    assert " MB free, 5 MB there from an interrupted export. " in CliRunner().invoke(export, arguments).stdout


def test_json_is_one_object(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(export, [str(checkpoint[0]), str(tmp_path / "out"), "--json"])
    summary = json.loads(result.stdout)
    assert summary["bundle"] == str(tmp_path / "out") and summary["form"] == "paged"
    assert summary["nbytes"] == sum(entry.nbytes for entry in Bundle.open(tmp_path / "out").manifest.files)


def test_ctrl_c_says_how_to_go_on_and_the_next_run_what_it_kept(
    checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(checkpoint[0]), str(tmp_path / "out")]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr("moedge_export.pieces.build_head", lambda _: signal.raise_signal(signal.SIGINT))
        main(arguments)
    assert stopped.value.code == 130
    workspace = tmp_path / ".out.partial"
    assert f"moedge: '{workspace}' holds 5 finished pieces: run the same command again" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "moedge: Resuming: 3 of 3 layers' graphs, 0 of 2 layers of experts" in capsys.readouterr().err


def test_quiet_prints_nothing(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(export, [str(checkpoint[0]), str(tmp_path / "out"), "--progress", "--quiet"])
    assert (result.exit_code, result.output) == (0, "")


def test_an_error_is_one_sentence_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path / "absent"), str(tmp_path / "out")])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("moedge: There is no directory")


def test_the_dry_run_of_an_export_that_is_refused_is_one_json_object(
    checkpoint: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(checkpoint[0]), str(tmp_path), "--dry-run", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert not said["ok"] and said["error"]["key"] == "storage.exists" and said["parts"]
