"""How far `moedge plan` is from what `moedge bench` measures on this machine, at several memory budgets.

First `moedge bench` says, with another picture, how many different experts a prefill of this bundle chooses. Before
each budget the machine is measured as `moedge doctor --bundle` does, unless --device names a report of it or a profile;
then the budget is planned and benchmarked, with locked memory: how long the host of a virtual machine looks for memory
is nothing of a board. Prints one JSON object a line: `value` is planned over measured where there is a bound. Exits 1
if a bound is not kept. It means nothing while other programs run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from machine import machine
from moedge_devices.doctor.measure import measure
from moedge_devices.doctor.measured_profile import measured_profile
from moedge_devices.plan.board_plan import BoardPlan, Setup, plan_board
from moedge_devices.plan.calibration import calibration
from moedge_devices.plan.prediction import USUAL_FRAME, Frame
from moedge_devices.plan.subject import find_subject
from moedge_devices.profile import Profile, find_profile, shipped_profiles
from moedge_runtime.bench.rounds import FRAMES, synthetic_picture
from moedge_runtime.bundle import Bundle
from moedge_runtime.config.values import parse_size
from moedge_runtime.inference.expert_core.memory import available_memory, total_memory
from PIL import Image

BOUND = 0.25
"""Acceptance: a plan is within 25 % of the benchmark."""


def main() -> None:
    arguments = _arguments()
    print(json.dumps({"machine": machine(), "bundle": arguments.bundle, "load": os.getloadavg()[0]}))
    chosen = prefill_experts(arguments)
    good = True
    for budget in arguments.budgets.split(","):
        # Anew for each budget: the bandwidth of a shared disk changes from one minute to the next.
        profile = find_profile(arguments.device) if arguments.device else measure_machine(Path(arguments.bundle))
        plan_frame = partial(_plan, arguments.bundle, profile, budget, arguments.routing)
        plan_frame(USUAL_FRAME)  # refused before it is measured
        measured = bench(arguments.bundle, budget, "--tokens", arguments.tokens, "--rounds", arguments.rounds)
        for line in compare(budget, plan_frame, measured, chosen):
            print(json.dumps(line), flush=True)
            good &= line["ok"] is not False
    sys.exit(0 if good else 1)


def measure_machine(bundle: Path) -> Profile:
    """The profile of this machine, as `moedge doctor --bundle` makes it."""
    base = next(each for each in shipped_profiles().values() if each.architecture == os.uname().machine)
    found = measure(
        Bundle.open(bundle),
        len(os.sched_getaffinity(0)),
        whole=True,
        say=lambda what: print(f"plan_accuracy: {what}", file=sys.stderr),
    )
    total, available = total_memory(), available_memory()
    profile = (
        total
        and available
        and measured_profile(
            base,
            found,
            calibration(),
            source=f"moedge doctor {date.today().isoformat()}",
            total_bytes=total,
            available_bytes=available,
            cores=len(os.sched_getaffinity(0)),
            storage=None,
        )
    )
    if not profile:
        sys.exit(f"This machine cannot be measured: {' '.join(found.problems) or 'it does not tell its memory'}")
    return profile


def prefill_experts(arguments: argparse.Namespace) -> dict[str, float]:
    """Different experts of a layer that a prefill chooses by kind of frame, of a picture that is not asked about."""
    with tempfile.TemporaryDirectory() as directory:
        picture = Path(directory) / "picture.png"
        Image.fromarray(synthetic_picture(seed=1)).save(picture)
        budget = arguments.budgets.split(",")[0]
        measured = bench(arguments.bundle, budget, "--image", picture, "--tokens", 1, "--rounds", 1)
    return {frame["name"]: frame["prefill_experts"] for frame in measured["frames"]}


def bench(bundle: str, budget: str, *options: object) -> dict[str, Any]:
    """What `moedge bench --json` measures in a process of its own."""
    command = [sys.executable, "-m", "moedge_runtime", "bench", bundle, "--memory", budget, "--mlock", "--json"]
    done = subprocess.run([*command, *map(str, options)], stdout=subprocess.PIPE, check=True)
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def compare(
    budget: str, plan_frame: Callable[[Frame], BoardPlan], measured: dict[str, Any], chosen: dict[str, float]
) -> list[dict[str, Any]]:
    """Lines of one budget: first tokens of every kind of frame, and decoding after the last one.

    Args:
        budget: Its name.
        plan_frame: Plans a frame under this budget.
        measured: By `moedge bench --json`.
        chosen: Experts of a prefill, by kind of frame.
    """
    lines = []
    for frame in measured["frames"]:
        name = frame["name"]
        kind = "cold" if name == FRAMES[0] else "warm"
        plan = plan_frame(Frame(frame["prefill_tokens"], frame["image_tokens"], chosen[name]))
        planned = getattr(plan.predictions[0], kind)
        lines.append(_line(f"{budget}, {name}: first token", planned.seconds / frame["first_token_s"]))
        prefill_s = frame["prefill_compute_s"] + frame["flash_wait_s"]
        lines += [
            _line(f"{budget}, {name}: vision", planned.vision_s / frame["vision_s"], bounded=False),
            _line(f"{budget}, {name}: prefill", planned.prefill_s / prefill_s, bounded=False),
            _line(f"{budget}, {name}: first token as measured", frame["first_token_s"], "s", bounded=False),
        ]
        if frame["prefill_read_bytes"]:
            share = planned.missed_bytes / frame["prefill_read_bytes"]
            lines.append(_line(f"{budget}, {name}: bytes read in the prefill", share, bounded=False))
        if name == FRAMES[-1] and frame["decode"]:
            seconds = sum(each["seconds"] * (each["last"] - each["first"] + 1) for each in frame["decode"])
            token_s = seconds / frame["decode"][-1]["last"]
            lines.append(_line(f"{budget}, {name}: tokens a second", token_s / plan.predictions[0].token.seconds))
            lines.append(_line(f"{budget}, {name}: tokens a second as measured", 1 / token_s, "1/s", bounded=False))
    return lines


def _plan(bundle: str, profile: Profile, budget: str, routing: str, frame: Frame) -> BoardPlan:
    setup = Setup(
        find_subject(bundle),
        profile,
        next(iter(profile.storage)),
        parse_size(budget),
        routing=routing,  # type: ignore[arg-type]  # one of argparse's choices
    )
    plan = plan_board(setup, calibration(), frame, others=[])
    if not plan.predictions:
        sys.exit(f"{budget} is refused: {' '.join(plan.reasons)}")
    return plan


def _line(name: str, value: float, unit: str = "planned/measured", *, bounded: bool = True) -> dict[str, Any]:
    return {
        "name": f"plan: {name}",
        "value": round(value, 3),
        "unit": unit,
        "bound": f"{1 - BOUND} to {1 + BOUND}" if bounded else None,
        "ok": abs(value - 1) <= BOUND if bounded else None,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a paged bundle")
    parser.add_argument("--budgets", default="4G,8G,20G", help="memory of the process, by commas (default: 4G,8G,20G)")
    parser.add_argument("--device", help="profile, or report of `moedge doctor --json`, instead of measuring now")
    parser.add_argument("--routing", choices=["skewed", "uniform"], default="skewed", help="of the bundle's routers")
    parser.add_argument("--tokens", type=int, default=60, help="decoded after the first (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="loads of the model (default: 3)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
