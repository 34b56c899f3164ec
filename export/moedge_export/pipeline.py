"""From checkpoint to bundle: one layer, then one expert at a time, going on where an earlier export stopped."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

from moedge_runtime import __version__
from moedge_runtime.bundle import (
    BundleWriter,
    EmbeddingInfo,
    Graphs,
    Manifest,
    ModelInfo,
    Quantization,
    SourceInfo,
)
from moedge_runtime.bundle.writer import check_destination, workspace_of
from moedge_runtime.counted import counted
from moedge_runtime.errors import CheckpointError, ConfigError

from moedge_export.assets import write_assets
from moedge_export.checkpoint import Checkpoint, config_architecture, open_checkpoint
from moedge_export.embedding import EMBEDDING_NAME
from moedge_export.estimate import bundle_bytes, check_memory, check_room, memory_bytes, own_bytes
from moedge_export.experts_file import EXPERTS_NAME, ExpertsFile
from moedge_export.identity import differences, export_identity, part_fingerprints
from moedge_export.journal import JOURNAL_NAME, Identity, Journal
from moedge_export.options import ExportOptions, check_blocks
from moedge_export.parallel import processors, quantizing_threads
from moedge_export.pieces import HEAD_NAME, MODEL_NAME, VISION_NAME, Pieces
from moedge_export.quantize_library import load_library
from moedge_export.reading import CountedWeights, input_bytes
from moedge_export.reuse import Donor
from moedge_export.weights import vision_tower_info, weight_places

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Is told how far the export is; tqdm's bars fit."""

    def reset(self, total: float | None = None) -> None:
        """There are `total` bytes to read."""

    def update(self, n: float | None = 1) -> object:
        """`n` more bytes are read."""


def export_bundle(
    checkpoint: str | Path | Checkpoint, destination: Path, options: ExportOptions, progress: Progress | None = None
) -> Manifest:
    """Write the bundle `destination`, or go on with it if an export with the same options was interrupted.

    Args:
        checkpoint: Local directory, Hugging Face id, or one that is open already.
        destination: A directory that does not exist yet, unless `options.overwrite`.
        options: What the user chose.
        progress: Counts the bytes read from the checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be exported; nothing is left behind.
        ConfigError: The options do not fit the checkpoint, the bundle to reuse, or what an earlier export left; or
            the quantizing kernel cannot be loaded.
        StorageError: There is no room, or the disk fails; finished pieces are kept.
    """
    check_destination(destination, overwrite=options.overwrite)
    quantization = options.quantization()
    if isinstance(checkpoint, Checkpoint):
        architecture = checkpoint.architecture
    else:
        architecture = config_architecture(checkpoint, options.revision)
    check_blocks(quantization, architecture)
    load_library()
    check_memory(memory_bytes(architecture, quantization, processors()))
    needed = bundle_bytes(architecture, quantization, options.form)
    if options.reuse is None:  # else what it takes over is known only with the weights
        check_room(destination, needed, own_bytes(workspace_of(destination)))
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = open_checkpoint(checkpoint, options.revision)
    weights = checkpoint.weights.fingerprint()
    fingerprints = part_fingerprints(checkpoint, options, weights)
    donor = Donor.open(options.reuse, fingerprints) if options.reuse else None
    if donor is not None:
        check_room(destination, needed, own_bytes(workspace_of(destination)) + donor.new_bytes(destination))
    if progress is not None:
        counted = CountedWeights(checkpoint.weights, progress.update)
        checkpoint = dataclasses.replace(checkpoint, weights=counted)
    writer = BundleWriter(destination, overwrite=options.overwrite, resume=not options.restart)
    with quantizing_threads() as pool, writer:
        journal = Journal(writer.workspace / JOURNAL_NAME)
        pieces = Pieces(checkpoint, writer, journal, quantization, options.accuracy_level, pool, donor)
        try:
            manifest = _Export(pieces, options, fingerprints).run(
                export_identity(checkpoint, options, weights), progress
            )
            writer.finish(manifest)
        except CheckpointError:
            writer.kept = None  # a better checkpoint is another one
            raise
        except OSError:
            raise  # the writer's message says what is kept
        except BaseException:
            if writer.kept:
                logger.warning("%s", writer.kept)
            raise
    return manifest


