"""Makes the demonstration video of a panel and its truth: `python -m moedge_panel.video --out examples/panel/video`."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import ImageFilter

from moedge_panel.fonts import SEGMENTS
from moedge_panel.questions import all_questions, thinking_text
from moedge_panel.render import draw_panel
from moedge_panel.state import PanelState
from moedge_panel.style import PanelStyle

FRAMES_PER_SECOND = 8
FRAMES_PER_STATE = 24
STATES = 40
SIZE = (320, 160)
"""Width and height; the image processor scales it to 256 × 128."""

_NOISE_SIGMA = 2.0
_GAUGE_LOW, _GAUGE_HIGH = (12, 40), (60, 90)
"""Percent, inclusive; the checkpoint takes this bar at 5 to 6 % for a full one (README)."""
_FITTED = ("red", "amber", "green")


def video_style() -> PanelStyle:
    """The one look of the video: green seven-segment digits, a row of lamps, a bar gauge."""
    return PanelStyle(
        size=SIZE, unit=1.25, face=SEGMENTS, stroke=0.18, slant=0.05, ghost=0.05,
        display=(12, 12, 308, 92), lamps=(12, 100, 170, 148), gauge=(182, 104, 304, 146), lamp_rows=1,
        capacity=4, advance=44, digit_height=64, align=1.0, gauge_kind="bar",
        background=(52, 56, 60), plate=(118, 122, 126), display_back=(14, 18, 16), ink=(90, 245, 110),
        gauge_back=(24, 24, 28), gauge_ink=(250, 160, 40), seed=5,
    )  # fmt: skip


def video_states(seed: int, count: int = STATES) -> list[PanelState]:
    """A walk of the reading with jumps; lamps and gauge change now and then; no two neighbours are equal.

    Args:
        seed: Seed of the walk.
        count: Number of states.
    """
    rng = np.random.default_rng([seed, 3])
    reading, lit, percent = 1240, {"green"}, 30
    states: list[PanelState] = []
    seen: set[int] = set()
    while len(states) < count:
        if rng.random() < 0.25:
            reading = int(rng.integers(10, 10000))
        else:
            reading = int(np.clip(reading + rng.integers(-180, 181), 10, 9999))
        if reading in seen:
            continue
        seen.add(reading)
        if rng.random() < 0.6:
            lit ^= {_FITTED[int(rng.integers(len(_FITTED)))]}
        if rng.random() < 0.4:
            low, high = _GAUGE_HIGH if percent < 50 else _GAUGE_LOW
            percent = int(rng.integers(low, high + 1))
        states.append(PanelState(reading, _FITTED, tuple(c for c in _FITTED if c in lit), percent))
    return states


@dataclass(frozen=True)
class Span:
    """A state and the frames that show it, end exclusive."""

    state: PanelState
    first_frame: int
    end_frame: int


def spans(states: list[PanelState]) -> list[Span]:
    """One span of `FRAMES_PER_STATE` frames per state."""
    return [Span(s, i * FRAMES_PER_STATE, (i + 1) * FRAMES_PER_STATE) for i, s in enumerate(states)]


def frames(states: list[PanelState], seed: int) -> Iterator[np.ndarray]:
    """RGB frames, uint8 [height, width, 3], with slowly changing light and a little sensor noise."""
    rng, style = np.random.default_rng([seed, 4]), video_style()
    for number, state in enumerate(states):
        drawn = draw_panel(state, style).image.filter(ImageFilter.GaussianBlur(0.6))
        clean = np.asarray(drawn, dtype=np.float32)
        for inner in range(FRAMES_PER_STATE):
            second = (number * FRAMES_PER_STATE + inner) / FRAMES_PER_SECOND
            light = 0.92 + 0.08 * np.sin(second / 9)
            noise = rng.normal(0, _NOISE_SIGMA, clean.shape)
            yield np.clip(clean * light + noise, 0, 255).astype(np.uint8)


def truth_lines(states: list[PanelState]) -> Iterator[str]:
    """One JSON object a line for each state: frames, seconds, what is shown, and the answer to every question."""
    for span in spans(states):
        state = span.state
        yield json.dumps(
            {
                "first_frame": span.first_frame,
                "end_frame": span.end_frame,
                "start_s": span.first_frame / FRAMES_PER_SECOND,
                "end_s": span.end_frame / FRAMES_PER_SECOND,
                "reading": state.reading,
                "lamps": list(state.lit),
                "gauge": state.gauge,
                "gauge_percent": state.gauge_percent,
                "thinking": thinking_text(state),
                "answers": {q.question: q.answer for q in all_questions(state)},
            }
        )


def write_video(folder: Path, seed: int) -> None:
    """Writes panel.mp4 (H.264, 4:2:0) and truth.jsonl into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    states = video_states(seed)
    with av.open(str(folder / "panel.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "26", "preset": "slow", "threads": "1", "g": str(FRAMES_PER_STATE)}
        for pixels in frames(states, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    (folder / "truth.jsonl").write_text("".join(line + "\n" for line in truth_lines(states)))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write_video(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
