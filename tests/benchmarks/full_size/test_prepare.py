from pathlib import Path

import pytest
from fixtures_checkpoint import save_checkpoint
from full_size.prepare import derive
from moedge_export.checkpoint import Checkpoint, open_checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bundle import Bundle, verify_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Checkpoint]:
    folder = tmp_path_factory.mktemp("prepare")
    save_checkpoint(folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "base", ExportOptions())
    return Bundle.open(folder / "base"), open_checkpoint(folder / "checkpoint", None)


def same_file(one: Bundle, other: Bundle, name: str) -> bool:
    return (one.path / name).samefile(other.path / name)


def test_a_derived_bundle_is_whole_and_shares_what_was_not_made_anew(
    made: tuple[Bundle, Checkpoint], tmp_path: Path
) -> None:
    base, checkpoint = made
    derive(base, tmp_path / "derived", checkpoint, layers="int4", embedding="int4")
    derived = Bundle.open(tmp_path / "derived")
    verify_bundle(derived)
    assert all(same_file(base, derived, name) for name in ("experts.bin", "head.onnx", "tokenizer.json"))
    assert not any(same_file(base, derived, name) for name in ("layers/00.onnx", "embedding.bin"))
    bits = derived.manifest.quantization
    assert (bits.attention.bits, bits.embedding.bits, bits.head.bits) == (4, 4, 8)
    assert derived.manifest.embedding.row_bytes < base.manifest.embedding.row_bytes
    assert derived.manifest.experts == base.manifest.experts
    # What is another part than the base's must not pass for it in an export that reuses.
    assert set(base.manifest.parts) - set(derived.manifest.parts) == {"attention", "embedding"}


def test_new_assets_leave_every_weight_where_it_is(made: tuple[Bundle, Checkpoint], tmp_path: Path) -> None:
    base, checkpoint = made
    derive(base, tmp_path / "derived", checkpoint, assets=True)
    derived = Bundle.open(tmp_path / "derived")
    verify_bundle(derived)
    weights = [entry.path for entry in base.manifest.files if entry.path.endswith((".onnx", ".data", ".bin"))]
    assert all(same_file(base, derived, name) for name in weights)
    assert not same_file(base, derived, "chat_template.jinja")
