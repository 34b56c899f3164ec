"""The command line: options arrive, errors are sentences, progress only where somebody looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from moedge_export.cli import export
from moedge_runtime.bundle import Bundle
from moedge_runtime.cli.main import main


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


def test_quiet_prints_nothing(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(export, [str(checkpoint[0]), str(tmp_path / "out"), "--progress", "--quiet"])
    assert (result.exit_code, result.output) == (0, "")


def test_an_error_is_one_sentence_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path / "absent"), str(tmp_path / "out")])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("moedge: There is no directory")
