"""Optimum finds the exporter: as a subcommand of optimum-cli, and in its TasksManager."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import moedge_export.tasks  # noqa: F401 (registers)
import pytest
from moedge_runtime.bundle import Bundle
from optimum.commands.optimum_cli import main
from optimum.exporters.tasks import TasksManager


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["optimum-cli", "export", "moedge", *arguments])
    main()


def test_optimum_cli_exports(checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "-m", str(checkpoint[0]), str(tmp_path / "out"), "--precision", "int8", "--vision", "fp32")
    manifest = Bundle.open(tmp_path / "out").manifest
    assert (manifest.quantization.experts.bits, manifest.quantization.vision.bits) == (8, 32)


def test_another_task_is_refused(checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="for the task 'text-generation'; moedge exports models of 'transformers' for"):
        run(monkeypatch, "-m", str(checkpoint[0]), str(tmp_path / "out"), "--task", "text-generation")


def test_the_tasks_manager_knows_the_model_type() -> None:
    tasks = TasksManager.get_supported_tasks_for_model_type("qwen3_vl_moe", "moedge", library_name="transformers")
    assert list(tasks) == ["image-text-to-text"]
