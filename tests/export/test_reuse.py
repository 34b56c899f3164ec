"""`--reuse`: parts of another bundle come out as if they had been made, and only where they would."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from export.random_checkpoint import SHAPES, save_random_checkpoint
from export.test_resume import contents, interrupt
from moedge_export.checkpoint import open_checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_export.reading import CountedWeights
from moedge_runtime.errors import BundleError, ConfigError

BEFORE = ExportOptions(precision="int4")
CHANGED = {"attention": {"attention": "int4"}, "head": {"head": "fp32"}, "vision": {"vision": "int4"}}


@pytest.fixture(scope="module")
def donor(checkpoint: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle; do not change it."""
    path = tmp_path_factory.mktemp("donor") / "bundle"
    export_bundle(checkpoint[0], path, BEFORE)
    return path


@pytest.mark.parametrize("part", CHANGED)
def test_a_reused_bundle_is_the_same_bytes_as_one_made_anew(
    part: str, checkpoint: tuple[Path, Any], donor: Path, tmp_path: Path
) -> None:
    parts: Any = CHANGED[part]
    export_bundle(checkpoint[0], tmp_path / "anew", ExportOptions(precision="int4", parts=parts))
    export_bundle(checkpoint[0], tmp_path / "reused", ExportOptions(precision="int4", parts=parts, reuse=donor))
    assert contents(tmp_path / "reused") == contents(tmp_path / "anew")
    assert (tmp_path / "reused" / "experts.bin").samefile(donor / "experts.bin")


def test_only_the_changed_part_is_read(checkpoint: tuple[Path, Any], donor: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(checkpoint[0])
    read: set[str] = set()

    class Noted(CountedWeights):
        def rows(self, name: str, start: int, stop: int) -> Any:
            read.add(name)
            return super().rows(name, start, stop)

    object.__setattr__(opened, "weights", Noted(opened.weights, lambda _: None))
    export_bundle(opened, tmp_path / "bundle", ExportOptions(precision="int4", parts={"head": "fp32"}, reuse=donor))
    assert read == {"lm_head.weight", "model.language_model.norm.weight"}


def test_int8_activations_are_in_the_graphs_only(checkpoint: tuple[Path, Any], donor: Path, tmp_path: Path) -> None:
    export_bundle(checkpoint[0], tmp_path / "bundle", ExportOptions(precision="int4", activations="fp32", reuse=donor))
    shared = {path.name for path in tmp_path.glob("bundle/**/*") if path.is_file() and path.stat().st_nlink > 1}
    assert shared == {"embedding.bin", "experts.bin"}


def test_a_bundle_can_be_replaced_by_one_that_reuses_it(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    export_bundle(checkpoint[0], tmp_path / "bundle", BEFORE)
    options = ExportOptions(precision="int4", parts={"head": "fp32"}, reuse=tmp_path / "bundle", overwrite=True)
    export_bundle(checkpoint[0], tmp_path / "bundle", options)
    export_bundle(checkpoint[0], tmp_path / "anew", ExportOptions(precision="int4", parts={"head": "fp32"}))
    assert contents(tmp_path / "bundle") == contents(tmp_path / "anew")


def test_the_other_bundle_is_never_written_to(
    checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that reused is interrupted, and the next one makes the same files itself."""
    export_bundle(checkpoint[0], tmp_path / "donor", BEFORE)
    before = contents(tmp_path / "donor")
    parts: Any = {"attention": "int4", "head": "fp32"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("moedge_export.pieces.build_head", interrupted)
        options = ExportOptions(precision="int4", parts=parts, reuse=tmp_path / "donor")
        export_bundle(checkpoint[0], tmp_path / "bundle", options)
    assert (tmp_path / ".bundle.partial" / "bundle" / "experts.bin").samefile(tmp_path / "donor" / "experts.bin")
    export_bundle(checkpoint[0], tmp_path / "bundle", ExportOptions(precision="int4", parts=parts))
    assert contents(tmp_path / "donor") == before
    assert not (tmp_path / "bundle" / "experts.bin").samefile(tmp_path / "donor" / "experts.bin")


def test_an_unfinished_export_may_take_the_rest_over(checkpoint: tuple[Path, Any], donor: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(checkpoint[0])
    interrupt(opened, tmp_path / "bundle", BEFORE)
    export_bundle(opened, tmp_path / "bundle", ExportOptions(precision="int4", reuse=donor))
    assert contents(tmp_path / "bundle") == contents(donor)


def test_files_are_copied_where_no_link_can_be_made(
    checkpoint: tuple[Path, Any], donor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_file_system(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", other_file_system)
    export_bundle(checkpoint[0], tmp_path / "bundle", ExportOptions(precision="int4", reuse=donor))
    assert contents(tmp_path / "bundle") == contents(donor)
    assert not (tmp_path / "bundle" / "experts.bin").samefile(donor / "experts.bin")


def test_one_altered_bit_of_the_other_bundle_is_refused(
    checkpoint: tuple[Path, Any], donor: Path, tmp_path: Path
) -> None:
    shutil.copytree(donor, tmp_path / "donor")
    content = bytearray((tmp_path / "donor" / "experts.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "donor" / "experts.bin").write_bytes(content)
    with pytest.raises(BundleError, match=r"is damaged: SHA-256 differs from the manifest for 'experts.bin'"):
        export_bundle(checkpoint[0], tmp_path / "bundle", ExportOptions(precision="int4", reuse=tmp_path / "donor"))
    assert [path.name for path in tmp_path.iterdir()] == ["donor"]


def test_a_bundle_of_other_weights_is_refused(donor: Path, tmp_path: Path) -> None:
    save_random_checkpoint(tmp_path / "checkpoint", next(iter(SHAPES.values())), seed=1)
    with pytest.raises(ConfigError, match=r"No part of '.*' can be reused: it was exported from other weights"):
        export_bundle(tmp_path / "checkpoint", tmp_path / "bundle", ExportOptions(precision="int4", reuse=donor))


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
