"""Prints the peak memory, in bytes, after exporting a small and then a large made-up model into directory argv[1]."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from export.random_checkpoint import config_of
from fixtures_checkpoint import save_tokenizer
from moedge_export.architecture import read_architecture
from moedge_export.checkpoint import Checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_export.tensors import EMBEDDING, HEAD, expected_tensors


class MadeUpWeights:
    """A `WeightSource` that needs no disk."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = shapes

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._shapes.get(name)

    def dtype(self, name: str) -> str:
        return "BF16"

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        shape = (stop - start, *self._shapes[name][1:])
        return torch.full(shape, 0.5, dtype=torch.bfloat16)

    def fingerprint(self) -> str:
        return "made up"


def export_made_up(directory: Path, layers: int, experts: int, vocabulary: int) -> int:
    """Export a model of this size; returns the process's peak memory so far."""
    folder = directory / f"checkpoint-{layers}"
    folder.mkdir()
    text = {
        "hidden_size": 256, "moe_intermediate_size": 256, "num_hidden_layers": layers, "num_experts": experts,
        "vocab_size": vocabulary,
    }  # fmt: skip
    config = config_of(save_tokenizer(folder), {"text": text, "vision": {"out_hidden_size": 256}})
    config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    architecture = read_architecture(config)
    shapes = expected_tensors(architecture)
    shapes[HEAD] = shapes[EMBEDDING]
    checkpoint = Checkpoint(folder, "made-up", None, architecture, MadeUpWeights(shapes))
    for form in ("paged", "inline"):
        export_bundle(checkpoint, directory / f"bundle-{layers}-{form}", ExportOptions(precision="int8", form=form))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    small = export_made_up(Path(sys.argv[1]), layers=2, experts=8, vocabulary=4_000)
    large = export_made_up(Path(sys.argv[1]), layers=6, experts=32, vocabulary=32_000)
    print(small, large)
