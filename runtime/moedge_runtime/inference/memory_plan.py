"""How much memory each part of a paged model gets: from its manifest and one number, before anything is loaded.

Nothing here looks at the machine. Where a size was measured, the constant says so; docs/memory.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from moedge_runtime.bundle import Manifest, Precision, VisionTowerInfo
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.dense_sizes import DenseShape, dense_buffer_bytes, dense_weight_bytes
from moedge_runtime.inference.layer_call import PIECE_TOKENS
from moedge_runtime.inference.prefix_store import PREFIX_TOKENS
from moedge_runtime.inference.vision_sizes import (
    patch_values,
    vision_buffer_bytes,
    vision_patch_bytes,
    vision_read_bytes,
    vision_weight_bytes,
)

MIB = 1 << 20

PROCESS_BYTES = 128 * MIB
"""Interpreter, libraries and their data, with the daemon and a video: 37 MiB of its own and 67 MiB of mapped files."""

TOKENIZER_BYTES = 1_500
"""For each token of the vocabulary: tokenizer and JSON grammar take 205 MiB for 151,936."""

SESSION_BYTES = MIB // 2
"""Of each graph, besides its weights."""

FREE_BYTES = 64 * MIB
FREE_SHARE = 64
"""What stays free, `FREE_BYTES` and a `FREE_SHARE`th of all: page tables, what the allocators have not given back."""

PATCH_VALUES = 26
"""float32 values in memory for each patch and channel of the vision tower while ONNX Runtime encodes a picture."""

CORE_BYTES = 64 * MIB
"""At most what the expert core allocates besides records, for 4,096 tokens a call at a hidden size of 2,048."""

MOST_THREADS = 64
"""For which the native layers' buffers are planned; the core computes with no more."""

LEAST_CONTEXT = 256
"""A refusal does not advise fewer tokens than these."""

