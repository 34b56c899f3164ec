"""What an export would read, write and need, for `moedge export --dry-run`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moedge_runtime.bundle.writer import check_destination, workspace_of

from moedge_export.checkpoint import config_architecture
from moedge_export.estimate import check_memory, check_room, free_bytes, memory_bytes, own_bytes, part_bytes
from moedge_export.memory import available_memory
from moedge_export.options import ExportOptions, check_blocks
from moedge_export.parallel import processors
from moedge_export.quantize_library import load_library
from moedge_export.tensors import EMBEDDING, HEAD, expected_tensors

PART_NAMES = {
    "experts": "experts",
    "attention": "attention layers",
    "head": "head",
    "embedding": "embedding",
    "vision": "vision tower",
    "graphs": "graphs without weights",
    "assets": "tokenizer and settings",
}


@dataclass(frozen=True)
class Plan:
    """Upper estimates, in bytes.

    Attributes:
        destination: The bundle.
        form: `paged` or `inline`.
        input_bytes: Weights of the checkpoint, in bfloat16 as published.
        parts: What would be written, by part, largest first.
        output_bytes: Of all parts.
        present_bytes: Of these, what an interrupted export has written.
        free_bytes: On the bundle's disk.
        memory_bytes: What the export needs.
        available_memory_bytes: What this process can have; None if the system does not tell.
    """

    destination: str
    form: str
    input_bytes: int
    parts: dict[str, int]
    output_bytes: int
    present_bytes: int
    free_bytes: int
    memory_bytes: int
    available_memory_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def text(self) -> str:
        """For a person."""
        available = self.available_memory_bytes
        there = f", {_mb(self.present_bytes)} MB there from an interrupted export" if self.present_bytes else ""
        lines = [
            f"Would write {self.form} bundle '{self.destination}': up to {_mb(self.output_bytes)} MB, from "
            f"{_mb(self.input_bytes)} MB of bfloat16 weights.",
            *(f"  {PART_NAMES[part]:<24}{_mb(nbytes):>8} MB" for part, nbytes in self.parts.items()),
            f"Disk: {_mb(self.free_bytes)} MB free{there}. Memory: up to {_mb(self.memory_bytes)} MB needed"
            + (f", {_mb(available)} MB available." if available is not None else "."),
        ]
        return "\n".join(lines)

    def check(self, *, overwrite: bool = False) -> None:
        """Raise the `StorageError` that the export would raise."""
        check_destination(Path(self.destination), overwrite=overwrite)
        check_memory(self.memory_bytes)
        check_room(Path(self.destination), self.output_bytes, self.present_bytes)


def plan_export(checkpoint: str | Path, destination: Path, options: ExportOptions) -> Plan:
    """Look at the checkpoint's config, the disk and the memory; of a Hugging Face id only the config is downloaded.

    Raises:
        CheckpointError: The checkpoint cannot be exported.
        ConfigError: The options do not fit it.
    """
    architecture, quantization = config_architecture(checkpoint, options.revision), options.quantization()
    check_blocks(quantization, architecture)
    load_library()
    shapes = expected_tensors(architecture)
    if not architecture.text.tie_word_embeddings:
        shapes[HEAD] = shapes[EMBEDDING]
    parts = part_bytes(architecture, quantization, options.form)
    return Plan(
        destination=str(destination),
        form=options.form,
        input_bytes=sum(2 * math.prod(shape) for shape in shapes.values()),
        parts=parts,
        output_bytes=sum(parts.values()),
        present_bytes=own_bytes(workspace_of(destination)),
        free_bytes=free_bytes(destination),
        memory_bytes=memory_bytes(architecture, quantization, processors()),
        available_memory_bytes=available_memory(),
    )


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.0f}"
