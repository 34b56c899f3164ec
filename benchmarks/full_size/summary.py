"""What was measured as plain numbers: kept as JSON by part, and drawn as the table of docs/performance.md. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from moedge_runtime.bench.limits import windows
from moedge_runtime.bench.rounds import FRAMES
from moedge_runtime.bench.table import frame_figures

from full_size.curve import Budget
from full_size.duel import Duel
from full_size.systems import GIB, TextFrame

Results = Mapping[str, Any]
"""By part: `curve` and `duels`."""


def summary_of_duel(duel: Duel, routing: str, token_bytes: int, resident_s: float | None) -> dict[str, Any]:
    """Medians of both sides of a duel."""
    return {
        "routing": routing,
        "cap_gib": duel.cap_bytes / GIB,
        "peer": duel.peer,
        "ours": _side(duel.ours)
        | {
            "prefill_limit_s": statistics.median(duel.prefill_limits(resident_s)),
            "token_limit_s": statistics.median(duel.decode_limits(token_bytes)),
        },
        "theirs": _side(duel.theirs) if duel.theirs else None,
        "prefill_ratio": statistics.median(duel.prefill_ratios()) if duel.theirs else None,
        "decode_ratio": statistics.median(duel.decode_ratios()) if duel.theirs else None,
        "peak_bytes": duel.peaks,
    }


def summary_of_curve(
    budgets: Sequence[Budget], token_bytes: int, resident_s: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Medians of every budget.

    Args:
        budgets: As measured.
        token_bytes: See `moedge_runtime.bench.limits.token_bytes`.
        resident_s: Time of a prefill with all experts in memory, by kind of frame.
    """
    return [
        {
            "cap_gib": budget.cap_gib,
            "frames": {
                name: asdict(frame_figures(name, measured, token_bytes, resident_s.get(name)))
                for name, measured in budget.frames.items()
            },
            "peak_bytes": budget.peak_bytes,
            "anonymous_bytes": budget.anonymous_bytes,
        }
        for budget in budgets
    ]


def resident_prefill_s(budgets: Sequence[Budget]) -> dict[str, float]:
    """Time that the prefill of each kind of frame computed under the largest cap, by kind."""
    largest = max(budgets, key=lambda budget: budget.cap_gib)
    return {
        name: statistics.median(frame.prefill.seconds - frame.prefill.flash_wait_s for frame, _ in measured)
        for name, measured in largest.frames.items()
    }


def markdown(results: Results) -> str:
    """Tables of all parts that were measured."""
    parts = []
    if duels := results.get("duels"):
        parts.append(_duel_table(duels))
    if curve := results.get("curve"):
        parts += [_frame_table(curve), _window_table(curve)]
    return "\n\n".join(parts) + "\n"


def _side(frames: Sequence[TextFrame]) -> dict[str, Any]:
    decoded = min(len(frame.decode_s) for frame in frames)
    return {
        "prefill_s": statistics.median(frame.prefill_s for frame in frames),
        "prefill_read_bytes": statistics.median(frame.prefill_read_bytes for frame in frames),
        "token_s": statistics.median(frame.token_s for frame in frames),
        "token_read_bytes": statistics.median(statistics.mean(frame.decode_read_bytes) for frame in frames),
        "windows": [
            {
                "first": first,
                "last": last,
                "token_s": statistics.median(statistics.mean(frame.decode_s[first - 1 : last]) for frame in frames),
            }
            for first, last in windows(decoded)
        ],
    }


def _duel_table(duels: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "| routing | cap | peer | prefill: moedge | limit | peer | ratio "
        "| a decoded token: moedge | limit | peer | ratio | read a token: moedge | peer |",
        "|" + "---|" * 13,
    ]
    for duel in duels:
        ours, theirs = duel["ours"], duel["theirs"]
        cells = [
            duel["routing"],
            f"{duel['cap_gib']:.0f} GiB",
            duel["peer"] or "–",
            seconds(ours["prefill_s"]),
            seconds(ours["prefill_limit_s"]),
            seconds(theirs["prefill_s"]) if theirs else "–",
            f"{duel['prefill_ratio']:.2f}" if theirs else "–",
            seconds(ours["token_s"]),
            seconds(ours["token_limit_s"]),
            seconds(theirs["token_s"]) if theirs else "–",
            f"{duel['decode_ratio']:.2f}" if theirs else "–",
            megabytes(ours["token_read_bytes"]),
            megabytes(theirs["token_read_bytes"]) if theirs else "–",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _frame_table(curve: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "| cap | frame | first token | vision | prefill, computing | waiting for flash | prefill's limit "
        "| read until then | peak, without page cache |",
        "|" + "---|" * 9,
    ]
    for budget in curve:
        for name in FRAMES:
            frame = budget["frames"][name]
            cells = [
                f"{budget['cap_gib']} GiB",
                name,
                seconds(frame["first_token_s"]),
                seconds(frame["preprocess_s"] + frame["vision_s"]),
                seconds(frame["prefill_compute_s"]),
                seconds(frame["flash_wait_s"]),
                seconds(frame["prefill_limit_s"]),
                megabytes(frame["prefill_read_bytes"]),
                f"{budget['anonymous_bytes'] / GIB:.2f} GiB",
            ]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _window_table(curve: Sequence[Mapping[str, Any]]) -> str:
    windows_of = curve[0]["frames"][FRAMES[0]]["decode"]
    titles = [f"tokens {each['first']}–{each['last']}, each | limit | read" for each in windows_of]
    rows = ["| cap | frame | " + " | ".join(titles) + " |", "|" + "---|" * (2 + 3 * len(titles))]
    for budget in curve:
        for name in FRAMES:
            cells = [f"{budget['cap_gib']} GiB", name]
            for each in budget["frames"][name]["decode"]:
                cells += [seconds(each["seconds"]), seconds(each["limit_s"]), megabytes(each["read_bytes"])]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def seconds(value: float) -> str:
    """For a table: seconds from one on, milliseconds below."""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.0f} ms"


def megabytes(nbytes: float | None) -> str:
    """For a table; a dash for what the kernel does not count."""
    return "–" if nbytes is None else f"{nbytes / 1e6:,.0f} MB"
