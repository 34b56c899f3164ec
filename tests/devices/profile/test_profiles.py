"""The shipped profiles, and what is said about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from moedge_devices.data_files import data_path
from moedge_devices.plan.calibration import calibration
from moedge_devices.profile import find_profile, shipped_profiles
from moedge_devices.profile.model import Figure, InstructionSet
from moedge_devices.profile.table import profiles_table
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.expert_core.library import INSTRUCTION_SETS
from pydantic import ValidationError

ROOT = Path(__file__).parents[3]


def test_every_board_of_the_product_has_a_profile() -> None:
    assert set(shipped_profiles()) == {
        "agx-orin-32gb", "agx-orin-64gb", "generic-arm64", "generic-x86-64", "orin-nano-8gb", "orin-nx-16gb",
        "raspberry-pi-5-16gb", "raspberry-pi-5-8gb", "rk3588-16gb", "rk3588-32gb",
    }  # fmt: skip


def test_a_profile_has_the_name_of_its_file() -> None:
    assert [profile.name for profile in shipped_profiles().values()] == [
        path.stem for path in sorted(data_path("profiles").glob("*.yaml"))
    ]


def test_instruction_sets_are_named_as_the_core_names_them() -> None:
    assert get_args(InstructionSet) == INSTRUCTION_SETS
    figures = calibration().operations_per_cycle
    assert set(figures.experts) == set(figures.layers) == set(figures.vision) == set(INSTRUCTION_SETS)


def test_stated_and_measured_figures_have_an_address_and_assumed_ones_a_reason() -> None:
    for profile in shipped_profiles().values():
        for path, figure in profile.figures().items():
            address = figure.source.startswith(("https://", "docs/"))
            assert address == (figure.origin != "assumed"), f"{profile.name}: {path}"


@pytest.mark.parametrize(
    "origins",
    [{}, {"stated": "https://example.org", "assumed": "for no reason that anybody knows"}, {"stated": "hearsay"}],
)
def test_a_figure_without_exactly_one_source_is_refused(origins: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"exactly one of measured, stated and assumed|a source begins with"):
        Figure.model_validate({"value": 1.0, **origins})


def test_the_table_of_the_documentation_is_that_of_the_profiles() -> None:
    assert profiles_table() in (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")


def test_an_unknown_name_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"no profile 'orin-nano'\. Did you mean 'orin-nano-8gb'\?.*generic-arm64"):
        find_profile("orin-nano")


def test_all_that_is_wrong_in_a_file_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = (data_path("profiles") / "orin-nx-16gb.yaml").read_text(encoding="utf-8")
    wrong = text.replace("architecture: aarch64", "architecture: armv7").replace("family: jetson", "family: nano")
    path = tmp_path / "board.yaml"
    path.write_text(wrong + "colour: green\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        find_profile(str(path))
    listed = str(error.value)
    assert "has 3 errors" in listed
    assert "line 4: family: " in listed
    assert "line 5: architecture: " in listed
    assert "got 'nano'; should be 'jetson', " in listed
    assert f"line {wrong.count(chr(10)) + 1}: colour: unknown key; known are: version, name, " in listed


def test_a_key_with_a_typing_mistake_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    text = (data_path("profiles") / "orin-nx-16gb.yaml").read_text(encoding="utf-8")
    path = tmp_path / "board.yaml"
    path.write_text(text.replace("nvme:\n    read_gb_s:", "nvme:\n    read_gbs:"), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        find_profile(str(path))
    assert "storage.nvme.read_gb_s: this key is required" in str(error.value)
    assert "storage.nvme.read_gbs: unknown key. Did you mean 'read_gb_s'?" in str(error.value)


def test_more_available_than_total_memory_is_refused(tmp_path: Path) -> None:
    text = (data_path("profiles") / "orin-nx-16gb.yaml").read_text(encoding="utf-8")
    path = tmp_path / "board.yaml"
    path.write_text(text.replace("value: 14.2", "value: 17"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"available_gib 17\.0 is more than total_gib 16\.0"):
        find_profile(str(path))


def test_a_report_of_doctor_is_a_profile(tmp_path: Path) -> None:
    profile = shipped_profiles()["raspberry-pi-5-8gb"]
    path = tmp_path / "here.json"
    path.write_text(json.dumps({"checks": [], "profile": profile.model_dump(mode="json")}))
    assert find_profile(str(path)) == profile


def test_a_report_without_measurements_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    path.write_text(json.dumps({"checks": [], "profile": None}))
    with pytest.raises(ConfigError, match="without measurements"):
        find_profile(str(path))


def test_a_report_with_wrong_figures_is_refused_with_their_paths(tmp_path: Path) -> None:
    profile = shipped_profiles()["raspberry-pi-5-8gb"].model_dump(mode="json")
    profile["memory"]["read_gb_s"]["value"] = -1
    profile["family"] = "nano"
    path = tmp_path / "here.json"
    path.write_text(json.dumps({"checks": [], "profile": profile}))
    with pytest.raises(ConfigError, match=r"(?s)has 2 errors:.*  family: .*  memory\.read_gb_s\.value: "):
        find_profile(str(path))


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'nowhere\.yaml' cannot be read \(No such file"):
        find_profile("nowhere.yaml")
