"""Memory is what the machine has, or what the tightest control group above the process leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from moedge_export.estimate import check_memory
from moedge_export.memory import available_memory
from moedge_runtime.errors import StorageError

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_without_groups_it_is_the_machines(tmp_path: Path) -> None:
    assert available_memory(system(tmp_path, {"proc/self/cgroup": "0::/\n"})) == 8_000_000 << 10


def test_a_group_above_the_process_limits_it_and_its_page_cache_counts_as_free(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/memory.max": "2000000000\n",
        "sys/fs/cgroup/outer/memory.current": "1500000000\n",
        "sys/fs/cgroup/outer/memory.stat": "anon 1\ninactive_file 300000000\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        "sys/fs/cgroup/outer/inner/memory.current": "1500000000\n",
    }
    assert available_memory(system(tmp_path, files)) == 800_000_000


def test_version_1_of_control_groups_is_read_too(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu:/a\n4:memory:/a\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000\n",
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "400\n",
        "sys/fs/cgroup/memory/a/memory.stat": "total_inactive_file 100\n",
    }
    assert available_memory(system(tmp_path, files)) == 700


def test_a_system_that_tells_nothing_is_no_obstacle(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_too_little_memory_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        StorageError, match=r"needs up to 1,000,000,000 MB of memory; [\d,]+ MB are available"
    ) as caught:
        check_memory(10**15)
    assert caught.value.key == "storage.memory"
