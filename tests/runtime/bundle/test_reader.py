import json
from pathlib import Path
from typing import Any

import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.bundle.reader import checksum_line
from moedge_runtime.errors import BundleError
from runtime.bundle.sample import write_sample


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    return write_sample(tmp_path / "sample")


def edit_manifest(path: Path, **values: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.update(values)
    sign_manifest(path, json.dumps(manifest))


def sign_manifest(path: Path, text: str) -> None:
    (path / "manifest.json").write_text(text)
    (path / "manifest.json.sha256").write_text(checksum_line(text.encode()))


def test_a_written_bundle_opens_with_the_manifest_that_was_written(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.manifest.model.text.num_experts == 3
    assert bundle.expert_layout.record_bytes == bundle.manifest.experts.record_bytes  # type: ignore[union-attr]
    assert bundle.json("generation_config.json") == {}


@pytest.mark.parametrize("name", ["hidden_size", "moe_intermediate_size"])
def test_experts_of_four_bits_with_rows_of_odd_length_are_refused(bundle_path: Path, name: str) -> None:
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    manifest["model"]["text"][name] = 33
    edit_manifest(bundle_path, model=manifest["model"], quantization=manifest["quantization"])
    with pytest.raises(BundleError, match=rf"{name} is 33; with experts of 4 bits it must be even") as error:
        Bundle.open(bundle_path)
    assert error.value.key == "bundle.manifest_invalid"
    manifest["quantization"]["experts"]["bits"] = 8
    edit_manifest(bundle_path, model=manifest["model"], quantization=manifest["quantization"])
    with pytest.raises(BundleError, match="its own shape and precision"):
        Bundle.open(bundle_path)  # of eight bits they are possible; these records are others


def test_a_directory_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as error:
        Bundle.open(tmp_path)
    assert str(error.value) == (
        f"'{tmp_path}' is no moedge bundle: it has no manifest.json. Give the directory that `moedge export` wrote."
    )
    assert error.value.key == "bundle.not_found"


def test_a_newer_format_is_refused_with_both_versions(bundle_path: Path) -> None:
    edit_manifest(bundle_path, format_version=2)
    with pytest.raises(BundleError) as error:
        Bundle.open(bundle_path)
    assert str(error.value) == (
        f"Bundle '{bundle_path}' has format_version 2; this runtime reads 1 to 1. "
        "Upgrade moedge, or export the bundle again with this version."
    )


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.sha256"])
def test_a_flipped_bit_in_the_manifest_or_its_checksum_is_noticed(bundle_path: Path, name: str) -> None:
    content = bytearray((bundle_path / name).read_bytes())
    for place in range(0, len(content), 97):
        content[place] ^= 1
        (bundle_path / name).write_bytes(content)
        with pytest.raises(BundleError) as error:
            Bundle.open(bundle_path)
        assert str(error.value) == (
            f"Bundle '{bundle_path}' is damaged: 'manifest.json' is not the file that 'manifest.json.sha256' was made "
            "of. Copy the bundle again."
        )
        content[place] ^= 1


def test_a_bundle_without_the_manifests_checksum_is_refused(bundle_path: Path) -> None:
    (bundle_path / "manifest.json.sha256").unlink()
    with pytest.raises(BundleError, match=r"lacks the file 'manifest\.json\.sha256'"):
        Bundle.open(bundle_path)


def test_a_manifest_that_is_no_json_is_refused(bundle_path: Path) -> None:
    text = (bundle_path / "manifest.json").read_text()
    sign_manifest(bundle_path, text[: len(text) // 2])
    with pytest.raises(BundleError, match="is not valid JSON"):
        Bundle.open(bundle_path)


def test_unknown_and_missing_keys_are_named_together(bundle_path: Path) -> None:
    edit_manifest(bundle_path, surprise=1, embedding={"file": "embedding.bin"})
    with pytest.raises(BundleError) as error:
        Bundle.open(bundle_path)
    assert "surprise: Extra inputs are not permitted" in str(error.value)
    assert "embedding.row_bytes: Field required" in str(error.value)


@pytest.mark.parametrize("outside", ["../secret", "/etc/passwd", "layers/../../x"])
def test_files_outside_the_bundle_are_refused(bundle_path: Path, outside: str) -> None:
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    manifest["files"][0]["path"] = outside
    edit_manifest(bundle_path, files=manifest["files"])
    with pytest.raises(BundleError, match="which lies outside of it"):
        Bundle.open(bundle_path)


def test_a_missing_file_is_named(bundle_path: Path) -> None:
    (bundle_path / "head.onnx").unlink()
    with pytest.raises(BundleError) as error:
        Bundle.open(bundle_path)
    assert str(error.value) == f"Bundle '{bundle_path}' lacks the file 'head.onnx' (9 bytes). Copy the bundle again."


def test_a_truncated_file_is_named_with_both_sizes(bundle_path: Path) -> None:
    (bundle_path / "head.onnx").write_bytes(b"head")
    with pytest.raises(BundleError) as error:
        Bundle.open(bundle_path)
    assert str(error.value) == (
        f"File 'head.onnx' of bundle '{bundle_path}' has 4 bytes; the manifest says 9. Copy the bundle again."
    )


def test_records_that_do_not_fit_the_shape_are_refused(bundle_path: Path) -> None:
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    manifest["experts"]["record_bytes"] += 4096
    edit_manifest(bundle_path, experts=manifest["experts"])
    with pytest.raises(BundleError, match="its own shape and precision give 16384"):
        Bundle.open(bundle_path)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.sha256", "head.onnx"])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(bundle_path: Path, name: str) -> None:
    (bundle_path / name).unlink()
    (bundle_path / name).symlink_to(name)
    with pytest.raises(
        BundleError, match=rf"'{name}' .* cannot be read \(Too many levels of symbolic links\)"
    ) as error:
        Bundle.open(bundle_path)
    assert error.value.key == "bundle.unreadable"
