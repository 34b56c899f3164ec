"""`moedge bench`: how fast a bundle answers on this machine, beside what its memory and its flash allow."""

from __future__ import annotations

import json
from typing import Any

import click

from moedge_runtime.cli.ask import MLOCK_HELP, size_option
from moedge_runtime.command_line import FiniteRange, examples


@click.command(
    epilog=examples(
        "moedge bench qwen3-vl-int4 --memory 8G", "moedge bench qwen3-vl-int4 --image shelf.jpg --rounds 1 --json"
    )
)
@click.argument("bundle", type=click.Path(path_type=str))
@click.option("--image", type=click.Path(path_type=str), help="The picture to ask about; default coloured noise.")
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="Tokens decoded after the first, even beyond the end of the answer.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Loads of the model; medians are shown."
)
@click.option(
    "--memory",
    metavar="SIZE",
    callback=size_option,
    help="Memory for the whole process, e.g. 8G.  [default: what is there]",
)
@click.option(
    "--max-context",
    type=click.IntRange(2),
    help="Tokens that prompt and answer may have; fewer leave more memory for experts.  [default: 4096]",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads that compute; default one a core.")
@click.option(
    "--pause",
    type=FiniteRange(0, 3600),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Idle before every frame, as between those of a camera: experts are read ahead meanwhile.",
)
@click.option("--mlock", is_flag=True, help=MLOCK_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def bench(bundle: str, **options: Any) -> None:
    """Measure BUNDLE, a paged one, on this machine.

    A round loads the model and answers about three frames at once, or after pauses: a cold one, the same scene again,
    and a changed scene. The time to the first token is split into vision, computing and waiting for flash; decoded
    tokens are shown in windows. Beside them stand their limits, from the bandwidths of memory and flash in the same
    run. Bytes read are the kernel's figures.
    """
    from moedge_runtime.bench.limits import token_bytes  # noqa: PLC0415  `moedge --help` stays fast
    from moedge_runtime.bench.machine import machine, now  # noqa: PLC0415
    from moedge_runtime.bench.process import group_peak_bytes, peak_bytes  # noqa: PLC0415
    from moedge_runtime.bench.rounds import run_rounds, synthetic_picture  # noqa: PLC0415
    from moedge_runtime.bench.table import figures, text_table  # noqa: PLC0415
    from moedge_runtime.bundle import Bundle  # noqa: PLC0415
    from moedge_runtime.image_file import read_image  # noqa: PLC0415
    from moedge_runtime.inference import EngineOptions  # noqa: PLC0415

    picture = synthetic_picture() if options["image"] is None else read_image(options["image"])
    opened = Bundle.open(bundle)
    measured = run_rounds(
        opened,
        EngineOptions(
            max_context=options["max_context"],
            threads=options["threads"],
            memory_bytes=options["memory"],
            mlock=options["mlock"],
        ),
        picture=picture,
        tokens=options["tokens"],
        rounds=options["rounds"],
        pause_s=options["pause"],
        progress=lambda what: click.echo(f"moedge: {what}", err=True),
    )
    result = figures(
        bundle,
        measured,
        token_bytes(opened.manifest),
        about=f"{machine()}; {now()}",
        pause_s=options["pause"],
        peak_bytes=peak_bytes(),
        group_peak_bytes=group_peak_bytes(),
    )
    click.echo(json.dumps(result.to_json(), ensure_ascii=False) if options["as_json"] else text_table(result))
