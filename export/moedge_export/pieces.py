"""Makes a bundle piece by piece; each one is on the disk and in the journal before the next one counts.

The pieces are `embedding`, `attention/N` for each decoder layer, `head`, `vision` and `experts/N` for each layer with
experts; in an inline bundle `embedding`, `vision` and `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from moedge_runtime.bundle import BundleWriter, ExpertsInfo, Quantization
from moedge_runtime.bundle.manifest import FileEntry, PartReport
from moedge_runtime.bundle.verify import sha256_of
from moedge_runtime.counted import counted
from moedge_runtime.durable import sync_path

from moedge_export.checkpoint import Checkpoint
from moedge_export.decoder import build_head, build_layer
from moedge_export.embedding import EMBEDDING_NAME, write_embedding
from moedge_export.experts import ExpertRecord, expert_layout, expert_record
from moedge_export.experts_file import EXPERTS_NAME, ExpertsFile
from moedge_export.graph import GraphBuilder
from moedge_export.inline import InlineParts, build_inline
from moedge_export.journal import Finished, Journal
from moedge_export.part import PartBuilder
from moedge_export.quantizer import Quantizer, Tally
from moedge_export.reuse import Donor
from moedge_export.vision import build_vision

VISION_NAME, HEAD_NAME, MODEL_NAME = "vision.onnx", "head.onnx", "model.onnx"


@dataclass(frozen=True)
class Pieces:
    """The pieces of one bundle in the making.

    Attributes:
        checkpoint: What is exported.
        writer: Of the bundle.
        journal: In the writer's workspace.
        quantization: Precision by part.
        accuracy_level: Of quantized operators.
        pool: Threads to quantize with.
        donor: Its parts are taken over instead of made.
    """

    checkpoint: Checkpoint
    writer: BundleWriter
    journal: Journal
    quantization: Quantization
    accuracy_level: int
    pool: ThreadPoolExecutor
    donor: Donor | None = None

    @property
    def layer_files(self) -> list[str]:
        """The graph of each decoder layer, relative to the bundle."""
        count = self.checkpoint.architecture.text.num_hidden_layers
        digits = max(2, len(str(count - 1)))
        return [f"layers/{layer:0{digits}d}.onnx" for layer in range(count)]

    def names(self, part: str) -> list[str]:
        """The pieces of a part of the quantization, in the order in which their tallies are added up."""
        text = self.checkpoint.architecture.text
        if part == "attention":
            return [f"attention/{layer}" for layer in range(text.num_hidden_layers)]
        return [f"experts/{layer}" for layer in text.moe_layers] if part == "experts" else [part]

    def intact(self, recorded: Iterable[Finished], experts: ExpertsFile | None) -> list[Finished]:
        """Those of the recorded pieces whose bytes on the disk are the ones that were written; reads them all."""
        moe_layers = self.checkpoint.architecture.text.moe_layers
        positions = {f"experts/{layer}": position for position, layer in enumerate(moe_layers)}
        kept = []
        recorded = [piece for piece in recorded if not self.is_taken(piece.piece)]
        for piece in sorted(recorded, key=lambda piece: positions.get(piece.piece, -1)):
            if piece.crc32c:
                good = experts is not None and experts.is_intact(positions[piece.piece], piece.crc32c)
            else:
                good = all(_is_intact(self.writer.path, entry) for entry in piece.files)
            if good:
                kept.append(piece)
        return kept

    def write_embedding(self) -> None:
        """embedding.bin."""
        if not self._is_finished("embedding"):
            quantizer = self._quantizer("embedding")
            write_embedding(self.writer.path, self.checkpoint, quantizer)
            self._finish("embedding", [EMBEDDING_NAME], {"embedding": quantizer.tally})

    def write_layers(self) -> None:
        """The graph of every decoder layer."""
        (self.writer.path / "layers").mkdir(exist_ok=True)
        for layer, name in enumerate(self.layer_files):
            self._write_graph(f"attention/{layer}", name, lambda part, layer=layer: build_layer(part, layer))  # type: ignore[misc]

    def write_head(self) -> None:
        """head.onnx."""
        self._write_graph("head", HEAD_NAME, build_head)

    def write_vision(self) -> None:
        """vision.onnx."""
        self._write_graph("vision", VISION_NAME, build_vision)

    def write_model(self) -> None:
        """model.onnx of an inline bundle: one piece."""
        if self._is_finished("model"):
            return
        graph = GraphBuilder(self.writer.path / MODEL_NAME)
        quantizers = {name: self._quantizer(name) for name in ("attention", "head", "experts")}
        build_inline(InlineParts(*(PartBuilder(graph, self.checkpoint, each) for each in quantizers.values())))
        graph.save()
        self._finish("model", _graph_files(MODEL_NAME), {name: each.tally for name, each in quantizers.items()})

    def write_experts(self, file: ExpertsFile) -> None:
        """The layers of experts.bin that are missing, one expert at a time."""
        text = self.checkpoint.architecture.text
        missing = [place for place in enumerate(text.moe_layers) if not self._is_finished(f"experts/{place[1]}")]
        quantizer = self._quantizer("experts")

        def made(item: tuple[tuple[int, int], int]) -> ExpertRecord:
            return expert_record(self.checkpoint, quantizer, item[0][1], item[1])

        checksums: list[int] = []
        counter = quantizer
        for ((position, layer), expert), result in quantizer.in_order(made, product(missing, range(text.num_experts))):
            if expert == 0:
                checksums, counter = [], self._quantizer("experts")
            file.write(position, expert, result.record)
            checksums.append(result.crc32c)
            result.encoded.count(counter)
            if expert == text.num_experts - 1:
                file.flush()
                self._record(Finished(piece=f"experts/{layer}", crc32c=checksums, tallies={"experts": counter.tally}))

    def open_experts(self) -> ExpertsFile:
        """experts.bin, made if it is not there."""
        layout = expert_layout(self.checkpoint, self._quantizer("experts"))
        text = self.checkpoint.architecture.text
        return ExpertsFile(self.writer.path / EXPERTS_NAME, layout.record_bytes, text.num_experts)

    def experts_info(self) -> ExpertsInfo | None:
        """The manifest's entry of a complete experts.bin."""
        if self.donor and "experts" in self.donor.parts:
            return self.donor.bundle.manifest.experts
        layout = expert_layout(self.checkpoint, self._quantizer("experts"))
        checksums = [self.journal.finished[name].crc32c for name in self.names("experts")]
        return ExpertsInfo(
            file=EXPERTS_NAME, record_bytes=layout.record_bytes, sections=layout.section_infos(), crc32c=checksums
        )

    def file_entries(self) -> dict[str, FileEntry]:
        """By path, the files of all finished pieces but experts.bin."""
        return {entry.path: entry for piece in self.journal.finished.values() for entry in piece.files}

    def report(self, part: str) -> PartReport | None:
        """The manifest's quality entry of a part; None if its weights were not quantized."""
        if self.donor and part in self.donor.parts:
            return self.donor.bundle.manifest.quality.get(part)
        total = Tally()
        for name in [*self.names(part), "model"]:
            if name in self.journal.finished and part in self.journal.finished[name].tallies:
                total.add(self.journal.finished[name].tallies[part])
        return total.report() if total.weights else None

    def _write_graph(self, piece: str, name: str, build: Callable[[PartBuilder], None]) -> None:
        if self._is_finished(piece):
            return
        part = piece.partition("/")[0]
        graph, quantizer = GraphBuilder(self.writer.path / name), self._quantizer(part)
        build(PartBuilder(graph, self.checkpoint, quantizer))
        graph.save()
        self._finish(piece, _graph_files(name), {part: quantizer.tally})

    def _quantizer(self, part: str) -> Quantizer:
        return Quantizer(getattr(self.quantization, part), self.accuracy_level, self.pool)

    def is_taken(self, piece: str) -> bool:
        """Whether a piece belongs to a part that is taken over."""
        return self.donor is not None and piece.partition("/")[0] in self.donor.parts

    def _is_finished(self, piece: str) -> bool:
        return self.is_taken(piece) or piece in self.journal.finished

    def _finish(self, piece: str, names: list[str], tallies: dict[str, Tally]) -> None:
        entries = []
        for path in (self.writer.path / name for name in names):
            if path.exists():
                sync_path(path)
                relative = path.relative_to(self.writer.path).as_posix()
                entries.append(FileEntry(path=relative, nbytes=path.stat().st_size, sha256=sha256_of(path)))
        sync_path((self.writer.path / names[0]).parent)
        self._record(Finished(piece=piece, files=entries, tallies=tallies))

    def _record(self, piece: Finished) -> None:
        self.journal.append(piece)
        self.writer.kept = self.kept()

    def kept(self) -> str | None:
        """What an interrupted export leaves, for the user; None if no piece is finished."""
        if not self.journal.finished:
            return None
        return (
            f"'{self.writer.workspace}' holds {counted(len(self.journal.finished), 'finished piece')}: run the same "
            f"command again to go on, or delete that directory."
        )


def _graph_files(name: str) -> list[str]:
    return [name, f"{name}.data"]


def _is_intact(directory: Path, entry: FileEntry) -> bool:
    path = directory / entry.path
    return path.is_file() and path.stat().st_size == entry.nbytes and sha256_of(path) == entry.sha256
