"""`moedge verify`: checks every byte of a bundle, and on request its logits against transformers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import click

from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.cli.ask import size_option
from moedge_runtime.command_line import examples
from moedge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from moedge_runtime.inference.transcript import Transcript

COMPARISON_GROUP = "moedge.comparison"
DEFAULT_QUESTION = "What can be seen in this picture?"


@click.command(
    epilog=examples(
        "moedge verify qwen3-vl-int4",
        "moedge verify qwen3-vl-int4 --against Qwen/Qwen3-VL-30B-A3B-Instruct --image shelf.jpg",
    ),
    short_help="Check every file of BUNDLE against its SHA-256.",
)
@click.argument("bundle", type=click.Path(path_type=str))
@click.option("--against", "checkpoint", metavar="CHECKPOINT", help="Also compare logits with this checkpoint.")
@click.option("--image", "images", multiple=True, type=click.Path(path_type=str), help="With --against: ask about it.")
@click.option("--question", help="With --against: ask this.  [default with --image: what can be seen]")
@click.option(
    "--max-tokens", type=click.IntRange(1), default=32, show_default=True, help="Of the answer that is compared."
)
@click.option(
    "--memory", metavar="SIZE", callback=size_option, help="For the answer, as in `ask`.  [default: what is there]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def verify(bundle: str, checkpoint: str | None, *, as_json: bool, **asked: Any) -> None:
    """Check every file of BUNDLE against its SHA-256; exits 1 and names the files that differ.

    With --against, the checkpoint (a local directory or a Hugging Face id) runs under transformers beside the bundle,
    a layer at a time, and the largest difference of their logits is printed. With --image or --question, BUNDLE is also
    asked as `moedge ask` does, and transformers says where it would have answered otherwise. Both need the `export`
    extra.
    """
    answer = _question(**asked) if asked["images"] or asked["question"] is not None else None
    if answer is not None and checkpoint is None:
        raise ConfigError("--image and --question are for the comparison with a checkpoint. Add --against CHECKPOINT.")
    compare = _comparison() if checkpoint is not None else None
    opened = Bundle.open(bundle)
    total = sum(entry.nbytes for entry in opened.manifest.files)
    with click.progressbar(length=total, label="checking", file=sys.stderr) as bar:
        verify_bundle(opened, bar.update)
    result: dict[str, object] = {"bundle": bundle, "files": len(opened.manifest.files), "bytes": total, "ok": True}
    if compare is not None:
        result["comparison"] = compare(opened, checkpoint, answer=answer, progress=_say)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{bundle}: all {len(opened.manifest.files)} files ({total:,} bytes) are as written.")
    comparison = result.get("comparison")
    if isinstance(comparison, dict):
        for name, value in comparison.items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            click.echo(f"  {name.replace('_', ' ')}: {shown}")


def _comparison() -> Callable[..., dict[str, object]]:
    """The comparison that an installed component provides; it returns a dict of named figures."""
    points = list(entry_points(group=COMPARISON_GROUP))
    try:
        compare: Callable[..., dict[str, object]] = points[0].load()
    except (IndexError, ModuleNotFoundError) as error:
        raise ConfigError(
            "--against needs transformers, which is not installed. Install it with: pip install 'moedge[export]'"
        ) from error
    return compare


def _question(
    *, images: tuple[str, ...], question: str | None, max_tokens: int, memory: int | None
) -> Callable[[Bundle], Transcript]:
    """Answers as `moedge ask` does; pictures are read now."""
    from moedge_runtime.image_file import read_image  # noqa: PLC0415  `moedge --help` stays fast
    from moedge_runtime.inference import AskRequest, Engine, EngineOptions  # noqa: PLC0415
    from moedge_runtime.inference.transcript import transcribe  # noqa: PLC0415

    pictures = [read_image(path) for path in images]
    request = AskRequest(question or DEFAULT_QUESTION, images=pictures, max_new_tokens=max_tokens)

    def answer(bundle: Bundle) -> Transcript:
        with Engine.open(bundle, EngineOptions(memory_bytes=memory)) as engine:
            return transcribe(engine, request)

    return answer


def _say(what: str) -> None:
    click.echo(f"moedge: {what}", err=True)
