"""`moedge export`: the command line in front of `export_bundle`."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from moedge_runtime.command_line import examples
from moedge_runtime.errors import MoedgeError

if TYPE_CHECKING:
    from tqdm import tqdm

    from moedge_export.options import ExportOptions

PARTS = ("attention", "head", "embedding", "vision")
PRECISION = click.Choice(["fp32", "int8", "int4"])


@click.command(
    epilog=examples(
        "moedge export Qwen/Qwen3-VL-30B-A3B-Instruct qwen3-vl-int4 --dry-run",
        "moedge export Qwen/Qwen3-VL-30B-A3B-Instruct qwen3-vl-int4",
    )
)
@click.argument("checkpoint")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--precision", type=PRECISION, default="int4", show_default=True, help="Precision of the experts.")
@click.option(
    "--experts",
    type=click.Choice(["paged", "inline"]),
    default="paged",
    show_default=True,
    help="Experts apart, read from flash on demand, or inside one ONNX model for machines with the memory.",
)
@click.option(
    "--block-size",
    type=click.Choice(["32", "64", "128"]),
    default="32",
    show_default=True,
    help="Weights that share a scale, in experts and embeddings.",
)
@click.option(
    "--dense-block-size",
    type=click.Choice(["32", "64", "128"]),
    help="The same in attention, head and vision [default at 8 bits: 64, 128, 128; at 4: --block-size].",
)
@click.option("--symmetric/--asymmetric", default=True, show_default=True, help="Without or with a zero point a block.")
@click.option("--attention", type=PRECISION, help="Precision of attention and dense MLPs [default: int8 for int4].")
@click.option("--head", type=PRECISION, help="Precision of the head [default: int8 for int4].")
@click.option("--embedding", type=PRECISION, help="Precision of the embeddings [default: int8 for int4].")
@click.option("--vision", type=PRECISION, help="Precision of the vision tower [default: int8 for int4].")
@click.option(
    "--activations",
    type=click.Choice(["int8", "fp32"]),
    default="int8",
    show_default=True,
    help="What quantized weights are multiplied with: int8 is faster, fp32 closer to the checkpoint.",
)
@click.option("--revision", help="Branch, tag or commit of a Hugging Face repository.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--restart", is_flag=True, help="Delete what an interrupted export left, instead of going on with it.")
@click.option(
    "--reuse",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Take over the parts of BUNDLE that would come out the same: they are linked, not written.",
)
@click.option("--dry-run", is_flag=True, help="Print sizes by part, disk and memory; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option("--progress/--no-progress", default=None, help="Progress bar on stderr [default: on a terminal].")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def export(
    checkpoint: str,
    out: Path,
    *,
    precision: str,
    experts: str,
    block_size: str,
    dense_block_size: str | None,
    symmetric: bool,
    attention: str | None,
    head: str | None,
    embedding: str | None,
    vision: str | None,
    activations: str,
    revision: str | None,
    overwrite: bool,
    restart: bool,
    reuse: Path | None,
    dry_run: bool,
    as_json: bool,
    progress: bool | None,
    quiet: bool,
) -> None:
    """Convert CHECKPOINT into the bundle OUT.

    CHECKPOINT is a directory with a Qwen3-VL-MoE checkpoint (config.json and safetensors) or a Hugging Face id such as
    Qwen/Qwen3-VL-30B-A3B-Instruct. OUT is written whole or not at all. An export that was interrupted keeps its
    finished layers beside OUT, in .OUT.partial; the same command goes on with them.
    """
    from moedge_export.options import ExportOptions  # noqa: PLC0415 (torch and transformers take seconds)

    chosen = {"attention": attention, "head": head, "embedding": embedding, "vision": vision}
    options = ExportOptions(
        precision=precision,  # type: ignore[arg-type]  # click.Choice
        form=experts,  # type: ignore[arg-type]
        block_size=int(block_size),  # type: ignore[arg-type]
        dense_block_size=int(dense_block_size) if dense_block_size else None,  # type: ignore[arg-type]
        symmetric=symmetric,
        activations=activations,  # type: ignore[arg-type]
        parts={part: value for part, value in chosen.items() if value},  # type: ignore[misc]
        revision=revision,
        overwrite=overwrite,
        restart=restart,
        reuse=reuse,
    )
    if dry_run:
        show_plan(checkpoint, out, options, as_json=as_json)
        return
    show_progress = sys.stderr.isatty() if progress is None else progress
    run_export(checkpoint, out, options, show_progress=show_progress, quiet=quiet, as_json=as_json)


def show_plan(checkpoint: str, out: Path, options: ExportOptions, *, as_json: bool) -> None:
    """Print what the export would write and need; raises the error that it would raise for want of room."""
    from moedge_export.plan import plan_export  # noqa: PLC0415

    plan = plan_export(checkpoint, out, options)
    if not as_json:
        click.echo(plan.text())
    try:
        plan.check(overwrite=options.overwrite)
    except MoedgeError as error:
        error.report = plan.to_json()
        raise
    if as_json:
        click.echo(json.dumps(plan.to_json()))


def run_export(
    checkpoint: str,
    out: Path,
    options: ExportOptions,
    *,
    show_progress: bool,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Export with a progress bar on stderr and say on stdout what was written; `quiet` leaves both away."""
    from tqdm import tqdm  # noqa: PLC0415

    from moedge_export.pipeline import export_bundle  # noqa: PLC0415

    started = time.monotonic()
    # As an exception, so that what is kept is said; 143 is what a shell reports for SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bar = tqdm(disable=quiet or not show_progress, unit="B", unit_scale=True, mininterval=0.5, file=sys.stderr)
    with bar, _messages(bar, logging.ERROR if quiet else logging.INFO):
        manifest = export_bundle(checkpoint, out, options, bar)
    nbytes = sum(entry.nbytes for entry in manifest.files)
    seconds = time.monotonic() - started
    if as_json:
        summary = {"bundle": str(out), "form": manifest.form, "nbytes": nbytes, "seconds": round(seconds, 1)}
        click.echo(json.dumps(summary))
    elif not quiet:
        click.echo(f"Wrote {manifest.form} bundle '{out}': {nbytes / 1e6:,.1f} MB in {seconds:,.1f} s.")


@contextmanager
def _messages(bar: tqdm[NoReturn], level: int) -> Iterator[None]:
    """What the export logs appears on stderr, above the bar."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            bar.clear()
            click.echo(f"moedge: {self.format(record)}", err=True)
            bar.refresh()

    logger, handler = logging.getLogger("moedge_export"), Handler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
