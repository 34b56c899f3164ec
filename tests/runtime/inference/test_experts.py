import os

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle, Precision
from moedge_runtime.errors import BundleError
from moedge_runtime.inference.numpy_experts import NumpyExperts, route
from runtime.inference.expert_bundle import TEXT, write_expert_bundle

PRECISIONS = [
    Precision(bits=32),
    Precision(bits=4, block_size=32, symmetric=True),
    Precision(bits=4, block_size=32, symmetric=False),
    Precision(bits=4, block_size=128, symmetric=False),
    Precision(bits=8, block_size=64, symmetric=True),
    Precision(bits=8, block_size=32, symmetric=False),
]


def inputs(tokens: int = 11, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (tokens, TEXT.hidden_size)).astype(np.float32)
    return x, rng.normal(0, 2, (tokens, TEXT.num_experts)).astype(np.float32)


def transformers_experts(fc1: np.ndarray, fc2: np.ndarray, x: np.ndarray, router_logits: np.ndarray) -> np.ndarray:
    """transformers' experts with fc1 [experts, 2I, H] un-interleaved, and its router behind its linear layer."""
    import torch
    from transformers import Qwen3VLMoeTextConfig
    from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextExperts

    config = Qwen3VLMoeTextConfig(
        hidden_size=TEXT.hidden_size,
        moe_intermediate_size=TEXT.moe_intermediate_size,
        num_experts=TEXT.num_experts,
        num_experts_per_tok=TEXT.num_experts_per_tok,
    )
    config._experts_implementation = "eager"
    experts = Qwen3VLMoeTextExperts(config)
    probabilities = torch.softmax(torch.from_numpy(router_logits), dim=-1)
    weights, chosen = torch.topk(probabilities, TEXT.num_experts_per_tok, dim=-1)
    weights /= weights.sum(dim=-1, keepdim=True)
    with torch.no_grad():
        experts.gate_up_proj.copy_(torch.from_numpy(np.concatenate([fc1[:, 0::2], fc1[:, 1::2]], axis=1)))
        experts.down_proj.copy_(torch.from_numpy(fc2))
        return experts(torch.from_numpy(x), chosen, weights).numpy()


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda p: f"{p.bits}-{p.block_size}-{p.symmetric}")
def test_experts_of_every_precision_equal_transformers(tmp_path, precision):
    bundle, fc1, fc2 = write_expert_bundle(tmp_path / "bundle", precision)
    bank = NumpyExperts(bundle)
    for position, layer in enumerate(TEXT.moe_layers):
        x, router_logits = inputs(seed=layer)
        wanted = transformers_experts(fc1[position], fc2[position], x, router_logits)
        got = bank.compute(layer, x, router_logits)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    bank.close()


@pytest.mark.parametrize("cache_bytes", [0, 30_000, 1 << 30])
def test_the_cache_never_changes_a_bit(tmp_path, cache_bytes):
    bundle, _, _ = write_expert_bundle(tmp_path / "bundle", PRECISIONS[1])
    plain, cached = NumpyExperts(bundle), NumpyExperts(bundle, cache_bytes)
    for seed in range(6):
        x, router_logits = inputs(tokens=1 + seed, seed=seed)
        for layer in TEXT.moe_layers:
            wanted = plain.compute(layer, x, router_logits)
            np.testing.assert_array_equal(cached.compute(layer, x, router_logits), wanted)
            assert cached.cached_bytes <= cache_bytes
    if cache_bytes == 1 << 30:
        assert cached.records_read == len(TEXT.moe_layers) * TEXT.num_experts
    plain.close()
    cached.close()


def test_each_expert_is_read_once_for_all_tokens_of_a_call(tmp_path):
    bundle, _, _ = write_expert_bundle(tmp_path / "bundle", PRECISIONS[1])
    bank = NumpyExperts(bundle)
    x, router_logits = inputs(tokens=50)
    bank.compute(0, x, router_logits)
    assert bank.records_read == TEXT.num_experts
    bank.close()


def test_a_flipped_bit_anywhere_in_a_record_is_an_error_with_layer_and_expert(tmp_path):
    bundle, _, _ = write_expert_bundle(tmp_path / "bundle", PRECISIONS[1])
    path = bundle.file("experts.bin")
    original = path.read_bytes()
    record_bytes = bundle.expert_layout.record_bytes
    x, _ = inputs(tokens=1)
    wants_expert_2 = np.array([[0, 0, 9]], np.float32)
    for place in (0, 1234, record_bytes - 1):
        offset = (1 * TEXT.num_experts + 2) * record_bytes
        damaged = bytearray(original)
        damaged[offset + place] ^= 0x10
        path.write_bytes(damaged)
        bank = NumpyExperts(bundle, cache_bytes=1 << 30)
        bank.compute(0, x, wants_expert_2)  # the same expert of another layer is whole
        for _ in range(2):
            with pytest.raises(BundleError, match=rf"Expert 2 of layer 1 at byte {offset:,} .* CRC-32C") as caught:
                bank.compute(1, x, wants_expert_2)
            assert caught.value.key == "bundle.expert_damaged"
        bank.close()


def test_a_file_that_ends_early_is_an_error(tmp_path):
    bundle, _, _ = write_expert_bundle(tmp_path / "bundle", PRECISIONS[1])
    bank = NumpyExperts(bundle)
    os.truncate(bundle.file("experts.bin"), 2 * bundle.expert_layout.record_bytes + 100)
    with pytest.raises(BundleError, match="the file ends after 100 of"):
        bank.compute(0, inputs(tokens=1)[0], np.array([[0, 0, 9]], np.float32))
    bank.close()


def test_a_failing_disk_is_an_error(tmp_path, monkeypatch):
    bundle, _, _ = write_expert_bundle(tmp_path / "bundle", PRECISIONS[1])
    bank = NumpyExperts(bundle)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(BundleError, match=r"Expert 0 of layer 0 .* reading failed \(Input/output error\)"):
        bank.compute(0, *inputs(tokens=1))


def test_of_equal_logits_the_lower_expert_is_taken():
    chosen, weights = route(np.zeros((1, 5), np.float32), 2)
    assert chosen.tolist() == [[0, 1]]
    np.testing.assert_allclose(weights, [[0.5, 0.5]])


def test_very_large_logits_do_not_overflow():
    _, weights = route(np.array([[1e4, 1e4 - 1, -1e4]], np.float32), 2)
    np.testing.assert_allclose(weights, [[0.7310586, 0.26894143]], rtol=1e-5)


def test_the_bundle_of_this_test_is_whole(tmp_path):
    bundle, _, _ = write_expert_bundle(tmp_path / "bundle", PRECISIONS[2])
    assert isinstance(bundle, Bundle)
    assert bundle.expert_layout.matches(bundle.manifest.experts)
