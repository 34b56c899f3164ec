"""Write a synthetic Qwen3-30B-A3B GGUF (Q4_0, the text part of Qwen3-VL-30B-A3B's shape) for timing the peers.

Weights are random and zero-mean; the residual stream is dominated by the token embedding, so routing depends on the
token. `--skew` adds a fixed popularity of experts for each layer through 32 constant embedding channels: 0 is uniform
routing (the worst case for any cache), 1.7 matches the public Qwen3-30B-A3B trace (26 experts cover 80 % of a layer's
picks, 36 cover 90 %, a 220-token prefill touches about 105 of 128). `--reroute` gives a file that is there already
routers of another skew.

    python make_gguf.py full.gguf --tokenizer tokenizer.json.gz     # 17.2 GB, about a minute; needs gguf and numpy
    python make_gguf.py full.gguf --reroute --skew 0                # a second
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, EXPERT_FFN, EXPERTS, TOP_K, VOCAB = 2048, 768, 128, 8, 151936
HEADS, KV_HEADS, HEAD_DIM = 32, 4, 128
Q4_0_BYTES = 18  # float16 scale and 32 nibbles
CONSTANT_CHANNELS = 32
Array = np.ndarray[Any, Any]


def router(layer: int, skew: float) -> Array:
    """float32 [EXPERTS, HIDDEN]; the same token parts and the same order of popularity for every skew."""
    rng = np.random.default_rng([1, layer])
    popularity = -np.log(np.arange(1, EXPERTS + 1))
    popularity = (popularity - popularity.mean()) / popularity.std()
    weights = rng.standard_normal((EXPERTS, HIDDEN)) * 0.05
    shares = skew * popularity[rng.permutation(EXPERTS)] / CONSTANT_CHANNELS / 1.4
    weights[:, :CONSTANT_CHANNELS] = shares[:, None]
    return np.ascontiguousarray(weights, np.float32)


class _Writer:
    """Collects tensors and writes them in order, each made when it is written."""

    def __init__(self, path: str, layers: int) -> None:
        self.gguf = gguf.GGUFWriter(path, "qwen3moe")
        self.gguf.add_name("synthetic-qwen3-30b-a3b")
        self.gguf.add_block_count(layers)
        self.gguf.add_context_length(32768)
        self.gguf.add_embedding_length(HIDDEN)
        self.gguf.add_feed_forward_length(6144)
        self.gguf.add_head_count(HEADS)
        self.gguf.add_head_count_kv(KV_HEADS)
        self.gguf.add_key_length(HEAD_DIM)
        self.gguf.add_value_length(HEAD_DIM)
        self.gguf.add_rope_freq_base(5e6)
        self.gguf.add_layer_norm_rms_eps(1e-6)
        self.gguf.add_expert_count(EXPERTS)
        self.gguf.add_expert_used_count(TOP_K)
        self.gguf.add_expert_feed_forward_length(EXPERT_FFN)
        self.gguf.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
        self._rng = np.random.default_rng(0)
        nibbles = self._rng.integers(1, 16, (1 << 20, Q4_0_BYTES), dtype=np.uint8)
        self._pool = nibbles | (self._rng.integers(1, 16, nibbles.shape, dtype=np.uint8) << 4)
        self._pending: list[Callable[[], Array]] = []

    def quantized(self, name: str, *shape: int, scale: float = 0.006, constant: bool = False) -> None:
        """Random Q4_0 blocks; `constant` sets the first block of each row to its largest value."""
        stored = [*shape[:-1], shape[-1] // 32 * Q4_0_BYTES]
        size = int(np.prod(stored))
        self.gguf.add_tensor_info(name, stored, np.dtype(np.uint8), size, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

        def make() -> Array:
            blocks = int(np.prod(shape)) // 32
            start = int(self._rng.integers(0, len(self._pool)))
            values = np.concatenate([self._pool] * -(-(blocks + start) // len(self._pool)))[start : start + blocks]
            values[:, :2] = np.array([scale], np.float16).view(np.uint8)
            rows = values.reshape(*shape[:-1], shape[-1] // 32, Q4_0_BYTES)
            if constant:
                rows[..., 0, 2:] = 0xFF
            return rows.reshape(stored)

        self._pending.append(make)

    def dense(self, name: str, values: Array) -> None:
        """A float32 tensor."""
        array = np.ascontiguousarray(values, np.float32)
        self.gguf.add_tensor_info(name, array.shape, array.dtype, array.nbytes)
        self._pending.append(lambda: array)

    def write(self) -> None:
        """Write all of it."""
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_ti_data_to_file()
        for make in self._pending:
            self.gguf.write_tensor_data(make())
        self.gguf.close()


def add_vocabulary(writer: gguf.GGUFWriter, path: Path) -> None:
    """Add Qwen3's vocabulary from its tokenizer.json, so that peers that take text work too."""
    content = path.read_bytes()
    tokenizer = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    tokens = [f"[PAD{i}]" for i in range(VOCAB)]
    types = [gguf.TokenType.UNUSED] * VOCAB
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = text, gguf.TokenType.NORMAL
    for entry in tokenizer["added_tokens"]:
        tokens[entry["id"]], types[entry["id"]] = entry["content"], gguf.TokenType.CONTROL
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(151645)
    writer.add_add_bos_token(False)


def write(path: str, tokenizer: Path, layers: int, skew: float) -> None:
    """Write the whole file."""
    writer = _Writer(path, layers)
    add_vocabulary(writer.gguf, tokenizer)
    writer.quantized("token_embd.weight", VOCAB, HIDDEN, scale=0.6, constant=True)
    writer.dense("output_norm.weight", np.ones(HIDDEN))
    writer.quantized("output.weight", VOCAB, HIDDEN)
    for layer in range(layers):
        p = f"blk.{layer}."
        for norm, width in (
            ("attn_norm", HIDDEN),
            ("ffn_norm", HIDDEN),
            ("attn_q_norm", HEAD_DIM),
            ("attn_k_norm", HEAD_DIM),
        ):
            writer.dense(p + norm + ".weight", np.ones(width))
        writer.quantized(p + "attn_q.weight", HEADS * HEAD_DIM, HIDDEN)
        writer.quantized(p + "attn_k.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        writer.quantized(p + "attn_v.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        writer.quantized(p + "attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
        writer.dense(p + "ffn_gate_inp.weight", router(layer, skew))
        writer.quantized(p + "ffn_gate_exps.weight", EXPERTS, EXPERT_FFN, HIDDEN)
        writer.quantized(p + "ffn_up_exps.weight", EXPERTS, EXPERT_FFN, HIDDEN)
        writer.quantized(p + "ffn_down_exps.weight", EXPERTS, HIDDEN, EXPERT_FFN)
    writer.write()


def reroute(path: str, skew: float) -> None:
    """Replace the routers of a file that `write` made."""
    reader = gguf.GGUFReader(path, "r+")
    for tensor in reader.tensors:
        if tensor.name.endswith("ffn_gate_inp.weight"):
            tensor.data[:] = router(int(tensor.name.split(".")[1]), skew)
    reader.data.flush()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of Qwen3, plain or gzipped; needed to write")
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--skew", type=float, default=1.7)
    parser.add_argument("--reroute", action="store_true")
    arguments = parser.parse_args()
    if arguments.reroute:
        reroute(arguments.path, arguments.skew)
    elif arguments.tokenizer is None:
        parser.error("writing a file needs --tokenizer")
    else:
        write(arguments.path, arguments.tokenizer, arguments.layers, arguments.skew)


if __name__ == "__main__":
    main()
