"""What is wrong with experts.bin is told by the core in the words of the numpy reference."""

import os
from collections.abc import Callable

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.numpy_experts import NumpyExperts
from runtime.inference.expert_core.bundles import FP32, INT4, inputs, write_bundle

EXPERT, LAYER, POSITION = 7, 2, 1


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return write_bundle(tmp_path / "bundle", INT4)


def wants(bundle: Bundle, tokens: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Inputs whose tokens choose EXPERT and two others."""
    x, logits = inputs(bundle, tokens)
    logits[:, EXPERT] = 50
    return x, logits


def both_refuse(bundle: Bundle, after_opening: Callable[[], object], arrays: tuple[np.ndarray, np.ndarray]) -> str:
    """The text of the error that both banks raise on the same call, twice."""
    texts = []
    banks = [NumpyExperts(bundle, 1 << 30), NativeExperts(bundle)]
    after_opening()
    for bank in banks:
        for _ in range(2):
            with pytest.raises(BundleError) as caught:
                bank.compute(LAYER, *arrays)
            assert caught.value.key == "bundle.expert_damaged"
            texts.append(str(caught.value))
        assert bank.statistics().failed_reads >= 2
        bank.close()
    assert len(set(texts)) == 1, texts
    return texts[0]


def offset(bundle: Bundle) -> int:
    return (POSITION * 12 + EXPERT) * bundle.manifest.experts.record_bytes


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("place", [0, 700, -1])
def test_a_flipped_bit_anywhere_in_a_record(bundle, place, tokens):
    path = bundle.file("experts.bin")
    content = bytearray(path.read_bytes())
    content[offset(bundle) + place % bundle.manifest.experts.record_bytes] ^= 0x10
    text = both_refuse(bundle, lambda: path.write_bytes(content), wants(bundle, tokens))
    assert text.startswith(
        f"Expert {EXPERT} of layer {LAYER} at byte {offset(bundle):,} of '{path}' cannot be used: its CRC"
    )


@pytest.mark.parametrize("left", [0, 100, 512, 4096, 5000, -1])
def test_a_file_that_became_shorter(bundle, left):
    record_bytes = bundle.manifest.experts.record_bytes
    x, logits = inputs(bundle, 1)
    logits[0, 5 : EXPERT + 1] = 50  # experts 5 and 6 lie before the end
    left %= record_bytes
    path = bundle.file("experts.bin")
    text = both_refuse(bundle, lambda: os.truncate(path, offset(bundle) + left), (x, logits))
    assert f"the file ends after {left:,} of {record_bytes:,} bytes. Copy the bundle again" in text


def test_a_file_of_another_size(bundle):
    path = bundle.file("experts.bin")
    size = path.stat().st_size
    os.truncate(path, size + 4096)
    texts = []
    for make in (NumpyExperts, NativeExperts):
        with pytest.raises(BundleError) as caught:
            make(bundle)
        assert caught.value.key == "bundle.experts_unusable"
        texts.append(str(caught.value))
    assert (
        texts
        == [f"'{path}' cannot be used: it has {size + 4096:,} bytes, its records take {size:,}. Copy the bundle again."]
        * 2
    )


def test_a_file_that_is_not_there(bundle):
    path = bundle.file("experts.bin")
    path.unlink()
    for make in (NumpyExperts, NativeExperts):
        with pytest.raises(BundleError) as caught:
            make(bundle)
        assert str(caught.value) == (
            f"'{path}' cannot be used: it cannot be opened (No such file or directory). Copy the bundle again."
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tokens", [1, 20])
def test_router_logits_that_are_not_finite(bundle, value, tokens):
    x, logits = inputs(bundle, tokens)
    logits[-1, 3] = value
    for bank in (NumpyExperts(bundle), NativeExperts(bundle)):
        with pytest.raises(BundleError) as caught:
            bank.compute(3, x, logits)
        assert caught.value.key == "bundle.not_finite"
        assert str(caught.value).startswith(
            f"The model of '{bundle.path}' fails in layer 3: a router logit is not finite. "
        )
        assert np.isfinite(bank.compute(3, *inputs(bundle, tokens))).all()
        bank.close()


def test_activations_that_are_not_finite_cannot_be_quantized(bundle):
    x, logits = inputs(bundle, 4)
    x[2, 5] = np.inf
    native = NativeExperts(bundle)
    with pytest.raises(BundleError, match="fails in layer 0: an activation is not finite"):
        native.compute(0, x, logits)
    native.close()


def test_the_bank_goes_on_after_an_error_with_the_right_numbers(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", FP32)
    path = bundle.file("experts.bin")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[offset(bundle)] ^= 1
    clean, native = NumpyExperts(bundle), NativeExperts(bundle)
    calls = [(layer, wants(bundle, tokens)) for tokens in (1, 30) for layer in (0, 2, 3)]
    wanted = [clean.compute(layer, *arrays) for layer, arrays in calls]
    path.write_bytes(damaged)
    for (layer, arrays), result in zip(calls, wanted, strict=True):
        if layer == LAYER:
            with pytest.raises(BundleError, match=rf"Expert {EXPERT} of layer {LAYER} "):
                native.compute(layer, *arrays)
        else:
            np.testing.assert_allclose(native.compute(layer, *arrays), result, rtol=1e-5, atol=1e-5)
    path.write_bytes(whole)
    for (layer, arrays), result in zip(calls, wanted, strict=True):
        np.testing.assert_allclose(native.compute(layer, *arrays), result, rtol=1e-5, atol=1e-5)
    native.close()
