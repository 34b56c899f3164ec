from pathlib import Path

import pytest
from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.errors import BundleError
from runtime.bundle.sample import write_sample


def test_an_untouched_bundle_verifies(tmp_path: Path) -> None:
    read = 0

    def count(nbytes: int) -> None:
        nonlocal read
        read += nbytes

    bundle = Bundle.open(write_sample(tmp_path / "sample"))
    verify_bundle(bundle, count)
    assert read == sum(entry.nbytes for entry in bundle.manifest.files)


def test_a_flipped_byte_in_any_file_is_found_and_named(tmp_path: Path) -> None:
    bundle = Bundle.open(write_sample(tmp_path / "sample"))
    for entry in bundle.manifest.files:
        path = bundle.file(entry.path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(BundleError) as error:
            verify_bundle(bundle)
        assert str(error.value) == (
            f"Bundle '{bundle.path}' is damaged: SHA-256 differs from the manifest for '{entry.path}'. "
            "Copy the bundle again."
        )
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    verify_bundle(bundle)


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    bundle = Bundle.open(write_sample(tmp_path / "sample"))
    for name in ("head.onnx", "vision.onnx"):
        bundle.file(name).write_bytes(b"x" * len(name))
    with pytest.raises(BundleError, match=r"'head\.onnx', 'vision\.onnx'"):
        verify_bundle(bundle)


def test_experts_can_be_left_to_the_checksums_of_their_records(tmp_path: Path) -> None:
    bundle = Bundle.open(write_sample(tmp_path / "sample"))
    assert bundle.manifest.experts is not None
    experts = bundle.file(bundle.manifest.experts.file)
    experts.write_bytes(bytes(experts.stat().st_size))
    verify_bundle(bundle, experts=False)
    with pytest.raises(BundleError, match=r"'experts\.bin'"):
        verify_bundle(bundle)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    bundle = Bundle.open(write_sample(tmp_path / "sample"))
    bundle.file("head.onnx").unlink()
    bundle.file("head.onnx").symlink_to("head.onnx")
    with pytest.raises(BundleError, match=r"'head\.onnx' .* cannot be read \(Too many levels") as error:
        verify_bundle(bundle)
    assert error.value.key == "bundle.unreadable"
