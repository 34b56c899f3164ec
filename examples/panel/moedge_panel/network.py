"""A fast training forward through the weights of Qwen3VLMoeForConditionalGeneration, equal to transformers' own.

All images of a batch have one size, so vision attention runs without splitting; padding never reaches the experts;
the two equal frames of a temporal patch are multiplied once; the output head runs on answer tokens only.
tests/panel/test_network.py compares it with transformers 5.23.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3VLMoeForConditionalGeneration
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from moedge_panel.model_config import MERGE, PATCH

ROWS = 64
"""Rows of every product are padded to multiples of this: oneDNN compiles a kernel for each new shape (about 1 ms)."""


@dataclass
class VisionFeatures:
    """Output of the vision tower.

    Attributes:
        tokens: [images, merged tokens, text hidden].
        deepstack: One tensor of the same shape per DeepStack tap.
    """

    tokens: Tensor
    deepstack: list[Tensor]


def patchify(images: Tensor) -> Tensor:
    """Normalises and cuts images into patches in merge-block order, without the doubled frame.

    Args:
        images: uint8 [images, height, width, 3].

    Returns:
        float32 [images, patches, 3 × 16 × 16], values −1 to 1.
    """
    count, height, width, _ = images.shape
    pixels = images.float().mul_(2 / 255).sub_(1)
    block = MERGE * PATCH
    pixels = pixels.view(count, height // block, MERGE, PATCH, width // block, MERGE, PATCH, 3)
    return pixels.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(count, -1, 3 * PATCH * PATCH)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention over [batch, heads, tokens, head dim]; written out because it is fastest in bfloat16 on one thread."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if bias is not None:
        scores = scores + bias
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def _rms(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps).to(x.dtype) * weight.to(x.dtype)


def _merge(merger: Any, x: Tensor) -> Tensor:
    width = merger.hidden_size
    x = merger.norm(x.reshape(-1, width) if merger.use_postshuffle_norm else x).reshape(-1, width)
    merged: Tensor = merger.linear_fc2(F.gelu(merger.linear_fc1(x)))
    return merged


class VisionPath:
    """The vision tower on batches of equal size, with positions cached per size."""

    def __init__(self, model: Qwen3VLMoeForConditionalGeneration) -> None:
        self.visual = model.model.visual
        self._positions: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def _grid(self, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if (rows, columns) not in self._positions:
            grid = torch.tensor([[1, rows, columns]])
            index, weight = get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=self.visual.num_grid_per_side,
                mode=self.visual.interpolation_mode,
                align_corners=self.visual.interpolation_align_corners,
                spatial_merge_size=MERGE,
            )
            cos, sin = self.visual.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(grid, MERGE))
            self._positions[rows, columns] = (index, weight, cos, sin)
        return self._positions[rows, columns]

    def __call__(self, images: Tensor) -> VisionFeatures:
        """Encodes uint8 images [images, height, width, 3] whose sides are multiples of 32."""
        count, height, width, _ = images.shape
        index, weight, cos, sin = self._grid(height // PATCH, width // PATCH)
        projection = self.visual.patch_embed.proj
        # [out, 3, 2, 16, 16]: both frames are the same picture, so their weights add up.
        kernel = projection.weight.sum(2).reshape(projection.weight.shape[0], -1)
        x = F.linear(patchify(images), kernel, projection.bias).float()
        x = x + (self.visual.pos_embed(index) * weight[:, :, None]).sum(1)
        cos, sin = cos.to(torch.bfloat16), sin.to(torch.bfloat16)
        if not torch.is_autocast_enabled("cpu"):
            cos, sin = cos.float(), sin.float()
        deepstack: list[Tensor] = []
        taps = list(self.visual.deepstack_visual_indexes)
        for layer, block in enumerate(self.visual.blocks):
            qkv = block.attn.qkv(block.norm1(x)).view(count, x.shape[1], 3, block.attn.num_heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            mixed = _attend(_rotate(q, cos, sin), _rotate(k, cos, sin), v, None)
            x = x + block.attn.proj(mixed.transpose(1, 2).reshape(x.shape))
            x = x + block.mlp.linear_fc2(F.gelu(block.mlp.linear_fc1(block.norm2(x)), approximate="tanh"))
            if layer in taps:
                merged = _merge(self.visual.deepstack_merger_list[taps.index(layer)], x)
                deepstack.append(merged.view(count, -1, merged.shape[-1]))
        merged = _merge(self.visual.merger, x)
        return VisionFeatures(merged.view(count, -1, merged.shape[-1]), deepstack)


def _experts(mlp: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Routes [tokens, hidden] through the top experts; also returns the load-balancing loss of this layer."""
    gate = mlp.gate
    logits = F.linear(x.float(), gate.weight).float()
    probabilities = torch.softmax(logits, dim=-1)
    top, chosen = torch.topk(probabilities, gate.top_k, dim=-1)
    top = top / top.sum(-1, keepdim=True)
    flat = chosen.flatten()
    counts = torch.bincount(flat, minlength=gate.num_experts)
    balance = gate.num_experts * (counts / flat.numel() * gate.top_k * probabilities.mean(0)).sum()
    padded = (counts + ROWS - 1) // ROWS * ROWS
    starts = padded.cumsum(0) - padded
    order = torch.argsort(flat, stable=True)
    ranks = torch.arange(flat.numel()) - (counts.cumsum(0) - counts)[flat[order]]
    slots = torch.empty_like(flat)
    slots[order] = starts[flat[order]] + ranks
    source = torch.zeros(int(padded.sum()), dtype=torch.long)
    source[slots] = torch.arange(flat.numel()) // gate.top_k
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
    sorted_x = x.to(dtype).index_select(0, source)
    gate_up, down = mlp.experts.gate_up_proj.to(dtype), mlp.experts.down_proj.to(dtype)
    outputs = []
    for expert, part in enumerate(torch.split(sorted_x, padded.tolist())):
        g, u = torch.mm(part, gate_up[expert].t()).chunk(2, dim=-1)
        outputs.append(torch.mm(F.silu(g) * u, down[expert].t()))
    y = torch.cat(outputs).index_select(0, slots).view(x.shape[0], gate.top_k, -1)
    return (y * top.to(dtype).unsqueeze(-1)).sum(1), balance


