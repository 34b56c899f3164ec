from pathlib import Path

from moedge_runtime.inference.expert_core.memory import (
    RESERVE_BYTES,
    available_memory,
    default_memory,
    total_memory,
)

GIB = 1 << 30
MEMINFO = "MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:    {} kB\nBuffers: 1 kB\n"


def system(root: Path, files: dict[str, str], available_kib: int = 6 << 20) -> Path:
    for name, content in {"proc/meminfo": MEMINFO.format(available_kib), **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def group(directory: str, limit: str, usage: int, inactive_file: int = 0, version: int = 2) -> dict[str, str]:
    names = (
        ("max", "current", "inactive_file")
        if version == 2
        else ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")
    )
    return {
        f"sys/fs/cgroup/{directory}/memory.{names[0]}": f"{limit}\n",
        f"sys/fs/cgroup/{directory}/memory.{names[1]}": f"{usage}\n",
        f"sys/fs/cgroup/{directory}/memory.stat": f"anon 5\nactive_file 9\n{names[2]} {inactive_file}\n",
    }


def test_a_tenth_of_what_is_available_is_left_to_others_and_never_less_than_the_reserve():
    assert default_memory(20 * GIB) == 18 * GIB
    assert default_memory(2 * GIB) == 2 * GIB - RESERVE_BYTES
    assert default_memory(RESERVE_BYTES) == default_memory(0) == 0


def test_a_process_never_has_more_than_the_machine_or_its_group(tmp_path):
    assert total_memory(system(tmp_path / "alone", {})) == 8_000_000 << 10
    files = {"proc/self/cgroup": "0::/x\n", **group("x", str(3 * GIB), 2 * GIB)}
    assert total_memory(system(tmp_path / "grouped", files)) == 3 * GIB
    assert total_memory(tmp_path / "silent") is None


def test_a_system_without_control_groups_has_what_it_says(tmp_path):
    assert available_memory(system(tmp_path, {})) == 6 * GIB


def test_a_group_without_limit_changes_nothing(tmp_path):
    files = {"proc/self/cgroup": "0::/a.slice/b.service\n", **group("a.slice/b.service", "max", GIB)}
    assert available_memory(system(tmp_path, files)) == 6 * GIB


def test_a_group_leaves_its_limit_without_its_usage(tmp_path):
    files = {"proc/self/cgroup": "0::/moedge.service\n", **group("moedge.service", str(4 * GIB), GIB)}
    assert available_memory(system(tmp_path, files)) == 3 * GIB


def test_page_cache_of_the_group_that_was_not_used_lately_is_free(tmp_path):
    files = {"proc/self/cgroup": "0::/x\n", **group("x", str(4 * GIB), 4 * GIB, inactive_file=2 * GIB)}
    assert available_memory(system(tmp_path, files)) == 2 * GIB


def test_the_tightest_group_above_counts(tmp_path):
    files = {
        "proc/self/cgroup": "0::/a/b/c\n",
        **group("a/b/c", str(5 * GIB), 0),
        **group("a", str(2 * GIB), GIB),
        **group("a/b", "max", 0),
    }
    assert available_memory(system(tmp_path, files)) == GIB


def test_memory_high_limits_as_well(tmp_path):
    files = {"proc/self/cgroup": "0::/x\n", **group("x", "max", GIB), "sys/fs/cgroup/x/memory.high": f"{3 * GIB}\n"}
    assert available_memory(system(tmp_path, files)) == 2 * GIB


def test_in_a_container_the_mount_is_the_group_itself(tmp_path):
    for index, path in enumerate(("/", "/docker/0123abcd", "/../../system.slice")):
        files = {"proc/self/cgroup": f"0::{path}\n", **group(".", str(2 * GIB), GIB // 2)}
        assert available_memory(system(tmp_path / str(index), files)) == 1.5 * GIB


def test_version_1_groups_limit_too(tmp_path):
    files = {
        "proc/self/cgroup": "12:cpu,cpuacct:/c\n4:memory:/box/1\n1:name=systemd:/c\n0::/\n",
        **group("memory/box/1", str(3 * GIB), 2 * GIB, GIB // 2, version=1),
        **group("memory", "9223372036854771712", GIB, version=1),
    }
    assert available_memory(system(tmp_path, files)) == 1.5 * GIB


def test_a_group_that_is_full_leaves_nothing(tmp_path):
    files = {"proc/self/cgroup": "0::/x\n", **group("x", str(GIB), 2 * GIB)}
    assert available_memory(system(tmp_path, files)) == 0


def test_a_system_that_tells_nothing_is_unknown(tmp_path):
    assert available_memory(tmp_path) is None


def test_this_machine_has_some_memory():
    available = available_memory()
    assert available is not None and 1 << 20 < available < 1 << 50
