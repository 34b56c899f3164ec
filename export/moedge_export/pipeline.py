"""From checkpoint to bundle: one layer, then one expert at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from moedge_runtime import __version__
from moedge_runtime.bundle import (
    BundleWriter,
    ExpertsInfo,
    Graphs,
    Manifest,
    ModelInfo,
    Quantization,
    SourceInfo,
)

from moedge_export.assets import write_assets
from moedge_export.checkpoint import Checkpoint, open_checkpoint
from moedge_export.decoder import build_head, build_layer
from moedge_export.embedding import write_embedding
from moedge_export.estimate import bundle_bytes, check_room
from moedge_export.experts import write_experts
from moedge_export.graph import GraphBuilder
from moedge_export.inline import InlineParts, build_inline
from moedge_export.options import ExportOptions, check_blocks
from moedge_export.part import PartBuilder
from moedge_export.quantizer import Quantizer
from moedge_export.vision import build_vision

PARTS = tuple(Quantization.model_fields)
VISION_NAME, HEAD_NAME, MODEL_NAME = "vision.onnx", "head.onnx", "model.onnx"


class Progress(Protocol):
    """Is told how far the export is; tqdm's bars fit."""

    def reset(self, total: float | None = None) -> None:
        """There are `total` steps to do."""

    def update(self, n: float | None = 1) -> object:
        """`n` more steps are done."""


def export_bundle(
    checkpoint: str | Path | Checkpoint, destination: Path, options: ExportOptions, progress: Progress | None = None
) -> Manifest:
    """Write the bundle `destination`.

    Args:
        checkpoint: Local directory, Hugging Face id, or one that is open already.
        destination: A directory that does not exist yet, unless `options.overwrite`.
        options: What the user chose.
        progress: Counts one step for every expert, layer and vision block.

    Raises:
        CheckpointError: The checkpoint cannot be exported.
        ConfigError: The options do not fit the checkpoint.
        StorageError: There is no room, or the disk fails; nothing is left behind.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = open_checkpoint(checkpoint, options.revision)
    architecture, quantization = checkpoint.architecture, options.quantization()
    check_blocks(quantization, architecture)
    check_room(destination, bundle_bytes(architecture, quantization, options.form))
    text = architecture.text
    if progress is not None:
        progress.reset(text.num_hidden_layers + len(text.moe_layers) * text.num_experts + architecture.vision.depth)
    with _quantizing_threads() as pool, BundleWriter(destination, overwrite=options.overwrite) as writer:
        export = _Export(
            checkpoint,
            writer.path,
            {name: Quantizer(getattr(quantization, name), options.accuracy_level, pool) for name in PARTS},
            progress,
        )
        tokens = write_assets(writer.path, checkpoint)
        embedding = write_embedding(writer.path, checkpoint, export.quantizers["embedding"])
        graphs, experts = export.write_paged() if options.form == "paged" else export.write_inline()
        source = SourceInfo(name=checkpoint.name, revision=checkpoint.revision, created_by=f"moedge {__version__}")
        manifest = Manifest(
            form=options.form,
            model=ModelInfo(
                architecture=architecture.name, source=source, text=text, vision=architecture.vision, tokens=tokens
            ),
            quantization=quantization,
            graphs=graphs,
            embedding=embedding,
            experts=experts,
            quality={name: each.tally.report() for name, each in export.quantizers.items() if each.tally.weights},
            files=writer.file_entries(),
        )
        writer.finish(manifest)
    return manifest


@dataclass(frozen=True)
class _Export:
    """Writes the graphs and experts of one bundle.

    Attributes:
        directory: The bundle in the making.
        quantizers: By part.
    """

    checkpoint: Checkpoint
    directory: Path
    quantizers: dict[str, Quantizer]
    progress: Progress | None

    def write_paged(self) -> tuple[Graphs, ExpertsInfo]:
        """A graph for every layer, the head's, the vision tower's, and experts.bin."""
        (self.directory / "layers").mkdir()
        count = self.checkpoint.architecture.text.num_hidden_layers
        digits = max(2, len(str(count - 1)))
        layers = [f"layers/{layer:0{digits}d}.onnx" for layer in range(count)]
        for layer, name in enumerate(layers):
            with self._graph(name) as graph:
                build_layer(self._part(graph, "attention"), layer)
            self._step()
        with self._graph(HEAD_NAME) as graph:
            build_head(self._part(graph, "head"))
        experts = write_experts(self.directory, self.checkpoint, self.quantizers["experts"], self._step)
        return Graphs(vision=self._write_vision(), layers=layers, head=HEAD_NAME), experts

    def write_inline(self) -> tuple[Graphs, None]:
        """The decoder as one graph, and the vision tower's."""
        with self._graph(MODEL_NAME) as graph:
            attention, head, experts = (self._part(graph, name) for name in ("attention", "head", "experts"))
            build_inline(InlineParts(attention, head, experts), self._step)
        return Graphs(vision=self._write_vision(), model=MODEL_NAME), None

    def _write_vision(self) -> str:
        with self._graph(VISION_NAME) as graph:
            build_vision(self._part(graph, "vision"), self._step)
        return VISION_NAME

    def _part(self, graph: GraphBuilder, name: str) -> PartBuilder:
        return PartBuilder(graph, self.checkpoint, self.quantizers[name])

    @contextmanager
    def _graph(self, name: str) -> Iterator[GraphBuilder]:
        graph = GraphBuilder(self.directory / name)
        yield graph
        graph.save()

    def _step(self) -> None:
        if self.progress is not None:
            self.progress.update()


@contextmanager
def _quantizing_threads() -> Iterator[ThreadPoolExecutor]:
    """A thread for every processor; torch's own threads, which would fight with them, rest meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # macOS has no affinity.
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with ThreadPoolExecutor(processors) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
