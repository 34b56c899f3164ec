"""Medians of rounds, each beside its limit, as a table and as JSON. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moedge_runtime.bench.frame import FrameMeasurement, Share
from moedge_runtime.bench.limits import Bandwidths, decode_limit_s, prefill_limit_s, windows
from moedge_runtime.bench.rounds import FRAMES, Round


@dataclass(frozen=True)
class Window:
    """Decoded tokens `first` to `last`, counted from 1; times and bytes are of one token, limit of the same.

    Attributes:
        read_bytes: None if the kernel does not count them.
    """

    first: int
    last: int
    seconds: float
    limit_s: float
    read_bytes: float | None


@dataclass(frozen=True)
class FrameFigures:
    """One kind of frame; `prefill_compute_s` and `flash_wait_s` together are the prefill.

    Attributes:
        prefill_limit_s: Of compute and flash wait together.
        prefill_read_bytes: Up to the first token; None if the kernel does not count them.
        prefill_experts: Different experts of a layer that the prefill chose, on average over the layers.
        decode: By window.
    """

    name: str
    prefill_tokens: int
    image_tokens: int
    first_token_s: float
    preprocess_s: float
    vision_s: float
    prefill_compute_s: float
    flash_wait_s: float
    prefill_limit_s: float
    prefill_read_bytes: float | None
    prefill_experts: float
    decode: list[Window]


@dataclass(frozen=True)
class Figures:
    """Medians of all rounds; a window that not every round reached is of those that did.

    Attributes:
        about: Machine, versions and date.
        memory: How the process divided its memory.
        pause_s: Idle before every frame.
        peak_bytes: Of the process, mapped files included.
        group_peak_bytes: Of its control group, page cache included; None if it is in none.
    """

    bundle: str
    about: str
    memory: str
    pause_s: float
    rounds: int
    memory_bytes_per_s: float
    flash_bytes_per_s: float
    load_s: float
    frames: list[FrameFigures]
    peak_bytes: int
    group_peak_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return asdict(self)


def figures(
    bundle: str,
    rounds: Sequence[Round],
    token_bytes: int,
    *,
    about: str,
    pause_s: float,
    peak_bytes: int,
    group_peak_bytes: int | None,
) -> Figures:
    """Figures of at least one round; `token_bytes` as in `limits`."""
    return Figures(
        bundle=bundle,
        about=about,
        memory=rounds[0].memory,
        pause_s=pause_s,
        rounds=len(rounds),
        memory_bytes_per_s=rounds[0].bandwidths.memory,
        flash_bytes_per_s=statistics.median(each.bandwidths.flash for each in rounds),
        load_s=statistics.median(each.load_s for each in rounds),
        frames=[
            frame_figures(name, [(each.frames[index], each.bandwidths) for each in rounds], token_bytes)
            for index, name in enumerate(FRAMES)
        ],
        peak_bytes=peak_bytes,
        group_peak_bytes=group_peak_bytes,
    )


def frame_figures(
    name: str,
    measured: Sequence[tuple[FrameMeasurement, Bandwidths]],
    token_bytes: int,
    resident_s: float | None = None,
) -> FrameFigures:
    """Medians of one kind of frame.

    Args:
        name: Of the kind.
        measured: Frames, each with the bandwidths around it.
        token_bytes: As in `limits`.
        resident_s: Time of the same prefill with all experts in memory; None takes what each prefill computed itself.
    """

    def median(value: Callable[[FrameMeasurement], float]) -> float:
        return statistics.median(value(frame) for frame, _ in measured)

    def limit(frame: FrameMeasurement, bandwidths: Bandwidths) -> float:
        compute_s = frame.prefill.seconds - frame.prefill.flash_wait_s if resident_s is None else resident_s
        return prefill_limit_s(frame.prefill.missed_bytes, compute_s, bandwidths)

    first = measured[0][0]
    longest = max(len(frame.decode) for frame, _ in measured)
    return FrameFigures(
        name=name,
        prefill_tokens=first.prefill_tokens,
        image_tokens=first.image_tokens,
        first_token_s=median(lambda frame: frame.first_token_s),
        preprocess_s=median(lambda frame: frame.preprocess_s),
        vision_s=median(lambda frame: frame.vision_s),
        prefill_compute_s=median(lambda frame: frame.prefill.seconds - frame.prefill.flash_wait_s),
        flash_wait_s=median(lambda frame: frame.prefill.flash_wait_s),
        prefill_limit_s=statistics.median(limit(*each) for each in measured),
        prefill_read_bytes=_median_bytes([frame.prefill.read_bytes for frame, _ in measured]),
        prefill_experts=median(lambda frame: frame.prefill_experts),
        decode=[
            window_figures(
                window,
                [(frame.decode, widths) for frame, widths in measured if len(frame.decode) >= window[1]],
                token_bytes,
            )
            for window in windows(longest)
        ],
    )


def window_figures(
    window: tuple[int, int], measured: Sequence[tuple[Sequence[Share], Bandwidths]], token_bytes: int
) -> Window:
    """Medians of one window over frames that all reach its end."""
    first, last = window
    count = last - first + 1
    parts = [(decode[first - 1 : last], bandwidths) for decode, bandwidths in measured]
    return Window(
        first=first,
        last=last,
        seconds=statistics.median(sum(share.seconds for share in shares) / count for shares, _ in parts),
        limit_s=statistics.median(
            decode_limit_s(sum(share.missed_bytes for share in shares), count, token_bytes, bandwidths) / count
            for shares, bandwidths in parts
        ),
        read_bytes=_median_bytes([share.read_bytes for shares, _ in parts for share in shares], mean=True),
    )


def text_table(measured: Figures) -> str:
    """The figures for a terminal."""
    frames = measured.frames
    rows: list[tuple[str, list[str]]] = [("", [frame.name for frame in frames])]

    def row(label: str, value: Callable[[FrameFigures], str]) -> None:
        rows.append((label, [value(frame) for frame in frames]))

    row("tokens to prefill (of images)", lambda frame: f"{frame.prefill_tokens} ({frame.image_tokens})")
    row("time to first token", lambda frame: _seconds(frame.first_token_s))
    row("  picture to patches", lambda frame: _seconds(frame.preprocess_s))
    row("  vision", lambda frame: _seconds(frame.vision_s))
    row("  prefill, computing", lambda frame: _seconds(frame.prefill_compute_s))
    row("  prefill, waiting for flash", lambda frame: _seconds(frame.flash_wait_s))
    row("  prefill, tokens a second", lambda frame: _rate(frame.prefill_tokens, _prefill_s(frame)))
    row("  prefill's limit", lambda frame: _limit(_prefill_s(frame), frame.prefill_limit_s))
    row("read up to the first token", lambda frame: _megabytes(frame.prefill_read_bytes))
    row("experts of a layer that the prefill chose", lambda frame: f"{frame.prefill_experts:.1f}")
    reached = max((frame.decode for frame in frames), key=len)
    for index, window in enumerate(reached):
        row(
            f"decoded tokens {window.first} to {window.last}, each",
            _of_window(index, lambda window: _seconds(window.seconds)),
        )
        row("  tokens a second", _of_window(index, lambda window: _rate(1, window.seconds)))
        row("  limit", _of_window(index, lambda window: _limit(window.seconds, window.limit_s)))
        row("  read", _of_window(index, lambda window: _megabytes(window.read_bytes)))
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:<{width}}" + "".join(f"  {cell:>20}" for cell in cells) for label, cells in rows]
    group = (
        ""
        if measured.group_peak_bytes is None
        else f", of its control group {measured.group_peak_bytes / 2**20:,.0f} MiB"
    )
    return "\n".join(
        [
            *lines,
            "",
            f"memory {measured.memory_bytes_per_s / 1e9:.1f} GB/s, flash {measured.flash_bytes_per_s / 1e9:.2f} GB/s, "
            f"load {measured.load_s:.1f} s, peak of the process {measured.peak_bytes / 2**20:,.0f} MiB{group}; "
            f"median of {measured.rounds}, {measured.pause_s:g} s idle before each frame",
            measured.memory,
            measured.about,
            "A limit is the longer of missing bytes at the flash's bandwidth and, for a prefill, its computing; for a "
            "decoded token, its weights at the memory's bandwidth.",
        ]
    )


def _of_window(index: int, cell: Callable[[Window], str]) -> Callable[[FrameFigures], str]:
    """The cell of a frame's window, or a dash where its decoding ended before."""
    return lambda frame: cell(frame.decode[index]) if index < len(frame.decode) else "–"


def _prefill_s(frame: FrameFigures) -> float:
    return frame.prefill_compute_s + frame.flash_wait_s


def _rate(count: int, seconds: float) -> str:
    if seconds <= 0:
        return "–"
    rate = count / seconds
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"


def _limit(value: float, limit_s: float) -> str:
    return f"{_seconds(limit_s)} ({value / limit_s:.2f}×)" if limit_s > 0 else "–"


def _megabytes(nbytes: float | None) -> str:
    return "–" if nbytes is None else f"{nbytes / 1e6:,.1f} MB"


def _median_bytes(values: Sequence[int | None], *, mean: bool = False) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return sum(known) / len(known) if mean else float(statistics.median(known))
