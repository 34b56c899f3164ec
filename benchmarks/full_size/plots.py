"""Plots of the results, as SVG and PNG: what more memory buys, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter
from moedge_runtime.bench.rounds import FRAMES

CHANGE = FRAMES[-1]
BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
PARTS = (
    ("vision", lambda frame: frame["preprocess_s"] + frame["vision_s"]),
    ("prefill, computing", lambda frame: frame["prefill_compute_s"]),
    ("prefill, waiting for flash", lambda frame: frame["flash_wait_s"]),
)


def draw(results: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write the plots that the results suffice for; their paths."""
    written = []
    if curve := results.get("curve"):
        written += _save(_first_token, curve, directory / "first-token")
        written += _save(_decode, {"curve": curve, "duels": results.get("duels", [])}, directory / "decode")
    if duels := results.get("duels"):
        written += _save(_prefill_of_texts, duels, directory / "prefill")
    return written


def _save(plot: Callable[[Axes, Any], None], values: Any, path: Path) -> list[Path]:
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    plot(axes, values)
    paths = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    for each in paths:
        figure.savefig(each, dpi=150)
    pyplot.close(figure)
    return paths


def _first_token(axes: Axes, curve: Sequence[Mapping[str, Any]]) -> None:
    labels = [f"{budget['cap_gib']} GiB\n{name}" for budget in curve for name in FRAMES]
    frames = [budget["frames"][name] for budget in curve for name in FRAMES]
    bottom = [0.0] * len(frames)
    for label, part in PARTS:
        heights = [part(frame) for frame in frames]
        axes.bar(range(len(frames)), heights, bottom=bottom, label=label)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    limits = [frame["preprocess_s"] + frame["vision_s"] + frame["prefill_limit_s"] for frame in frames]
    axes.plot(range(len(frames)), limits, "k_", markersize=14, label="limit")
    axes.set_xticks(range(len(frames)), labels, rotation=90, fontsize=7)
    axes.set_ylim(0, 1.05 * max(bottom + limits))
    axes.set_ylabel("time to first token (s)")
    axes.legend(**BESIDE)


def _decode(axes: Axes, values: Mapping[str, Any]) -> None:
    curve = values["curve"]
    caps = [budget["cap_gib"] for budget in curve]
    for index, window in enumerate(curve[0]["frames"][CHANGE]["decode"]):
        times = [1e3 * budget["frames"][CHANGE]["decode"][index]["seconds"] for budget in curve]
        axes.plot(caps, times, "o-", label=f"moedge, tokens {window['first']} to {window['last']}")
    limits = [1e3 * budget["frames"][CHANGE]["decode"][-1]["limit_s"] for budget in curve]
    axes.plot(caps, limits, "k:", label="limit of the last window")
    _peers(axes, values["duels"], lambda side: 1e3 * side["token_s"])
    axes.set_ylabel("time of a decoded token after a scene change (ms)")
    _memory_axis(axes)


def _prefill_of_texts(axes: Axes, duels: Sequence[Mapping[str, Any]]) -> None:
    ours = {duel["cap_gib"]: duel["ours"] for duel in duels if duel["routing"] != "uniform"}
    caps = sorted(ours)
    axes.plot(caps, [ours[cap]["prefill_s"] for cap in caps], "o-", label="moedge")
    axes.plot(caps, [ours[cap]["prefill_limit_s"] for cap in caps], "k:", label="limit")
    _peers(axes, duels, lambda side: side["prefill_s"])
    axes.set_ylabel("prefill of 220 tokens (s)")
    _memory_axis(axes)


def _peers(axes: Axes, duels: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> None:
    for peer in dict.fromkeys(duel["peer"] for duel in duels if duel["peer"]):
        points = sorted(
            (duel["cap_gib"], value(duel["theirs"]))
            for duel in duels
            if duel["peer"] == peer and duel["routing"] != "uniform"
        )
        if points:
            axes.plot(*zip(*points, strict=True), "s--", label=peer)


def _memory_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("memory cap (GiB)")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(**BESIDE)