@dataclasses.dataclass(frozen=True)
class _Export:
    pieces: Pieces
    options: ExportOptions
    fingerprints: dict[str, str]

    def run(self, identity: Identity, progress: Progress | None) -> Manifest:
        """Make what is missing; returns the manifest of the complete bundle, which is not written yet."""
        pieces, writer = self.pieces, self.pieces.writer
        self._refuse_another(identity)
        taken = pieces.donor.take_over(writer.path) if pieces.donor else {}
        makes_experts = self.options.form == "paged" and EXPERTS_NAME not in taken
        with pieces.open_experts() if makes_experts else nullcontext() as experts:
            self._keep_what_is_intact(identity, experts, set(taken))
            if progress is not None:
                progress.reset(total=self._bytes_to_read())
            tokens = write_assets(writer.path, pieces.checkpoint)
            graphs = self._write(experts)
            with_places = self._graphs_with_places(graphs)
            entries = pieces.file_entries() | taken | ({EXPERTS_NAME: experts.entry()} if experts else {})
        checkpoint = pieces.checkpoint
        text = checkpoint.architecture.text
        source = SourceInfo(name=checkpoint.name, revision=checkpoint.revision, created_by=f"moedge {__version__}")
        return Manifest(
            form=self.options.form,
            model=ModelInfo(
                architecture=checkpoint.architecture.name,
                source=source,
                text=text,
                vision=checkpoint.architecture.vision,
                tokens=tokens,
            ),
            quantization=pieces.quantization,
            graphs=graphs,
            embedding=EmbeddingInfo(file=EMBEDDING_NAME, row_bytes=entries[EMBEDDING_NAME].nbytes // text.vocab_size),
            experts=pieces.experts_info() if self.options.form == "paged" else None,
            quality={name: report for name in Quantization.model_fields if (report := pieces.report(name))},
            parts=self.fingerprints,
            weights=weight_places(writer.path, with_places),
            vision_tower=vision_tower_info(checkpoint.architecture) if graphs.vision in with_places else None,
            files=writer.file_entries(entries),
        )

    def _graphs_with_places(self, graphs: Graphs) -> list[str]:
        """Those that a runtime may compute by itself: with int8 activations wherever weights are quantized."""
        quantization = self.pieces.quantization
        parts = ("attention", "head", "vision")
        layers, head, vision = (
            self.options.activations != "fp32" or getattr(quantization, part).bits == 32 for part in parts
        )
        if graphs.head is None or not (layers and head):
            return []
        return [*graphs.layers, graphs.head, *([graphs.vision] if vision else [])]

    def _refuse_another(self, identity: Identity) -> None:
        """Raise for a workspace of another export that has finished pieces; anything else is cleared away."""
        journal, writer = self.pieces.journal, self.pieces.writer
        if journal.identity == identity:
            return
        if journal.identity is not None and journal.finished:
            writer.kept = ""  # it is not ours to remove, and there is nothing to add to the error
            raise ConfigError(
                f"'{writer.workspace}' holds {counted(len(journal.finished), 'finished piece')} of another export, "
                f"which differs in: {differences(journal.identity, identity)}. Run that export again to finish it, or "
                f"pass --restart to delete them and start anew.",
                key="config.another_export",
            )
        if journal.finished:
            logger.warning("The journal in '%s' is damaged: starting anew.", writer.workspace)
            journal.finished.clear()
        writer.clear()

    def _keep_what_is_intact(self, identity: Identity, experts: ExpertsFile | None, taken: set[str]) -> None:
        """Verify what the journal lists, keep that, and remove every other file."""
        pieces, writer = self.pieces, self.pieces.writer
        recorded = list(pieces.journal.finished.values())
        if recorded:
            logger.info("Verifying %d finished pieces in '%s'.", len(recorded), writer.workspace)
        pieces.journal.begin(identity, pieces.intact(recorded, experts))
        writer.kept = pieces.kept()
        keep = {*taken, *pieces.file_entries(), *([EXPERTS_NAME] if experts else [])}
        for path in writer.path.rglob("*"):
            if path.is_file() and path.relative_to(writer.path).as_posix() not in keep:
                path.unlink()
        if recorded:
            logger.info("Resuming: %s are there and verified.", self._progress_in_words())

    def _progress_in_words(self) -> str:
        finished = self.pieces.journal.finished
        if self.options.form == "inline":
            return f"{len(finished)} of 3 pieces"
        kinds = (("attention", "layers' graphs"), ("experts", "layers of experts"))
        counts = [
            f"{sum(name in finished for name in names)} of {len(names)} {words}"
            for part, words in kinds
            if (names := self.pieces.names(part))
        ]
        others = [name for name in ("embedding", "head", "vision") if name in finished]
        return ", ".join([*counts, *others])

    def _bytes_to_read(self) -> int:
        finished = set(self.pieces.journal.finished)
        sizes = input_bytes(self.pieces.checkpoint)
        if "model" in finished:
            finished |= {name for name in sizes if name not in ("embedding", "vision")}
        return sum(nbytes for name, nbytes in sizes.items() if name not in finished and not self.pieces.is_taken(name))

    def _write(self, experts: ExpertsFile | None) -> Graphs:
        """Make all pieces that are missing."""
        pieces = self.pieces
        pieces.write_embedding()
        pieces.write_vision()
        if self.options.form == "inline":
            pieces.write_model()
            return Graphs(vision=VISION_NAME, model=MODEL_NAME)
        pieces.write_layers()
        pieces.write_head()
        if experts is not None:
            pieces.write_experts(experts)
        return Graphs(vision=VISION_NAME, layers=pieces.layer_files, head=HEAD_NAME)
