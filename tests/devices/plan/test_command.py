"""`moedge plan` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fixtures_checkpoint import save_checkpoint
from moedge_devices.plan.command import EXIT_REFUSED, plan
from moedge_devices.profile import shipped_profiles
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.errors import ConfigError

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plan, arguments, catch_exceptions=False, standalone_mode=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "checkpoint"
    save_checkpoint(folder)
    return folder


def test_the_entry_point_is_this_command() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'plan = "moedge_devices.plan.command:plan"' in text
    assert EntryPoint("plan", "moedge_devices.plan.command:plan", "moedge.commands").load() is plan


def test_text_has_memory_by_part_what_is_resident_times_limits_verdict_and_assumptions() -> None:
    text = run("qwen3-vl-30b-a3b@int4", "--device", "orin-nano-8gb").stdout
    assert "not exported: sizes are computed" in text
    for part in ("process", "layers", "head", "vision", "KV cache", "buffers", "free", "experts"):
        assert f"\n{part} " in text
    assert "resident: layers, head, vision tower, KV cache, 14% of the experts" in text
    assert "tokens/s (limit)" in text
    assert "skewed routing" in text and "uniform routing" in text
    assert "verdict: fits" in text
    assert "Assumed: memory.read_gb_s = 27: 40 % of the stated peak" in text
    assert "Assumed: operations_per_cycle.experts.neondot = 16: never timed" in text


def test_experts_that_pictures_choose_can_be_given_and_must_be_possible() -> None:
    few = run("qwen3-vl-30b-a3b@int4", "--device", "orin-nano-8gb", "--prefill-experts", "60").stdout
    assert "a prefill chooses 60 different experts of a layer" in few
    for impossible in ("7", "129", "nan"):
        with pytest.raises(ConfigError, match="a token of this model chooses 8 of 128 experts of a layer"):
            run("qwen3-vl-30b-a3b@int4", "--device", "orin-nano-8gb", "--prefill-experts", impossible)


def test_json_has_the_same_and_a_refusal_has_an_exit_code() -> None:
    result = run("qwen3-vl-30b-a3b", "--device", "orin-nano-8gb", "--memory", "2G", "--json")
    board = json.loads(result.stdout)["boards"][0]
    assert result.return_value == EXIT_REFUSED
    assert (board["verdict"], board["memory"], board["predictions"]) == ("refuse", None, [])
    assert board["remedies"]
    good = run("qwen3-vl-30b-a3b", "--device", "orin-nano-8gb", "--json")
    board = json.loads(good.stdout)["boards"][0]
    assert good.return_value == 0
    assert sum(board["memory"]["parts"].values()) <= board["memory_bytes"]
    assert board["predictions"][0]["tokens_per_s"] == pytest.approx(1 / board["predictions"][0]["token_s"])
    assert set(board["assumed"]) == {
        "memory.available_gib",
        "memory.read_gb_s",
        *(f"operations_per_cycle.{part}.neondot" for part in ("experts", "layers", "vision")),
    }


def test_all_compares_every_board_with_every_storage() -> None:
    lines = run("qwen3-vl-30b-a3b@int4", "--all").stdout.splitlines()
    for profile in shipped_profiles().values():
        assert sum(line.startswith(f"{profile.name} ") for line in lines) == len(profile.storage)
    only = run("qwen3-vl-30b-a3b@int4", "--all", "--storage", "emmc", "--json")
    assert {board["storage"] for board in json.loads(only.stdout)["boards"]} == {"emmc"}


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; run: pip install --group bench")
    run("qwen3-vl-30b-a3b", "--all", "--plot", str(tmp_path / "boards.png"))
    assert (tmp_path / "boards.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"ends in \.png, \.svg or \.pdf"):
        run("qwen3-vl-30b-a3b", "--all", "--plot", str(tmp_path / "boards.txt"))
    with pytest.raises(ConfigError, match=r"names no format.*\.png, \.svg or \.pdf"):
        run("qwen3-vl-30b-a3b", "--all", "--plot", str(tmp_path))
    with pytest.raises(ConfigError, match="nothing to draw"):
        run("qwen3-vl-235b-a22b@fp32", "--all", "--storage", "sd", "--plot", str(tmp_path / "boards.png"))


def test_without_matplotlib_a_plot_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        run("qwen3-vl-30b-a3b", "--all", "--plot", str(tmp_path / "boards.png"))


def test_a_bundle_is_planned_by_its_own_manifest(checkpoint: Path) -> None:
    bundle = checkpoint.parent / "paged"
    export_bundle(checkpoint, bundle, ExportOptions(precision="int4"))
    content = json.loads(run(str(bundle), "--device", "raspberry-pi-5-8gb", "--memory", "1G", "--json").stdout)
    assert content["model"]["exported"]
    assert content["model"]["bundle_bytes"] == sum(
        path.stat().st_size for path in bundle.rglob("*") if path.is_file() and not path.name.startswith("manifest")
    )
    assert content["boards"][0]["memory"]["expert_share"] == 1.0


def test_an_inline_bundle_is_refused(checkpoint: Path) -> None:
    inline = checkpoint.parent / "inline"
    export_bundle(checkpoint, inline, ExportOptions(precision="int4", form="inline"))
    with pytest.raises(ConfigError, match="is inline: it is in memory as a whole"):
        run(str(inline), "--device", "orin-nano-8gb")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give either --device or --all"),
        (("--all", "--device", "orin-nano-8gb"), "Give either --device or --all"),
        (("--device", "orin-nano-8gb", "--plot", "x.png"), "--plot compares boards"),
        (("--all", "--memory", "4G"), "--memory is of one board"),
        (("--all", "--storage", "tape"), "No known board has the storage 'tape'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(plan, ["qwen3-vl-30b-a3b", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_it_works_where_torch_transformers_and_onnx_are_not_installed() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'optimum', 'onnx', 'onnx_ir', 'safetensors', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from moedge_devices.plan.command import plan\n"
        "from moedge_devices.doctor import command\n"
        "plan(['qwen3-vl-30b-a3b', '--all'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "orin-nano-8gb" in done.stdout
