"""manifest.json: the typed description of a bundle, and nothing that touches a disk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT_VERSION: Literal[1] = 1
"""The version of the bundle format that this code writes; it reads 1 up to this."""

Bits = Literal[4, 8, 32]
BlockSize = Literal[32, 64, 128]
DENSE_BLOCK_SIZES_INT8: dict[str, BlockSize] = {"attention": 64, "head": 128, "vision": 128}
"""Of 8-bit weights in graphs, with a float32 scale a block, unless an export is told otherwise. ONNX Runtime multiplies
220 tokens 1.4 times and one token 1.2 times as fast at 128 as at 32, both 1.12 times at 64. The attention stays at 64,
where a token's bits do not depend in ONNX Runtime on how many are computed with it, as a prefix that is used again
needs (onnxruntime 1.32, AVX-512 VNNI, 2026-11-26; head and vision always see one token and one picture). What it does
to answers: docs/quality.md."""

Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Precision(_Frozen):
    """How the weights of one part are stored.

    `bits` 32 is plain float32. For 4 and 8 bits a weight row is cut into blocks of `block_size` along its input axis;
    a stored unsigned integer q means (q - zero_point) * scale, with one float16 scale a block and the zero point
    2**(bits - 1) when `symmetric`, else one a block.
    """

    bits: Bits
    block_size: BlockSize = 32
    symmetric: bool = True


class Quantization(_Frozen):
    """Precision by part. The router, all norms and all biases are always float32."""

    experts: Precision
    attention: Precision
    head: Precision
    embedding: Precision
    vision: Precision


class SourceInfo(_Frozen):
    """Where the weights came from."""

    name: str
    """Hugging Face id, or the name of the local directory."""
    revision: str | None = None
    """Commit of the Hugging Face repository; None for a local directory."""
    created_by: str
    """Program and version that wrote the bundle."""


class TextInfo(_Frozen):
    """The decoder's numbers, named as in the Hugging Face config."""

    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    vocab_size: Count
    num_experts: Count
    num_experts_per_tok: Count
    moe_intermediate_size: Count
    moe_layers: list[int]
    """Indices of the decoder layers that have experts, ascending; the others have a dense MLP in their graph."""
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    """Rotary frequencies that follow the temporal, height and width position, interleaved T H W T H W …"""
    max_position_embeddings: Count
    tie_word_embeddings: bool


class VisionInfo(_Frozen):
    """The vision tower's numbers, named as in the Hugging Face config."""

    depth: Count
    hidden_size: Count
    num_heads: Count
    patch_size: Count
    temporal_patch_size: Count
    spatial_merge_size: Count
    in_channels: Count
    out_hidden_size: Count
    num_position_embeddings: Count
    deepstack_visual_indexes: list[int]
    """Vision layers whose features are added after decoder layers 0, 1, 2, …: as many as this list is long."""


class TokenInfo(_Frozen):
    """Token ids that the runtime must know."""

    image: int
    video: int
    vision_start: int
    vision_end: int
    end_of_text: list[int]
    """Any of these ends an answer (generation_config's eos_token_id)."""
    think_start: int | None = None
    think_end: int | None = None
    """None for a checkpoint whose vocabulary has no `<think>`, `</think>`."""


class ModelInfo(_Frozen):
    """What the model is."""

    architecture: str
    """Class name from config.json's `architectures`."""
    source: SourceInfo
    text: TextInfo
    vision: VisionInfo
    tokens: TokenInfo


class SectionInfo(_Frozen):
    """One part of an expert's record: `nbytes` of data at `offset` bytes from the record's start."""

    name: Literal["fc1.weight", "fc1.scale", "fc1.zero_point", "fc2.weight", "fc2.scale", "fc2.zero_point"]
    offset: Annotated[int, Field(ge=0)]
    nbytes: Count


class ExpertsInfo(_Frozen):
    """experts.bin of a paged bundle: one record of `record_bytes` for every expert of every layer in `moe_layers`."""

    file: str
    record_bytes: Count
    sections: list[SectionInfo]
    crc32c: list[list[int]]
    """CRC-32C of every whole record, [position in moe_layers][expert]."""


