import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_checkpoint import save_checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bench.rounds import FRAMES
from moedge_runtime.cli.bench import bench
from moedge_runtime.errors import ConfigError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "checkpoint"
    save_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> str:
    export_bundle(checkpoint, checkpoint.parent / "paged", ExportOptions(precision="int4"))
    return str(checkpoint.parent / "paged")


def test_json_has_every_frame_with_its_split_its_limits_and_the_bytes_that_the_kernel_counted(bundle: str) -> None:
    result = CliRunner().invoke(bench, [bundle, "--tokens", "12", "--rounds", "1", "--json"], catch_exceptions=False)
    content = json.loads(result.stdout)
    assert [frame["name"] for frame in content["frames"]] == list(FRAMES)
    cold, same, changed = content["frames"]
    assert cold["image_tokens"] == same["image_tokens"] == changed["image_tokens"] > 0
    assert cold["prefill_tokens"] > same["prefill_tokens"]  # the text before the picture is computed once
    assert all(frame["prefill_limit_s"] > 0 for frame in content["frames"])
    assert all(frame["prefill_read_bytes"] is not None for frame in content["frames"])
    # Whatever the model says: it ends its answer itself, or is not asked to.
    assert all(
        [(window["first"], window["last"]) for window in frame["decode"]] == [(1, 10), (11, 12)]
        for frame in content["frames"]
    )
    assert "onnxruntime" in content["about"] and "UTC" in content["about"] and "experts" in content["memory"]
    assert content["flash_bytes_per_s"] > 0
    assert content["memory_bytes_per_s"] > 0
    assert "round 1 of 1: scene change" in result.stderr


def test_the_table_names_the_frames(bundle: str) -> None:
    result = CliRunner().invoke(bench, [bundle, "--tokens", "3", "--rounds", "1"], catch_exceptions=False)
    assert all(name in result.stdout for name in FRAMES)
    assert "time to first token" in result.stdout


def test_an_inline_bundle_is_refused(checkpoint: Path) -> None:
    inline = checkpoint.parent / "inline"
    export_bundle(checkpoint, inline, ExportOptions(precision="int4", form="inline"))
    with pytest.raises(ConfigError, match="is inline"):
        CliRunner().invoke(bench, [str(inline)], catch_exceptions=False)


def test_a_smaller_context_is_planned_with(bundle: str) -> None:
    arguments = [bundle, "--tokens", "2", "--rounds", "1", "--max-context", "512"]
    assert "context 512 tokens" in CliRunner().invoke(bench, arguments, catch_exceptions=False).stdout


def test_a_pause_comes_before_every_frame(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("moedge_runtime.bench.rounds.sleep", pauses.append)
    arguments = [bundle, "--tokens", "1", "--rounds", "1", "--pause", "2.5", "--json"]
    content = json.loads(CliRunner().invoke(bench, arguments, catch_exceptions=False).stdout)
    assert content["pause_s"] == 2.5 and pauses == [2.5] * len(FRAMES)
