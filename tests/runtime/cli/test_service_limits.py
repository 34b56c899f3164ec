from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from moedge_runtime.cli.service_limits import drop_in, service_limits
from moedge_runtime.config import load_config
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.expert_core.memory import default_memory
from moedge_runtime.inference.memory_budget import limit_for
from runtime.bundle.sample import write_sample
from runtime.daemon.fakes import write_config

MIB, GIB = 1 << 20, 1 << 30


def limits(directory: Path, processors: int = 8, **model: Any) -> dict[str, str]:
    """The settings that are printed, without comments."""
    bundle = write_sample(directory / "sample")
    config = load_config(write_config(directory, bundle, 1883, model={"bundle": str(bundle), **model}))
    text = drop_in(config, "moedge.yaml", processors)
    return dict(line.split("=") for line in text.splitlines() if line and line[0] not in "#[")


@pytest.mark.parametrize("total", [1, 300 * MIB, 4 * GIB + 1, 9 * 512 * MIB, 8 * GIB, 64 * GIB - 1])
def test_the_limit_is_the_lowest_that_leaves_the_plan_to_the_process(total: int) -> None:
    limit = limit_for(total)
    assert default_memory(limit) >= total
    assert default_memory(limit - 2) < total


def test_a_plan_is_printed_with_its_reserve(tmp_path: Path) -> None:
    assert limits(tmp_path, memory="8G") == {"MemoryMax": f"{-(-limit_for(8 * GIB) // MIB)}M"}


def test_without_a_plan_the_limits_of_the_unit_stay(tmp_path: Path) -> None:
    assert limits(tmp_path) == {}


@pytest.mark.parametrize(("threads", "quota"), [(1, "200%"), (3, "400%"), (7, None), (16, None)])
def test_threads_and_one_processor_for_cameras_are_the_quota(tmp_path: Path, threads: int, quota: str | None) -> None:
    assert limits(tmp_path, threads=threads).get("CPUQuota") == quota


def test_a_budget_in_which_the_model_does_not_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory=1 MiB is too small"):
        limits(tmp_path, memory="1M")


def test_the_command_prints_a_drop_in_that_says_where_it_comes_from(tmp_path: Path) -> None:
    bundle = write_sample(tmp_path / "sample")
    path = write_config(tmp_path, bundle, 1883, model={"bundle": str(bundle), "memory": "1G"})
    result = CliRunner().invoke(service_limits, ["--config", str(path)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith(f"# `moedge service-limits --config {path}` printed this")
    assert lines[lines.index("[Service]") + 1].startswith("# memory 1.00 GiB: process ")
    assert lines[-1] == "MemoryMax=1536M"
