from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from moedge_runtime.command_line import FiniteRange, OutputDirectory, OutputFile


@pytest.mark.parametrize("text", ["nan", "-nan", "inf", "1e999", "-1", "x"])
def test_a_finite_number_within_its_limits_is_wanted(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is no finite number|is not in the range|is not a valid float"):
        FiniteRange(0).convert(text, None, None)
    assert FiniteRange(0).convert("2.5", None, None) == 2.5


def test_an_output_file_replaces_files_and_links_to_them_and_nothing_else(tmp_path: Path) -> None:
    kind, pipe, file = OutputFile(), tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_text("old")
    for path in (file, tmp_path / "new"):
        assert kind.convert(str(path), None, None) == path
    for refused in (pipe, Path("/dev/null")):
        with pytest.raises(click.BadParameter, match="is no regular file, and would be replaced by one"):
            kind.convert(str(refused), None, None)
    with pytest.raises(click.BadParameter, match="is a directory"):
        kind.convert(str(tmp_path), None, None)


def test_an_empty_name_is_no_output_directory(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="the name is empty"):
        OutputDirectory().convert("", None, None)
    assert OutputDirectory().convert(str(tmp_path / "new"), None, None) == tmp_path / "new"