LEAST_RING = 2
"""Places that the core needs besides those for the experts of one token."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part; together at most `total`.

    Attributes:
        total: What the process may take.
        process: Interpreter, libraries, tokenizer, grammar.
        layers: Weights of the decoder's dense layers, as the native core or ONNX Runtime holds them.
        head: Of the head.
        vision: Of the vision tower, likewise; in memory all the time if `vision_resident`, else of what is in memory
            while a picture is encoded.
        kv_cache: Keys and values of `max_context` tokens, and of the texts before the picture of some questions.
        buffers: What a prompt of `max_context` tokens is computed in; a picture is encoded in the same memory, and a
            larger one in that of experts, which then make room.
        free: Stays free.
        experts: Budget of the expert bank.
        least_experts: With less it cannot work.
        all_experts: With so much every expert stays in memory.
        vision_resident: False if the weights of the vision tower are loaded for every picture, since the experts need
            their memory more.
        native_vision: Whether the native core computes it; weights that are not resident then come block by block,
            while what is before a block is computed.
        max_context: Tokens of prompt and answer.
        max_pixels: Largest area of a picture that memory and context can hold.
        pixels_limited: Whether it is memory that a larger picture lacks.
        patch_bytes: Memory for each patch of a picture while it is encoded.
        patch_pixels: Area of a patch.
    """

    total: int
    process: int
    layers: int
    head: int
    vision: int
    kv_cache: int
    buffers: int
    free: int
    experts: int
    least_experts: int
    all_experts: int
    vision_resident: bool
    native_vision: bool
    max_context: int
    max_pixels: int
    pixels_limited: bool
    patch_bytes: int
    patch_pixels: int

    @property
    def most_patches(self) -> int:
        """Patches of pictures that can be encoded at once, with no more experts than must be."""
        return (self._beside_vision - min(self.least_experts, self.experts)) // self.patch_bytes

    def experts_beside(self, patches: int, held_bytes: int = 0) -> int:
        """Bytes that the experts may have while `patches`, `most_patches` or fewer, are encoded beside what is held."""
        return min(self.experts, self._beside_vision - patches * self.patch_bytes - held_bytes)

    @property
    def _beside_vision(self) -> int:
        return self.total - self.process - self.layers - self.head - self.kv_cache - self.free - self.vision

    def parts(self) -> dict[str, int]:
        """What adds up, by name, while a prompt is computed; experts last."""
        return {
            "process": self.process,
            "layers": self.layers,
            "head": self.head,
            **({"vision": self.vision} if self.vision_resident else {}),
            "KV cache": self.kv_cache,
            "buffers": self.buffers,
            "free": self.free,
            "experts": self.experts,
        }

    def line(self) -> str:
        """The plan in one line, in GiB."""
        parts = ", ".join(f"{name} {_gib(nbytes)}" for name, nbytes in self.parts().items())
        return f"memory {_gib(self.total)} GiB: {parts} {self._notes()}"

    def table(self) -> list[str]:
        """The plan in lines, in GiB."""
        lines = [f"{'memory':<10} {'GiB':>8}"]
        lines += [f"{name:<10} {_gib(nbytes):>8}" for name, nbytes in self.parts().items()]
        return [*lines, f"{'of':<10} {_gib(self.total):>8}", self._notes()]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types, in bytes."""
        return {
            "memory_bytes": self.total,
            "parts": self.parts(),
            "expert_share": self.expert_share,
            "vision_resident": self.vision_resident,
            "max_context": self.max_context,
            "max_pixels": self.max_pixels,
        }

    @property
    def expert_share(self) -> float:
        """Of all experts those that fit, 1 at most."""
        return min(1.0, self.experts / self.all_experts)

    def _notes(self) -> str:
        notes = [f"{self.expert_share:.0%} of all experts", f"context {self.max_context:,} tokens"]
        limit = ", the limit of this memory" if self.pixels_limited else ""
        notes.append(f"pictures up to {self.max_pixels / 1e6:.3g} megapixels{limit}")
        if not self.vision_resident:
            notes.append(f"vision tower ({_gib(self.vision)}) loaded for each picture")
        return f"({'; '.join(notes)})"


def plan_memory(
    manifest: Manifest,
    total: int,
    *,
    max_context: int,
    wanted_pixels: int,
    max_pixels: int | None = None,
    experts: int | None = None,
    dense: DenseShape | None = None,
    tower: VisionTowerInfo | None = None,
) -> MemoryPlan:
    """Divide `total` bytes.

    Args:
        manifest: Of a paged bundle.
        total: What the process may take.
        max_context: Tokens of prompt and answer.
        wanted_pixels: Largest area of a picture that the checkpoint allows.
        max_pixels: What the user allows instead; is not lowered.
        experts: Bytes for the experts instead of all that the other parts leave.
        dense: Of the dense layers, if the native core computes them; None if ONNX Runtime does.
        tower: Likewise of the vision tower.

    Raises:
        ConfigError: It does not fit; with the bytes of every part and what would make it fit.
    """
    sizes = _Sizes.of(manifest, max_context, dense, tower)
    free = FREE_BYTES + total // FREE_SHARE
    beside = total - free - sizes.process - sizes.layers - sizes.head - sizes.kv_cache
    least = sizes.least_experts if experts is None else experts
    encoding = sizes.vision_in_turn + sizes.least_patches * sizes.patch_bytes + min(least, sizes.least_experts)
    room = beside - sizes.buffers
    enough = min(sizes.one_token, sizes.all_experts) if experts is None else experts
    resident = room - sizes.vision >= enough
    if resident:
        room -= sizes.vision
    plan = MemoryPlan(
        total=total,
        process=sizes.process,
        layers=sizes.layers,
        head=sizes.head,
        vision=sizes.vision if resident else sizes.vision_in_turn,
        kv_cache=sizes.kv_cache,
        buffers=sizes.buffers,
        free=free,
        experts=min(room, sizes.all_experts) if experts is None else experts,
        least_experts=sizes.least_experts,
        all_experts=sizes.all_experts,
        vision_resident=resident,
        native_vision=tower is not None,
        max_context=max_context,
        max_pixels=min(max_pixels or wanted_pixels, max_context * sizes.least_patches * sizes.patch_pixels),
        pixels_limited=False,
        patch_bytes=sizes.patch_bytes,
        patch_pixels=sizes.patch_pixels,
    )
    if beside < max(sizes.buffers + least, encoding):
        raise _too_small(plan, least, max(sizes.buffers + least, encoding) - beside)
    possible = plan.most_patches * sizes.patch_pixels
    if plan.max_pixels <= possible:
        return plan
    if max_pixels is not None:
        raise _picture_too_large(plan, possible)
    return replace(plan, max_pixels=possible, pixels_limited=True)


@dataclass(frozen=True)
class _Sizes:
    """What the parts of a model take, whatever the total."""

    process: int
    layers: int
    head: int
    vision: int
    vision_in_turn: int
    kv_cache: int
    buffers: int
    patch_bytes: int
    patch_pixels: int
    least_patches: int
    least_experts: int
    one_token: int
    all_experts: int

    @classmethod
    def of(cls, manifest: Manifest, max_context: int, dense: DenseShape | None, info: VisionTowerInfo | None) -> _Sizes:
        text, tower, graphs = manifest.model.text, manifest.model.vision, manifest.graphs
        precision, experts = manifest.quantization, manifest.experts
        assert experts is not None and graphs.head is not None, "an inline bundle is in memory as a whole"
        record = experts.record_bytes
        attention = (text.num_attention_heads + 2 * text.num_key_value_heads) * text.head_dim
        if dense is None:
            layers = _loaded(manifest, graphs.layers, precision.attention)
            head = _loaded(manifest, [graphs.head], precision.head)
            piece_values = 4 * text.hidden_size + 3 * attention + 2 * text.num_attention_heads * text.head_dim
            piece_bytes = 4 * min(max_context, PIECE_TOKENS) * piece_values
        else:
            layers, head = dense_weight_bytes(manifest, dense)
            piece_bytes = dense_buffer_bytes(manifest, dense, max_context, MOST_THREADS)
        features = 1 + len(tower.deepstack_visual_indexes)
        token_values = (5 + features) * text.hidden_size + text.num_experts + text.head_dim
        if info is None:
            vision = vision_in_turn = _loaded(manifest, [graphs.vision], precision.vision)
            patch_bytes = 4 * PATCH_VALUES * tower.hidden_size
        else:
            size, threads_bytes = info.intermediate_size, vision_buffer_bytes(manifest, MOST_THREADS)
            vision = threads_bytes + vision_weight_bytes(manifest, size)
            vision_in_turn = threads_bytes + vision_weight_bytes(manifest, size, resident=False)
            vision_in_turn += vision_read_bytes(manifest, size)
            patch_bytes = vision_patch_bytes(manifest, info.intermediate_size)
        return cls(
            process=PROCESS_BYTES + TOKENIZER_BYTES * text.vocab_size,
            layers=layers,
            head=head,
            vision=vision,
            vision_in_turn=vision_in_turn,
            kv_cache=2
            * 4
            * text.num_hidden_layers
            * text.num_key_value_heads
            * text.head_dim
            * (max_context + PREFIX_TOKENS),
            buffers=4 * max_context * token_values + piece_bytes,
            patch_bytes=patch_bytes + 4 * patch_values(manifest),
            patch_pixels=tower.patch_size**2,
            least_patches=tower.spatial_merge_size**2,
            least_experts=(text.num_experts_per_tok + LEAST_RING) * record + CORE_BYTES,
            one_token=len(text.moe_layers) * text.num_experts_per_tok * record + CORE_BYTES,
            all_experts=len(text.moe_layers) * text.num_experts * record + CORE_BYTES,
        )


def _loaded(manifest: Manifest, graphs: Iterable[str], precision: Precision) -> int:
    """Bytes of graphs once ONNX Runtime has packed their weights.

    Source: onnxruntime 1.32, x86-64: MatMulNBits with accuracy_level 4 adds a float32 sum to the float32 scale of each
    block; float32 weights keep their size. The mapped file is let go.
    """
    graphs = set(graphs)
    stored = sum(entry.nbytes for entry in manifest.files if entry.path.removesuffix(".data") in graphs)
    if precision.bits != 32:
        weight, block_value = precision.bits / 8, 4 / precision.block_size
        stored = round(stored * (weight + 2 * block_value) / (weight + block_value))
    return stored + len(graphs) * SESSION_BYTES


def _too_small(plan: MemoryPlan, least_experts: int, missing: int) -> ConfigError:
    parts = plan.parts() | {"vision": plan.vision, "experts, at least": least_experts}
    del parts["experts"]
    listed = ", ".join(f"{name} {_mib(nbytes):,}" for name, nbytes in parts.items())
    token_bytes = plan.kv_cache // (plan.max_context + PREFIX_TOKENS)
    fewer = plan.max_context - -(-missing // token_bytes)
    shorter = f", or at most {fewer:,} tokens with --max-context (model.max_context)" if fewer >= LEAST_CONTEXT else ""
    needed = plan.total + -(-missing * FREE_SHARE // (FREE_SHARE - 1))  # of more memory, more stays free
    return ConfigError(
        f"memory={_mib(plan.total):,} MiB is too small for this model. Its parts take, in MiB: {listed}. Give at least "
        f"{_mib(needed)}M with --memory (model.memory){shorter}.",
        key="memory.too_small",
    )


def _picture_too_large(plan: MemoryPlan, possible: int) -> ConfigError:
    more = -(-(plan.max_pixels - possible) // plan.patch_pixels) * plan.patch_bytes
    needed = plan.total + -(-more * FREE_SHARE // (FREE_SHARE - 1))
    encoding = plan.max_pixels // plan.patch_pixels * plan.patch_bytes
    return ConfigError(
        f"max_pixels={plan.max_pixels:,} is not possible with memory={_mib(plan.total):,} MiB: encoding a picture of "
        f"that area takes {_mib(encoding):,} MiB besides the vision tower. Set at most {possible:,}, or give "
        f"{_mib(needed)}M with --memory (model.memory).",
        key="memory.picture_too_large",
    )


def _gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.2f}"


def _mib(nbytes: int) -> int:
    return -(-nbytes // MIB)
