"""`moedge inspect`: what is inside a bundle, how large and in which precision."""

from __future__ import annotations

import json
from collections import defaultdict

import click

from moedge_runtime.bundle import Bundle, Manifest, Precision, Quantization
from moedge_runtime.cli.ask import size_option
from moedge_runtime.command_line import examples


@click.command(
    epilog=examples("moedge inspect qwen3-vl-int4", "moedge inspect qwen3-vl-int4 --memory 8G --max-context 1024"),
    short_help="Show architecture, precision and sizes of BUNDLE.",
)
@click.argument("bundle", type=click.Path(path_type=str))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, or with --memory the plan, as JSON.")
@click.option("--memory", metavar="SIZE", callback=size_option, help="Show how a process would divide so much memory.")
@click.option("--max-context", type=click.IntRange(2), help="With --memory: tokens of prompt and answer.")
@click.option("--max-pixels", type=click.IntRange(1), help="With --memory: largest area of a picture.")
def inspect(bundle: str, as_json: bool, memory: int | None, max_context: int | None, max_pixels: int | None) -> None:
    """Show what is inside BUNDLE: model, precision and quantization error by part, sizes by file.

    With --memory it shows how that would be divided, or refuses it if it is too small, as `ask` and `run` do.
    """
    if memory is None and (max_context is not None or max_pixels is not None):
        raise click.UsageError("--max-context and --max-pixels are of the plan: give them with --memory.")
    opened = Bundle.open(bundle)
    if memory is not None:
        from moedge_runtime.inference import EngineOptions  # noqa: PLC0415
        from moedge_runtime.inference.memory_budget import plan_of  # noqa: PLC0415

        options = EngineOptions(memory_bytes=memory, max_context=max_context, max_pixels=max_pixels)
        plan = plan_of(opened, options, memory)
        click.echo(json.dumps(plan.to_json()) if as_json else "\n".join(plan.table()))
        return
    if as_json:
        click.echo(opened.manifest.model_dump_json(indent=2))
        return
    click.echo("\n".join(describe(opened.manifest)))


def describe(manifest: Manifest) -> list[str]:
    """The lines that `moedge inspect` prints."""
    model = manifest.model
    text, vision = model.text, model.vision
    source = model.source.name + (f"@{model.source.revision}" if model.source.revision else "")
    lines = [
        f"{model.architecture} from {source}",
        f"written by {model.source.created_by}, format {manifest.format_version}, experts {manifest.form}",
        "",
        f"decoder   {text.num_hidden_layers} layers, hidden {text.hidden_size}, heads {text.num_attention_heads} "
        f"(KV {text.num_key_value_heads}) of {text.head_dim}, vocabulary {text.vocab_size:,}",
        f"experts   {text.num_experts} of width {text.moe_intermediate_size} in {len(text.moe_layers)} layers, "
        f"{text.num_experts_per_tok} a token",
        f"vision    {vision.depth} layers, hidden {vision.hidden_size}, patch {vision.patch_size}, "
        f"merge {vision.spatial_merge_size}, "
        f"DeepStack after layers {', '.join(map(str, vision.deepstack_visual_indexes)) or 'none'}",
        f"thinking  {'yes' if model.tokens.think_start is not None else 'no <think> token'}",
        "",
        f"{'part':<10} {'precision':<26} {'weights':>14} {'size':>10}  error (plain rounding)",
    ]
    for part in Quantization.model_fields:
        precision: Precision = getattr(manifest.quantization, part)
        report = manifest.quality.get(part)
        line = f"{part:<10} {precision_name(precision):<26}"
        if report is not None:
            line += (
                f" {report.weights:>14,} {size(report.nbytes):>10}  "
                f"{report.relative_error:.3%} ({report.relative_error_absmax:.3%})"
            )
        lines.append(line.rstrip())
    lines += ["", f"{'file':<28} {'size':>10}"]
    for name, nbytes in sizes_by_file(manifest).items():
        lines.append(f"{name:<28} {size(nbytes):>10}")
    lines.append(f"{'total':<28} {size(sum(entry.nbytes for entry in manifest.files)):>10}")
    return lines


def precision_name(precision: Precision) -> str:
    """A precision in words, e.g. `int4 block 32 symmetric`."""
    if precision.bits == 32:
        return "fp32"
    return f"int{precision.bits} block {precision.block_size} {'symmetric' if precision.symmetric else 'asymmetric'}"


def sizes_by_file(manifest: Manifest) -> dict[str, int]:
    """Bytes by file; an ONNX file counts its external data, all layer graphs count as `layers/`."""
    sizes: dict[str, int] = defaultdict(int)
    for entry in manifest.files:
        name = entry.path.removesuffix(".data")
        sizes["layers/" if name.startswith("layers/") else name] += entry.nbytes
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def size(nbytes: int) -> str:
    """A size with a unit that leaves three digits, decimal: 16.3 GB, 4.21 MB, 812 kB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.3g} {unit}"
    return f"{nbytes} B"
