"""Plans as text for a terminal and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moedge_runtime.bundle import Manifest

from moedge_devices.plan.board_plan import GIB, BoardPlan
from moedge_devices.plan.calibration import calibration
from moedge_devices.plan.prediction import FirstToken, Frame, Prediction
from moedge_devices.plan.speeds import assumed_figures
from moedge_devices.plan.subject import Subject

WIDTH = 24
MOST_BOARDS = 3
"""Other boards that are named; the JSON has all."""


def text_report(plan: BoardPlan, frame: Frame) -> str:
    """One plan, for a person."""
    setup = plan.setup
    lines = [
        subject_line(setup.subject),
        f"on {setup.profile.title}, bundle on {setup.storage} "
        f"({setup.profile.storage[setup.storage].read_gb_s.value:g} GB/s), memory read at "
        f"{setup.profile.memory.read_gb_s.value:g} GB/s",
        "",
    ]
    if plan.memory is not None:
        lines += [*plan.memory.table(), "", f"resident: {', '.join(resident_parts(plan))}", ""]
        lines += _times(plan.predictions, frame)
        lines.append("")
    lines.append(f"verdict: {plan.verdict}")
    lines += [f"  because {reason}" for reason in plan.reasons]
    boards = [remedy for remedy in plan.remedies if remedy.plan.setup.profile != setup.profile]
    for remedy in [remedy for remedy in plan.remedies if remedy not in boards] + boards[:MOST_BOARDS]:
        lines.append(f"  better with {remedy.text}: {remedy.plan.verdict}{_outcome(remedy.plan)}")
    if plan.verdict != "fits" and not plan.remedies:
        lines.append("  nothing that was tried makes it better: storage, context, precision, memory, the known boards")
    lines += ["", *_assumptions(plan, frame)]
    return "\n".join(lines)


def table(plans: Sequence[BoardPlan], frame: Frame) -> str:
    """Several boards, one a line."""
    heads = ("device", "storage", "memory", "experts", "first token", "tokens/s", "verdict")
    rows = [heads]
    for plan in plans:
        cells = [plan.setup.profile.name, plan.setup.storage, f"{plan.setup.total_bytes / GIB:.1f} GiB"]
        if plan.memory is None:
            cells += ["–", "–", "–"]
        else:
            cells += [
                f"{expert_share(plan):.0%}",
                " / ".join(f"{each.warm.seconds:.1f}" for each in plan.predictions) + " s",
                " / ".join(f"{each.token.per_second:.2f}" for each in plan.predictions),
            ]
        rows.append((*cells, plan.verdict))  # type: ignore[arg-type]  # seven of them
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    order = next(([each.routing for each in plan.predictions] for plan in plans if plan.predictions), [])
    foot = (
        f"First token of a frame of {frame.prefill_tokens} tokens ({frame.image_tokens} of the picture) of a camera "
        f"that runs, {' / '.join(order)} routing; all computing on the CPU. Figures of boards are measured, stated or "
        f"assumed (docs/devices.md); no board has run moedge yet."
    )
    return "\n".join([subject_line(plans[0].setup.subject), "", *lines, "", foot])


def subject_line(subject: Subject) -> str:
    """What is planned."""
    nbytes = bundle_bytes(subject.manifest)
    state = "" if subject.exported else ", not exported: sizes are computed"
    return (
        f"{subject.name} (experts of {subject.manifest.quantization.experts.bits} bits, {nbytes / 1e9:.1f} GB{state})"
    )


def bundle_bytes(manifest: Manifest) -> int:
    """Size of the bundle."""
    return sum(entry.nbytes for entry in manifest.files)


def expert_share(plan: BoardPlan) -> float:
    """Part of all experts that the budget holds."""
    assert plan.memory is not None
    return plan.memory.expert_share


def resident_parts(plan: BoardPlan) -> list[str]:
    """What stays in memory."""
    assert plan.memory is not None
    vision = ["vision tower"] if plan.memory.vision_resident else []
    return ["layers", "head", *vision, "KV cache", f"{expert_share(plan):.0%} of the experts"]


def to_json(plans: Sequence[BoardPlan], frame: Frame) -> dict[str, Any]:
    """Everything, as JSON types; a single plan is a list of one."""
    subject = plans[0].setup.subject
    return {
        "model": {
            "name": subject.name,
            "exported": subject.exported,
            "bundle_bytes": bundle_bytes(subject.manifest),
            "expert_bits": subject.manifest.quantization.experts.bits,
        },
        "frame": {
            "prefill_tokens": frame.prefill_tokens,
            "image_tokens": frame.image_tokens,
            "prefill_experts": frame.experts,
        },
        "boards": [_board_json(plan) for plan in plans],
    }


def _board_json(plan: BoardPlan) -> dict[str, Any]:
    setup, memory, speeds = plan.setup, plan.memory, plan.speeds
    return {
        "device": setup.profile.name,
        "title": setup.profile.title,
        "storage": setup.storage,
        "verdict": plan.verdict,
        "reasons": plan.reasons,
        "memory_bytes": setup.total_bytes,
        "max_context": setup.context,
        "memory": None
        if memory is None
        else {
            "parts": memory.parts(),
            "expert_share": expert_share(plan),
            "vision_resident": memory.vision_resident,
            "max_pixels": memory.max_pixels,
            "resident": resident_parts(plan),
        },
        "speeds": {
            "memory_bytes_per_s": speeds.bandwidths.memory,
            "flash_bytes_per_s": speeds.bandwidths.flash,
            "experts_operations_per_s": speeds.experts,
            "layers_operations_per_s": speeds.layers,
            "vision_operations_per_s": speeds.vision,
        },
        "predictions": [_prediction_json(each) for each in plan.predictions],
        "remedies": [
            {
                "change": remedy.text,
                "verdict": remedy.plan.verdict,
                "first_token_s": remedy.plan.predictions[0].warm.seconds if remedy.plan.predictions else None,
                "tokens_per_s": remedy.plan.predictions[0].token.per_second if remedy.plan.predictions else None,
            }
            for remedy in plan.remedies
        ],
        "assumed": {path: figure.source for path, figure in assumed_figures(setup.profile, calibration()).items()},
    }


def _prediction_json(prediction: Prediction) -> dict[str, Any]:
    token = prediction.token
    return {
        "routing": prediction.routing,
        "cold": _first_token_json(prediction.cold),
        "warm": _first_token_json(prediction.warm),
        "token_s": token.seconds,
        "token_limit_s": token.limit_s,
        "tokens_per_s": token.per_second,
        "token_missed_bytes": token.missed_bytes,
        "token_bound": token.bound,
    }


def _first_token_json(first: FirstToken) -> dict[str, Any]:
    return {
        "first_token_s": first.seconds,
        "preprocess_s": first.preprocess_s,
        "vision_s": first.vision_s,
        "prefill_s": first.prefill_s,
        "prefill_limit_s": first.prefill_limit_s,
        "missed_bytes": first.missed_bytes,
        "bound": "flash" if first.flash_bound else "computing",
    }


def _times(predictions: Sequence[Prediction], frame: Frame) -> list[str]:
    rows: list[tuple[str, list[str]]] = [
        (
            f"{frame.prefill_tokens} tokens, {frame.image_tokens} of image",
            [f"{each.routing} routing" for each in predictions],
        )
    ]
    for name, label in (("cold", "first frame"), ("warm", "later frames")):
        firsts: list[FirstToken] = [getattr(each, name) for each in predictions]
        rows.append((f"{label}: first token", [f"{first.seconds:.1f} s" for first in firsts]))
        rows.append(("  vision", [f"{first.vision_s:.1f} s" for first in firsts]))
        rows.append(
            ("  prefill (limit)", [f"{first.prefill_s:.1f} s ({first.prefill_limit_s:.1f})" for first in firsts])
        )
        rows.append(("  of flash", [f"{first.missed_bytes / 1e9:.1f} GB" for first in firsts]))
    tokens = [each.token for each in predictions]
    rows.append(("tokens/s (limit)", [f"{token.per_second:.2f} ({1 / token.limit_s:.2f})" for token in tokens]))
    rows.append(("  of flash, a token", [f"{token.missed_bytes / 1e6:.0f} MB" for token in tokens]))
    rows.append(("  bound by", [token.bound for token in tokens]))
    return [f"{label:<{WIDTH + 6}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells) for label, cells in rows]


def _outcome(plan: BoardPlan) -> str:
    if not plan.predictions:
        return ""
    first = plan.predictions[0]
    return f", first token {first.warm.seconds:.1f} s, {first.token.per_second:.2f} tokens/s"


def _assumptions(plan: BoardPlan, frame: Frame) -> list[str]:
    pictures = (
        "pictures choose as many different experts as text does (moedge bench measures it: --prefill-experts)"
        if frame.experts is None
        else f"a prefill chooses {frame.experts:g} different experts of a layer"
    )
    lines = [
        f"Assumed: routing as on a public trace of text (skewed), or no popular experts (uniform); {pictures}; all "
        f"computing on the CPU; later frames find the most popular experts in memory."
    ]
    lines += [
        f"Assumed: {path} = {figure.value:g}: {figure.source}"
        for path, figure in assumed_figures(plan.setup.profile, calibration()).items()
    ]
    return lines
