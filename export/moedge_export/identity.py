"""What the bytes of a bundle follow from: of the whole bundle, to go on with it, and of each part, to take it over."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy
import onnx
import torch
from moedge_runtime import __version__
from moedge_runtime.bundle import Quantization

from moedge_export.checkpoint import Checkpoint
from moedge_export.journal import Identity
from moedge_export.options import ExportOptions, Form

GRAPH_PARTS = ("attention", "head", "vision")
PARTS_OF_FORM: dict[Form, tuple[str, ...]] = {
    "paged": ("embedding", "attention", "head", "vision", "experts"),
    "inline": ("embedding", "vision"),
}
"""Parts of the quantization that have files of their own; in an inline bundle the others share the model's."""

CHECKPOINT_FILES = ("config.json", "*.safetensors", "model.safetensors.index.json")


def export_identity(checkpoint: Checkpoint, options: ExportOptions, weights: str) -> Identity:
    """Names and values that must all be the same for an export to go on where another stopped.

    Args:
        checkpoint: What is exported.
        options: How.
        weights: `checkpoint.weights.fingerprint()`.
    """
    quantization = options.quantization()
    precisions = {name: _readable(getattr(quantization, name)) for name in Quantization.model_fields}
    # A fingerprint sees samples of the weights; times see every change of a file.
    files = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for pattern in CHECKPOINT_FILES
        for path in sorted(checkpoint.directory.glob(pattern))
    ]
    return {
        **_versions(),
        "checkpoint": checkpoint.name,
        "checkpoint's weights": weights,
        "checkpoint's config": _digest(asdict(checkpoint.architecture)),
        "checkpoint's files": _digest(files),
        "form": options.form,
        "activations": options.activations,
        **{f"precision of {name}": value for name, value in precisions.items()},
    }


def part_fingerprints(checkpoint: Checkpoint, options: ExportOptions, weights: str) -> dict[str, str]:
    """By part, what stays the same as long as the bytes of the part's files do; arguments as above."""
    quantization = options.quantization()
    return {
        part: _digest(
            {
                **_versions(),
                "part": part,
                "weights": weights,
                "architecture": asdict(checkpoint.architecture),
                "precision": getattr(quantization, part).model_dump(),
                "accuracy_level": options.accuracy_level if part in GRAPH_PARTS else None,
            }
        )
        for part in PARTS_OF_FORM[options.form]
    }


def differences(before: Identity, now: Identity) -> str:
    """What differs, with both values, for a person."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} (then {before.get(name)}, now {now.get(name)})" for name in names)


def _versions() -> dict[str, str]:
    return {
        "moedge": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "onnx": onnx.__version__,
    }


def _readable(precision: Any) -> str:
    if precision.bits == 32:
        return "fp32"
    kind = "symmetric" if precision.symmetric else "asymmetric"
    return f"int{precision.bits}, block size {precision.block_size}, {kind}"


def _digest(value: Any) -> str:
    content = json.dumps(value, sort_keys=True, default=lambda model: model.model_dump())
    return hashlib.sha256(content.encode()).hexdigest()[:16]
