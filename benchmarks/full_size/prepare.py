"""What the comparison needs on disk: bundles that share one experts.bin, and the same shape as a GGUF file.

| name | dense parts | routing | made from |
|---|---|---|---|
| bundle | INT8, as `moedge export` does by default | skew 1.7 | exported |
| same-bits | INT4, 4.5 bits with scales, as Q4_0 | skew 1.7 | bundle: its experts and vision are linked |
| uniform | INT4 | skew 0 | same-bits: only its layers are made anew |
| thinking | INT8 | skew 1.7 | bundle: only its chat template is another |
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from moedge_export.assets import write_assets
from moedge_export.checkpoint import Checkpoint, read_config
from moedge_export.decoder import build_head, build_layer
from moedge_export.embedding import EMBEDDING_NAME, write_embedding
from moedge_export.graph import GraphBuilder
from moedge_export.options import BlockSize, ExportOptions, PrecisionName
from moedge_export.part import PartBuilder
from moedge_export.pipeline import export_bundle
from moedge_export.quantizer import Quantizer
from moedge_export.tasks import architecture_of
from moedge_export.weights import weight_places
from moedge_runtime.bundle import Bundle, BundleWriter
from moedge_runtime.bundle.manifest import FileEntry
from moedge_runtime.bundle.verify import sha256_of
from tqdm import tqdm

from full_size.architecture import Variant, model_config, write_files
from full_size.weights import SyntheticWeights

SKEW, UNIFORM = 1.7, 0.0
MAKE_GGUF = Path(__file__).parent.parent / "peers" / "make_gguf.py"


@dataclass(frozen=True)
class Artifacts:
    """Paths; `gguf` is None without a peer that could read it."""

    bundle: Path
    same_bits: Path
    uniform: Path
    thinking: Path
    gguf: Path | None


def prepare(
    directory: Path, tokenizer: Path, layers: int, peers_python: Path | None, say: Callable[[str], None]
) -> Artifacts:
    """Make what is not there yet; nothing that is there is looked into.

    Args:
        directory: Where everything is kept: 37 GB with 48 layers.
        tokenizer: tokenizer.json of Qwen3, plain or gzipped.
        layers: Of the model; 48 are its real number.
        peers_python: A Python that has the package `gguf`.
        say: Told what is being made.
    """
    made = Artifacts(
        bundle=directory / "bundle",
        same_bits=directory / "same-bits",
        uniform=directory / "uniform",
        thinking=directory / "thinking",
        gguf=directory / "model.gguf" if peers_python is not None else None,
    )
    directory.mkdir(parents=True, exist_ok=True)
    skewed = _checkpoint(directory / "checkpoint", tokenizer, layers, SKEW)
    if not made.bundle.exists():
        say("exporting the bundle")
        with tqdm(unit="step", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
            export_bundle(skewed, made.bundle, ExportOptions(), bar)
    if not made.same_bits.exists():
        say("deriving the bundle with INT4 everywhere")
        derive(
            Bundle.open(made.bundle),
            made.same_bits,
            skewed,
            layers="int4",
            head="int4",
            embedding="int4",
            dense_block_size=64,
        )
    if not made.uniform.exists():
        say("deriving the bundle with uniform routing")
        uniform = _checkpoint(directory / "checkpoint", tokenizer, layers, UNIFORM)
        derive(Bundle.open(made.same_bits), made.uniform, uniform, layers="int4", dense_block_size=64)
    if not made.thinking.exists():
        say("deriving the bundle that thinks")
        thinking = _checkpoint(directory / "checkpoint-thinking", tokenizer, layers, SKEW, "Thinking")
        derive(Bundle.open(made.bundle), made.thinking, thinking, assets=True)
    if made.gguf is not None and not made.gguf.exists():
        say("writing the GGUF file")
        partial = made.gguf.with_suffix(".partial")
        _make_gguf(peers_python, partial, "--layers", str(layers), "--tokenizer", str(tokenizer), "--skew", str(SKEW))
        partial.rename(made.gguf)
    return made


def set_gguf_skew(peers_python: Path, gguf: Path, skew: float) -> None:
    """Give the GGUF file routers of another skew, in place: 50 MB of 17 GB."""
    _make_gguf(peers_python, gguf, "--reroute", "--skew", str(skew))


def derive(
    base: Bundle,
    out: Path,
    checkpoint: Checkpoint,
    *,
    layers: PrecisionName | None = None,
    head: PrecisionName | None = None,
    embedding: PrecisionName | None = None,
    dense_block_size: BlockSize | None = None,
    assets: bool = False,
) -> None:
    """Write a bundle that differs from a paged one in some parts; all other files are hard links to the same bytes.

    `moedge export --reuse` takes over only what would come out the same; here other routers use the same experts.

    Args:
        base: Where the other parts come from.
        out: The new bundle, on the same file system.
        checkpoint: What the new parts are made from.
        layers: Precision of the layers' graphs, attention and router; None keeps them.
        head: Likewise.
        embedding: Likewise.
        dense_block_size: Of new layers and a new head, see `ExportOptions`.
        assets: Whether tokenizer, chat template and settings are written anew.
    """
    chosen = {"attention": layers, "head": head, "embedding": embedding}
    new_parts: dict[str, PrecisionName] = {name: precision for name, precision in chosen.items() if precision}
    options = ExportOptions(parts=new_parts, dense_block_size=dense_block_size)  # type: ignore[arg-type]  # the keys are those of Part
    wanted = options.quantization()
    manifest = base.manifest
    graphs, info = manifest.graphs, manifest.embedding
    assert graphs.head is not None
    tokens = manifest.model.tokens
    vision = [graphs.vision] if manifest.vision_tower else []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, BundleWriter(out) as writer:
        quantizers = {name: Quantizer(getattr(wanted, name), options.accuracy_level, pool) for name in new_parts}
        (writer.path / "layers").mkdir()
        if "attention" in quantizers:
            for layer, name in enumerate(graphs.layers):
                graph = GraphBuilder(writer.path / name)
                build_layer(PartBuilder(graph, checkpoint, quantizers["attention"]), layer)
                graph.save()
        if "head" in quantizers:
            graph = GraphBuilder(writer.path / graphs.head)
            build_head(PartBuilder(graph, checkpoint, quantizers["head"]))
            graph.save()
        if "embedding" in quantizers:
            info = write_embedding(writer.path, checkpoint, quantizers["embedding"])
        if assets:
            tokens = write_assets(writer.path, checkpoint)
        quality = {name: each.tally.report() for name, each in quantizers.items() if each.tally.weights}
        files = _link_the_rest(base, writer.path, _replaced(base, new_parts))
        writer.finish(
            manifest.model_copy(
                update={
                    "model": manifest.model.model_copy(update={"tokens": tokens}),
                    "quantization": manifest.quantization.model_copy(
                        update={name: getattr(wanted, name) for name in new_parts}
                    ),
                    "embedding": info,
                    "quality": dict(manifest.quality) | quality,
                    "parts": {name: part for name, part in manifest.parts.items() if name not in new_parts},
                    "files": files,
                    "weights": weight_places(writer.path, [*graphs.layers, graphs.head, *vision]),
                }
            )
        )


def _replaced(base: Bundle, new_parts: Mapping[str, object]) -> set[str]:
    """Files of `base`, without their .data, that parts of the new bundle replace."""
    graphs = base.manifest.graphs
    files = {"attention": graphs.layers, "head": [str(graphs.head)], "embedding": [EMBEDDING_NAME]}
    return {file for part in new_parts for file in files[part]}


def _link_the_rest(base: Bundle, directory: Path, replaced: set[str]) -> list[FileEntry]:
    """Link the files of `base` that are not there yet nor replaced; the entries of all files of `directory`."""
    entries = {}
    for entry in base.manifest.files:
        target = directory / entry.path
        if not target.exists() and entry.path.removesuffix(".data") not in replaced:
            os.link(base.path / entry.path, target)
            entries[entry.path] = entry
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name not in entries:
            entries[name] = FileEntry(path=name, nbytes=path.stat().st_size, sha256=sha256_of(path))
    return [entries[name] for name in sorted(entries)]


def _checkpoint(
    directory: Path, tokenizer: Path, layers: int, skew: float, variant: Variant = "Instruct"
) -> Checkpoint:
    if not (directory / "config.json").exists():
        write_files(directory, model_config(layers), tokenizer, variant)
    architecture = architecture_of(read_config(directory))
    return Checkpoint(directory, "synthetic", None, architecture, SyntheticWeights(architecture, skew))


def _make_gguf(python: Path | None, path: Path, *arguments: str) -> None:
    assert python is not None
    subprocess.run([str(python), str(MAKE_GGUF), str(path), *arguments], check=True, stdout=sys.stderr)