class EmbeddingInfo(_Frozen):
    """embedding.bin: `vocab_size` rows of `row_bytes`, row i belonging to token i.

    A row holds the weights (float32, or unsigned integers, two a byte at 4 bits), then its scales (float16), then its
    zero points if the precision is not symmetric.
    """

    file: str
    row_bytes: Count


class Graphs(_Frozen):
    """ONNX files. A paged bundle has `layers` and `head`; an inline one has `model`."""

    vision: str
    layers: list[str] = []
    head: str | None = None
    model: str | None = None


class WeightPlace(_Frozen):
    """Where a weight of a graph lies, for those who do not want to read ONNX: its values, row by row, little-endian."""

    name: str
    """As in the graph, e.g. `self_attn/qkv_proj.weight`."""
    file: str
    """The graph's `.data` file, or the graph itself if that holds its weights."""
    offset: Annotated[int, Field(ge=0)]
    """Of the first byte in `file`."""
    dtype: Literal["float32", "uint8"]
    shape: list[Count]


class VisionTowerInfo(_Frozen):
    """What the graph of the vision tower is made with and its weights do not say."""

    intermediate_size: Count
    gelu: Literal["none", "tanh"]
    """`approximate` of the blocks' GELU, as ONNX's operator has it. The mergers' is exact."""
    rope_theta: float
    deepstack_mergers: list[int]
    """Index into `deepstack_merger_list` for each of `deepstack_visual_indexes`."""


class FileEntry(_Frozen):
    """A file of the bundle other than manifest.json itself."""

    path: str
    """Relative to the bundle, with forward slashes."""
    nbytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PartReport(_Frozen):
    """What quantization did to one part: root mean square of the weight error, relative to that of the weights."""

    weights: Count
    """Number of weights."""
    nbytes: Count
    relative_error: float
    relative_error_absmax: float
    """The same for plain round-to-nearest with scales from each block's largest absolute value."""


class Manifest(_Frozen):
    """The whole of manifest.json."""

    format: Literal["moedge-bundle"] = "moedge-bundle"
    format_version: Literal[1] = FORMAT_VERSION
    form: Literal["paged", "inline"]
    model: ModelInfo
    quantization: Quantization
    graphs: Graphs
    embedding: EmbeddingInfo
    experts: ExpertsInfo | None = None
    """None in an inline bundle, whose experts are inside `graphs.model`."""
    quality: dict[str, PartReport] = {}
    """By part of `quantization`; parts kept in float32 are not listed."""
    parts: dict[str, str] = {}
    """By part of `quantization` that has files of its own: a fingerprint of everything that their bytes follow from
    (weights, architecture, precision, versions). An export may take over a part whose fingerprint is the same."""
    weights: dict[str, list[WeightPlace]] = {}
    """By graph of `graphs.layers`, `graphs.head` and, with a `vision_tower`, `graphs.vision`: all of its weights. Empty
    in an inline bundle, in one of earlier versions, and where the graphs are to compute with float activations on
    quantized weights."""
    vision_tower: VisionTowerInfo | None = None
    """None where `weights` does not have the vision tower's."""
    files: list[FileEntry]

    @model_validator(mode="after")
    def _form_has_its_parts(self) -> Manifest:
        if self.form == "paged":
            complete = self.experts is not None and self.graphs.head is not None and self.graphs.model is None
            complete = complete and len(self.graphs.layers) == self.model.text.num_hidden_layers
        else:
            complete = self.experts is None and self.graphs.model is not None and not self.graphs.layers
        if not complete:
            raise ValueError(f"graphs and experts do not fit the form '{self.form}'")
        return self

    @model_validator(mode="after")
    def _vision_tower_has_its_weights(self) -> Manifest:
        if (self.vision_tower is not None) != (self.graphs.vision in self.weights):
            raise ValueError("vision_tower and the vision tower's weights go together")
        return self

    @model_validator(mode="after")
    def _rows_of_four_bits_are_whole_bytes(self) -> Manifest:
        text = self.model.text
        for name, inputs in (("hidden_size", text.hidden_size), ("moe_intermediate_size", text.moe_intermediate_size)):
            if self.quantization.experts.bits == 4 and inputs % 2:
                raise ValueError(f"{name} is {inputs}; with experts of 4 bits it must be even")
        return self
