"""Asks an inline bundle about a picture with nothing but ONNX Runtime, numpy, Pillow and a tokenizer.

    python stock_onnxruntime.py BUNDLE picture.png "What is the reading?"

docs/bundle-format.md describes every input and file used here. Two things are left out: resizing (the picture's sides
must be multiples of patch size × merge size) and quantized embeddings other than symmetric 8 bits and float32.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image
from tokenizers import Tokenizer

MAX_NEW_TOKENS = 96


def patches(picture: np.ndarray, vision: dict) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W, 3] as `pixel_values` float32 [P, channels·temporal·patch·patch] and `grid_thw` int64 [3]."""
    patch, merge, temporal = vision["patch_size"], vision["spatial_merge_size"], vision["temporal_patch_size"]
    rows, columns = picture.shape[0] // patch, picture.shape[1] // patch
    pixels = (picture.astype(np.float32) / 255 - 0.5) / 0.5
    blocks = pixels.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
    blocks = blocks.transpose(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, :, None]  # a picture is its own temporal neighbour
    blocks = np.repeat(blocks, temporal, axis=5)
    return blocks.reshape(rows * columns, -1), np.array([1, rows, columns], np.int64)


def embed(bundle: Path, manifest: dict, tokens: list[int]) -> np.ndarray:
    """Rows of embedding.bin, float32 [tokens, hidden_size]."""
    precision, info = manifest["quantization"]["embedding"], manifest["embedding"]
    hidden = manifest["model"]["text"]["hidden_size"]
    rows = np.memmap(bundle / info["file"], np.uint8, "r").reshape(-1, info["row_bytes"])[tokens]
    if precision["bits"] == 32:
        return rows.view(np.float32)
    assert precision["bits"] == 8 and precision["symmetric"]
    weights = rows[:, :hidden].astype(np.float32) - 128
    scales = rows[:, hidden:].copy().view(np.float16).astype(np.float32)
    return weights * np.repeat(scales, precision["block_size"], axis=1)[:, :hidden]


def positions(tokens: list[int], image: int, grid: np.ndarray, merge: int) -> np.ndarray:
    """int64 [3, tokens]: text counts on, image tokens have row and column, text after them starts past the larger."""
    rows, columns = int(grid[1]) // merge, int(grid[2]) // merge
    result, following, seen = [], 0, 0
    for token in tokens:
        if token == image:
            result.append((following, following + seen // columns, following + seen % columns))
            seen += 1
            if seen == rows * columns:
                following, seen = following + max(rows, columns), 0
        else:
            result.append((following,) * 3)
            following += 1
    return np.array(result, np.int64).T


def answer(bundle: Path, picture: np.ndarray, question: str) -> str:
    """The greedy answer."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    model = manifest["model"]
    text, ids = model["text"], model["tokens"]
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    decoder = ort.InferenceSession(bundle / manifest["graphs"]["model"])
    vision = ort.InferenceSession(bundle / manifest["graphs"]["vision"])

    pixel_values, grid = patches(picture, model["vision"])
    features, taps = vision.run(
        ["image_features", "deepstack_features"], {"pixel_values": pixel_values, "grid_thw": grid}
    )
    tokens = tokenizer.encode(f"<|im_start|>user\n{question}", add_special_tokens=False).ids
    tokens += [ids["vision_start"], *[ids["image"]] * len(features), ids["vision_end"]]
    tokens += tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False).ids

    where = np.array(tokens) == ids["image"]
    embeds = embed(bundle, manifest, tokens)
    embeds[where] = features
    deepstack = np.zeros((len(taps), *embeds.shape), np.float32)
    deepstack[:, where] = taps
    position_ids = positions(tokens, ids["image"], grid, model["vision"]["spatial_merge_size"])

    empty = np.zeros((1, text["num_key_value_heads"], 0, text["head_dim"]), np.float32)
    cache = {f"past_{kind}.{i}": empty for i in range(text["num_hidden_layers"]) for kind in ("key", "value")}
    outputs = ["logits", *(name.replace("past", "present") for name in cache)]
    generated: list[int] = []
    while len(generated) < MAX_NEW_TOKENS:
        inputs = {
            "inputs_embeds": embeds[None],
            "deepstack": deepstack,
            "position_ids": position_ids,
            "attention_mask": np.ones((1, len(tokens) + len(generated)), np.int64),
            "logits_positions": np.array([embeds.shape[0] - 1], np.int64),
        }
        logits, *present = decoder.run(outputs, inputs | cache)
        cache = dict(zip(cache, present, strict=True))
        token = int(logits[0, 0].argmax())
        if token in ids["end_of_text"]:
            break
        generated.append(token)
        embeds = embed(bundle, manifest, [token])
        deepstack = np.zeros((len(taps), *embeds.shape), np.float32)
        position_ids = position_ids[:, -1:].max() + np.ones((3, 1), np.int64)
    return tokenizer.decode(generated)


if __name__ == "__main__":
    print(answer(Path(sys.argv[1]), np.asarray(Image.open(sys.argv[2]).convert("RGB")), sys.argv[3]))
