"""`moedge verify`: checks every byte of a bundle, and on request its logits against transformers."""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points

import click

from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.errors import ConfigError

COMPARISON_GROUP = "moedge.comparison"


@click.command()
@click.argument("bundle", type=click.Path(path_type=str))
@click.option("--against", "checkpoint", metavar="CHECKPOINT", help="Also compare logits with this checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def verify(bundle: str, checkpoint: str | None, as_json: bool) -> None:
    """Check every file of BUNDLE against its SHA-256; exits 1 and names the files that differ.

    With --against, the checkpoint (a local directory or a Hugging Face id) runs under transformers beside the bundle,
    and the largest difference of their logits is printed. That needs the `export` extra.
    """
    opened = Bundle.open(bundle)
    total = sum(entry.nbytes for entry in opened.manifest.files)
    with click.progressbar(length=total, label="checking", file=sys.stderr) as bar:
        verify_bundle(opened, bar.update)
    result: dict[str, object] = {"bundle": bundle, "files": len(opened.manifest.files), "bytes": total, "ok": True}
    if checkpoint is not None:
        result["comparison"] = _compare(opened, checkpoint)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{bundle}: all {len(opened.manifest.files)} files ({total:,} bytes) are as written.")
    comparison = result.get("comparison")
    if isinstance(comparison, dict):
        for name, value in comparison.items():
            click.echo(f"  {name.replace('_', ' ')}: {value}")


def _compare(bundle: Bundle, checkpoint: str) -> dict[str, object]:
    """Run the comparison that an installed component provides; it returns a dict of named figures."""
    points = list(entry_points(group=COMPARISON_GROUP))
    try:
        compare = points[0].load()
    except (IndexError, ModuleNotFoundError) as error:
        raise ConfigError(
            "--against needs transformers, which is not installed. Install it with: pip install 'moedge[export]'"
        ) from error
    result = compare(bundle, checkpoint)
    assert isinstance(result, dict)
    return result
