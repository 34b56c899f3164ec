from types import SimpleNamespace

import pytest
from moedge_runtime.bench.limits import (
    Bandwidths,
    decode_limit_s,
    prefill_limit_s,
    token_bytes,
    windows,
)

SPEEDS = Bandwidths(memory=20e9, flash=1e9)


def test_a_prefill_is_limited_by_whichever_takes_longer_flash_or_computing() -> None:
    assert prefill_limit_s(3e9, 2.0, SPEEDS) == 3.0
    assert prefill_limit_s(1e9, 2.0, SPEEDS) == 2.0


def test_decoding_is_limited_by_memory_until_flash_takes_longer() -> None:
    assert decode_limit_s(0, 10, 2_000_000_000, SPEEDS) == pytest.approx(1.0)
    assert decode_limit_s(4e9, 10, 2_000_000_000, SPEEDS) == 4.0


def test_a_token_reads_layers_and_head_with_their_data_files_and_its_routed_experts_only() -> None:
    files = {
        "layers/00.onnx": 10,
        "layers/00.onnx.data": 200,
        "head.onnx": 1,
        "head.onnx.data": 30,
        "vision.onnx.data": 5000,
        "embedding.bin": 7000,
        "experts.bin": 90000,
    }
    manifest = SimpleNamespace(
        graphs=SimpleNamespace(layers=["layers/00.onnx"], head="head.onnx"),
        model=SimpleNamespace(text=SimpleNamespace(moe_layers=[0, 1], num_experts_per_tok=4)),
        experts=SimpleNamespace(record_bytes=1000),
        files=[SimpleNamespace(path=path, nbytes=nbytes) for path, nbytes in files.items()],
        weights={},
    )
    assert token_bytes(manifest) == 241 + 2 * 4 * 1000  # type: ignore[arg-type]


def test_windows_end_where_the_tokens_end() -> None:
    assert windows(60) == [(1, 10), (11, 30), (31, 60)]
    assert windows(24) == [(1, 10), (11, 24)]
    assert windows(10) == [(1, 10)]
    assert windows(0) == []
