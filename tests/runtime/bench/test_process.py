from pathlib import Path

from moedge_runtime.bench.process import anonymous_bytes, group_peak_bytes, peak_bytes, read_bytes


def write(root: Path, name: str, content: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_bytes_are_those_that_disks_gave_not_those_that_calls_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/io", "rchar: 999\nwchar: 1\nread_bytes: 4096\nwrite_bytes: 7\n")
    assert read_bytes(tmp_path) == 4096


def test_a_kernel_that_does_not_count_reads_gives_none(tmp_path: Path) -> None:
    assert read_bytes(tmp_path) is None
    assert group_peak_bytes(tmp_path) is None


def test_memory_is_in_bytes(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", "VmHWM:\t     300 kB\nVmRSS:\t 200 kB\nRssAnon:\t 100 kB\n")
    assert (anonymous_bytes(tmp_path), peak_bytes(tmp_path)) == (102_400, 307_200)


def test_the_peak_of_a_control_group_is_found_in_both_versions(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/user/a\n")
    write(tmp_path, "sys/fs/cgroup/user/a/memory.peak", "123\n")
    assert group_peak_bytes(tmp_path) == 123
    write(tmp_path, "proc/self/cgroup", "9:name=systemd:/\n4:memory:/b\n0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory/b/memory.max_usage_in_bytes", "456\n")
    assert group_peak_bytes(tmp_path) == 456


def test_a_process_in_no_group_of_its_own_has_no_peak(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory.peak", "123\n")
    assert group_peak_bytes(tmp_path) is None
