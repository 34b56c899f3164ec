from pathlib import Path

import pytest
from moedge_runtime import __version__
from moedge_runtime.bench.machine import machine, processor


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"}, "Some CPU @ 2 GHz"),
        (
            {"cpuinfo": "CPU part\t: 0xd0b\n", "device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"},
            "Raspberry Pi 5 Model B Rev 1.0",
        ),
    ],
    ids=["x86-64", "board"],
)
def test_the_processor_or_the_board_is_named(files: dict[str, str], name: str, tmp_path: Path) -> None:
    for path, content in files.items():
        (tmp_path / "proc" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / path).write_text(content)
    assert processor(tmp_path) == name


def test_a_figure_names_machine_and_versions() -> None:
    assert f"moedge {__version__}, onnxruntime " in machine() and " cores, " in machine()
