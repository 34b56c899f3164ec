import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from moedge_runtime.cli.inspect import describe, inspect, size
from moedge_runtime.cli.main import main
from moedge_runtime.cli.verify import verify
from moedge_runtime.errors import ConfigError
from runtime.bundle.sample import write_sample


def test_inspect_lists_architecture_precision_and_sizes(tmp_path: Path) -> None:
    result = CliRunner().invoke(inspect, [str(write_sample(tmp_path / "sample"))])
    assert result.exit_code == 0, result.output
    assert "experts   3 of width 32 in 2 layers, 2 a token" in result.output
    assert "attention  int4 block 32 symmetric" in result.output
    assert "experts.bin                     98.3 kB" in result.output


def test_inspect_shows_how_a_process_would_divide_its_memory(tmp_path: Path) -> None:
    path = str(write_sample(tmp_path / "sample"))
    result = CliRunner().invoke(inspect, [path, "--memory", "1G", "--max-context", "100"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["memory", "GiB"] and "of             1.00" in lines
    assert lines[-1].startswith("(100% of all experts; context 100 tokens; pictures up to")
    plan = json.loads(CliRunner().invoke(inspect, [path, "--memory", "1G", "--json"]).stdout)
    assert sum(plan["parts"].values()) <= plan["memory_bytes"] == 1 << 30
    assert (plan["expert_share"], plan["vision_resident"]) == (1.0, True)
    with pytest.raises(ConfigError, match="memory=1 MiB is too small for this model"):
        CliRunner().invoke(inspect, [path, "--memory", "1M"], catch_exceptions=False)
    refused = CliRunner().invoke(inspect, [path, "--max-context", "100"])
    assert refused.exit_code == 2 and "give them with --memory" in refused.output


def test_inspect_json_is_the_manifest(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "sample")
    result = CliRunner().invoke(inspect, [str(path), "--json"])
    assert json.loads(result.output) == json.loads((path / "manifest.json").read_text())


def test_verify_says_how_much_it_checked(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "sample")
    result = CliRunner().invoke(verify, [str(path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"bundle": str(path), "files": 6, "bytes": 98_365, "ok": True}


def test_a_damaged_bundle_ends_the_command_with_1_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sample(tmp_path / "sample")
    (path / "head.onnx").write_bytes(b"HEAD.onnx")
    with pytest.raises(SystemExit) as exit_info:
        main(["verify", str(path)])
    assert exit_info.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"moedge: Bundle '{path}' is damaged: SHA-256 differs from the manifest for 'head.onnx'. Copy the bundle again."
    )


def test_sizes_have_three_digits() -> None:
    assert [size(n) for n in (999, 1_234, 4_210_000, 16_300_000_000)] == ["999 B", "1.23 kB", "4.21 MB", "16.3 GB"]


def test_describe_names_plain_rounding_beside_the_error(tmp_path: Path) -> None:
    from moedge_runtime.bundle import Bundle
    from moedge_runtime.bundle.manifest import PartReport

    manifest = Bundle.open(write_sample(tmp_path / "sample")).manifest
    report = PartReport(weights=1000, nbytes=562, relative_error=0.07, relative_error_absmax=0.09)
    lines = describe(manifest.model_copy(update={"quality": {"experts": report}}))
    assert any("7.000% (9.000%)" in line for line in lines)
