"""`moedge plan`: whether a model fits a board, and how fast it should answer, before there is a board."""

from __future__ import annotations

import json
from pathlib import Path

import click
from moedge_runtime.cli.ask import size_option
from moedge_runtime.command_line import examples

EXIT_REFUSED = 1
"""Exit code when the model does not fit the one board that was asked about."""


@click.command(
    epilog=examples(
        "moedge plan qwen3-vl-30b-a3b@int4 --all",
        "moedge plan qwen3-vl-30b-a3b@int4 --device orin-nano-8gb --storage sd",
    )
)
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--device", metavar="NAME|FILE", help="A profile's name, a profile, or a report of `moedge doctor --json`."
)
@click.option("--all", "every", is_flag=True, help="Compare all known boards and kinds of storage.")
@click.option("--storage", metavar="KIND", help="Where the bundle lies, e.g. nvme or sd.  [default: the board's best]")
@click.option(
    "--memory", metavar="SIZE", callback=size_option, help="For the whole process, e.g. 4G.  [default: what is there]"
)
@click.option("--max-context", type=click.IntRange(2), help="Tokens of prompt and answer.  [default: 4096]")
@click.option(
    "--routing",
    type=click.Choice(["skewed", "uniform"]),
    default="skewed",
    show_default=True,
    help="Assumption behind the verdict: some experts are popular, or none is.",
)
@click.option(
    "--prefill-experts",
    type=float,
    metavar="N",
    help="Different experts of a layer that your pictures choose, as moedge bench prints it.  [default: as text does]",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="With --all: draw it, e.g. boards.png.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def plan(
    bundle: str,
    *,
    device: str | None,
    every: bool,
    storage: str | None,
    memory: int | None,
    max_context: int | None,
    routing: str,
    prefill_experts: float | None,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Plan BUNDLE on a board.

    BUNDLE is a paged bundle, or a model that is not exported yet, such as qwen3-vl-30b-a3b@int4. Prints the memory by
    part, what is resident, the expected time to the first token and tokens a second beside the design's limits, and a
    verdict: fits, tight or refuse, with what would make it better. Exits 1 if it is refused.
    """
    from moedge_devices.plan.board_plan import Setup, plan_board  # noqa: PLC0415  `moedge --help` stays fast
    from moedge_devices.plan.calibration import calibration  # noqa: PLC0415
    from moedge_devices.plan.plot import save_plot  # noqa: PLC0415
    from moedge_devices.plan.prediction import Frame  # noqa: PLC0415
    from moedge_devices.plan.report import table, text_report, to_json  # noqa: PLC0415
    from moedge_devices.plan.subject import find_subject  # noqa: PLC0415
    from moedge_devices.profile import find_profile, shipped_profiles  # noqa: PLC0415

    if every == (device is not None):
        raise click.UsageError("Give either --device or --all.")
    if plot is not None and not every:
        raise click.UsageError("--plot compares boards: give it with --all.")
    if every and memory is not None:
        raise click.UsageError("--memory is of one board: give it with --device.")
    frame = Frame(experts=prefill_experts)
    known = list(shipped_profiles().values())
    profiles = known if device is None else [find_profile(device)]
    others = [profile for profile in known if profile.family != "generic"]
    subject = find_subject(bundle)
    plans = [
        plan_board(
            Setup(subject, profile, kind, memory, max_context, routing),  # type: ignore[arg-type]  # click.Choice
            calibration(),
            frame,
            others=[] if every else others,
        )
        for profile in profiles
        for kind in _kinds(list(profile.storage), storage, every)
    ]
    if not plans:
        raise click.BadParameter(f"No known board has the storage '{storage}'.", param_hint="--storage")
    if plot is not None:
        save_plot(plans, plot)
    if as_json:
        click.echo(json.dumps(to_json(plans, frame), ensure_ascii=False))
    else:
        click.echo(table(plans, frame) if every else text_report(plans[0], frame))
    return EXIT_REFUSED if not every and plans[0].verdict == "refuse" else 0


def _kinds(known: list[str], wanted: str | None, every: bool) -> list[str]:
    """Kinds of storage to plan with; for one board an unknown one goes on, to be refused with the known ones."""
    if wanted is None:
        return known if every else known[:1]
    return [wanted] if not every or wanted in known else []