@dataclass
class Group:
    """Sequences of similar length whose attention is computed together.

    Attributes:
        gather: [sequences × longest] index of each place's token in the packed tokens (0 for padding).
        back: Index of each packed token of the group among the places.
        sequences: Number of sequences.
    """

    gather: Tensor
    back: Tensor
    sequences: int


def text_logits(  # noqa: PLR0917
    model: Qwen3VLMoeForConditionalGeneration,
    ids: Tensor,
    positions: Tensor,
    groups: list[Group],
    wanted: Tensor,
    features: VisionFeatures,
    image_of: Tensor,
) -> tuple[Tensor, Tensor]:
    """Logits at the wanted places of packed sequences, one image each.

    Args:
        model: The model whose weights are used.
        ids: Token ids [tokens] of all sequences one after the other, then padding in no group; image tokens are
            `config.image_token_id`.
        positions: MRoPE positions [3, tokens].
        groups: Which tokens attend to each other; in the order of the packed tokens.
        wanted: Indices of the tokens whose logits are needed.
        features: Vision features of the images.
        image_of: Index of each sequence's image.

    Returns:
        Logits [wanted, vocabulary] and the mean load-balancing loss of the layers.
    """
    text = model.model.language_model
    tokens = ids.shape[0]
    places = (ids == model.config.image_token_id).nonzero().squeeze(1)
    x = text.embed_tokens(ids).float().index_copy(0, places, features.tokens.float()[image_of].flatten(0, 1))
    stacks = [f.float()[image_of].flatten(0, 1) for f in features.deepstack]
    cos, sin = text.rotary_emb(x, positions[:, None])
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
    cos, sin = cos[0].to(dtype)[:, None], sin[0].to(dtype)[:, None]
    longest = max(group.gather.numel() // group.sequences for group in groups)
    causal = torch.full((longest, longest), float("-inf"), dtype=dtype).triu(1)
    balances = []
    for number, layer in enumerate(text.layers):
        attn = layer.self_attn
        h = _rms(x, layer.input_layernorm.weight).to(dtype)
        q = _rms(attn.q_proj(h).view(tokens, -1, attn.head_dim), attn.q_norm.weight)
        k = _rms(attn.k_proj(h).view(tokens, -1, attn.head_dim), attn.k_norm.weight)
        q, k, v = _rotate(q, cos, sin), _rotate(k, cos, sin), attn.v_proj(h).view(k.shape)
        kinds = torch.cat((q, k, v), dim=1)
        heads, key_heads = q.shape[1], k.shape[1]
        mixed = []
        for group in groups:
            size = (group.sequences, -1, heads + 2 * key_heads, attn.head_dim)
            part = kinds.index_select(0, group.gather).view(size).transpose(1, 2)
            length = part.shape[2]
            q, k, v = torch.split(part, [heads, key_heads, key_heads], dim=1)
            # Query heads of one key head are stacked along the tokens: no repeated keys and values.
            q = q.reshape(group.sequences, key_heads, -1, attn.head_dim)
            mask = causal[:length, :length].repeat(attn.num_key_value_groups, 1)
            y = _attend(q, k, v, mask).view(group.sequences, heads, length, -1).transpose(1, 2)
            mixed.append(y.reshape(group.gather.numel(), -1).index_select(0, group.back))
        mixed.append(mixed[0].new_zeros(tokens - sum(y.shape[0] for y in mixed), mixed[0].shape[1]))
        x = x + attn.o_proj(torch.cat(mixed))
        last = number == len(text.layers) - 1
        if last:
            x = x.index_select(0, wanted)
        moe, balance = _experts(layer.mlp, _rms(x, layer.post_attention_layernorm.weight))
        balances.append(balance)
        x = x + moe
        if number < len(stacks) and not last:
            x = x.index_add(0, places, stacks[number])
    return model.lm_head(_rms(x, text.norm.weight)).float(), torch.stack(balances).mean()
