import numpy as np
import pytest
from moedge_runtime.bundle import Bundle, Manifest, Precision
from moedge_runtime.inference.embedding import EmbeddingTable
from runtime.bundle.sample import TEXT, write_sample


@pytest.mark.parametrize(
    "precision",
    [
        Precision(bits=32),
        Precision(bits=8, block_size=32),
        Precision(bits=4, block_size=32),
        Precision(bits=8, block_size=64, symmetric=False),
        Precision(bits=4, block_size=32, symmetric=False),
    ],
    ids=lambda p: f"{p.bits}-{p.block_size}-{p.symmetric}",
)
def test_rows_of_every_precision_are_what_was_stored(tmp_path, precision):
    rng = np.random.default_rng(0)
    hidden, bits = TEXT.hidden_size, precision.bits
    blocks = hidden // precision.block_size
    if bits == 32:
        wanted = rng.normal(0, 1, (TEXT.vocab_size, hidden)).astype(np.float32)
        rows = wanted.view(np.uint8)
    else:
        q = rng.integers(0, 1 << bits, (TEXT.vocab_size, hidden))
        scale = rng.uniform(0.1, 1, (TEXT.vocab_size, blocks)).astype(np.float16)
        zero = np.full((TEXT.vocab_size, blocks), 1 << (bits - 1))
        if not precision.symmetric:
            zero = rng.integers(0, 1 << bits, zero.shape)
        parts = [pack(q, bits), scale.view(np.uint8)] + ([] if precision.symmetric else [pack(zero, bits)])
        rows = np.concatenate(parts, axis=1)
        centred = (q - np.repeat(zero, precision.block_size, axis=1)).astype(np.float32)
        wanted = centred * np.repeat(scale, precision.block_size, axis=1).astype(np.float32)
    path = write_sample(tmp_path / "bundle")
    rows.tofile(path / "embedding.bin")
    values = Bundle.open(write_sample(tmp_path / "other")).manifest.model_dump()
    values["quantization"]["embedding"] = precision.model_dump()
    values["embedding"]["row_bytes"] = rows.shape[1]
    table = EmbeddingTable(Bundle(path, Manifest.model_validate(values)))
    tokens = [5, 0, 96, 5]
    np.testing.assert_array_equal(table.rows(tokens), wanted[tokens])
    assert table.rows([]).shape == (0, hidden)


def pack(values, bits):
    if bits == 8:
        return values.astype(np.uint8)
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    return (values[:, 0::2] | values[:, 1::2] << 4).astype(np.uint8)
