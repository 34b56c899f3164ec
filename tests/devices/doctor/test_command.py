"""`moedge doctor` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from fixtures_checkpoint import save_checkpoint
from moedge_devices.doctor.command import EXIT_FAILED, doctor
from moedge_devices.plan.command import plan
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from PIL import Image

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, arguments, catch_exceptions=False, standalone_mode=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    save_checkpoint(folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "bundle", ExportOptions(precision="int4"))
    return folder / "bundle"


def configuration(folder: Path, bundle: Path, **camera: Any) -> Path:
    (folder / "frames").mkdir()
    Image.new("RGB", (64, 48)).save(folder / "frames" / "1.png")
    document = {
        "version": 1,
        "device": "gate-01",
        "model": {"bundle": str(bundle), "memory": "1G", "max_context": 512},
        "mqtt": {"embedded": True},
        "cameras": {"shelf": {"source": "folder:frames"} | camera},
    }
    path = folder / "moedge.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_the_entry_point_is_this_command() -> None:
    assert 'doctor = "moedge_devices.doctor.command:doctor"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_line_a_check_and_no_measuring_if_not_wanted() -> None:
    result = run("--no-measure", "--device", "generic-x86-64")
    lines = result.stdout.splitlines()
    assert lines[0] == "x86-64 machine with 16 GB (generic-x86-64)"
    assert all(line.split()[0] in ("ok", "warning", "failed", "skipped") for line in lines[1:])
    assert {line.split()[1] for line in lines[1:]} >= {"clock", "memory", "swap", "huge_pages", "free_space"}
    assert not any("bandwidth" in line for line in lines)


def test_checks_of_a_family_are_those_of_its_boards() -> None:
    jetson = json.loads(run("--no-measure", "--device", "orin-nano-8gb", "--json").stdout)
    pi = json.loads(run("--no-measure", "--device", "raspberry-pi-5-8gb", "--json").stdout)
    assert {"power.mode", "jetson.redundancy"} <= {check["check"] for check in jetson["checks"]}
    assert "power.throttling" in {check["check"] for check in pi["checks"]}
    assert jetson["profile"] is None


def test_what_it_measures_with_a_bundle_is_what_plan_takes(bundle: Path, tmp_path: Path) -> None:
    result = run("--bundle", str(bundle), "--json")
    report = json.loads(result.stdout)
    assert result.return_value == 0
    assert report["failed"] == 0
    checks = {check["check"]: check for check in report["checks"]}
    assert checks["flash.bandwidth"]["value"] > 0
    rates = report["profile"]["compute"]
    assert all("measured" in rates[name] for name in ("experts_gops", "layers_gops", "vision_gops"))
    path = tmp_path / "here.json"
    path.write_text(result.stdout)
    planned = CliRunner().invoke(
        plan, [str(bundle), "--device", str(path), "--memory", "1G", "--json"], catch_exceptions=False
    )
    board = json.loads(planned.stdout)["boards"][0]
    assert board["device"] == "measured"
    assert board["speeds"]["flash_bytes_per_s"] == pytest.approx(checks["flash.bandwidth"]["value"])


def test_a_good_configuration_is_ok(bundle: Path, tmp_path: Path) -> None:
    result = run("--no-measure", "--config", str(configuration(tmp_path, bundle)), "--json")
    checks = {check["check"]: check["status"] for check in json.loads(result.stdout)["checks"]}
    assert result.return_value == 0
    assert checks["bundle"] == checks["memory.plan"] == checks["camera.shelf"] == "ok"
    assert checks["broker"] == "skipped"


def test_whatever_fails_is_an_exit_code(bundle: Path, tmp_path: Path) -> None:
    path = configuration(tmp_path, tmp_path / "no-bundle", source="folder:nowhere")
    result = run("--no-measure", "--config", str(path), "--json")
    report = json.loads(result.stdout)
    checks = {check["check"]: check["status"] for check in report["checks"]}
    assert result.return_value == EXIT_FAILED
    assert report["failed"] == 2
    assert checks["bundle"] == checks["camera.shelf"] == "failed"


def test_a_memory_that_is_too_small_fails(bundle: Path, tmp_path: Path) -> None:
    path = configuration(tmp_path, bundle)
    path.write_text(path.read_text().replace("1G", "64M"))
    result = run("--no-measure", "--config", str(path))
    assert result.return_value == EXIT_FAILED
    assert "memory=64 MiB is too small for this model" in result.stdout
