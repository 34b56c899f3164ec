"""How a panel looks, apart from what it says: frame size, layout, typeface, colours."""

from dataclasses import dataclass

import numpy as np

from moedge_panel.fonts import HELD_OUT, SEGMENTS, TRAINING_SANS, TRAINING_SERIF, Face

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

FRAME_SIZES = (
    (160, 96), (192, 96), (128, 128), (192, 128), (224, 128), (256, 128),
    (96, 160), (128, 160), (128, 192), (160, 128), (160, 160),
)  # fmt: skip
"""Width and height of frames as the vision tower sees them: multiples of 32, at most 32 merged tokens."""

_FRAME_SHARES = np.array((0.14, 0.14, 0.1, 0.14, 0.1, 0.08, 0.07, 0.06, 0.06, 0.06, 0.05))
_LED_COLOURS: tuple[Colour, ...] = (
    (255, 60, 40), (80, 255, 90), (255, 170, 40), (90, 190, 255), (255, 255, 255), (255, 240, 120), (120, 255, 240),
)  # fmt: skip
MIN_ADVANCE = 18.0
"""Least distance of two digits in pixels of the final frame: never two digit centres in one 16-pixel patch."""
_MAX_ADVANCE = 40.0
_MIN_DIGIT_HEIGHT = 24.0


@dataclass(frozen=True)
class PanelStyle:
    """Everything about a picture of a panel except its state and its camera.

    Attributes:
        size: Width and height of the source frame in pixels.
        unit: Source pixels per pixel of the frame the model sees.
        face: Typeface of the display; `SEGMENTS` for seven segments.
        stroke: Stroke of seven-segment digits as a share of the cell's width.
        slant: Slant of seven-segment digits.
        ghost: Visibility of unlit segments, 0 to about 0.12.
        display, lamps, gauge: Boxes of the three parts.
        lamp_rows: 1 for a row, 2 for a grid of two columns.
        capacity: Digits the display has room for.
        advance: Distance of two digits in source pixels.
        digit_height: Height of a digit in source pixels.
        align: Position of a shorter number: 0 left, 0.5 centre, 1 right.
        gauge_kind: `bar`, `column` or `dial`.
        background, plate, display_back, ink, gauge_back, gauge_ink: Colours.
        seed: Seed of small details (screws, ticks, lettering).
    """

    size: tuple[int, int]
    unit: float
    face: Face
    stroke: float
    slant: float
    ghost: float
    display: Box
    lamps: Box
    gauge: Box
    lamp_rows: int
    capacity: int
    advance: float
    digit_height: float
    align: float
    gauge_kind: str
    background: Colour
    plate: Colour
    display_back: Colour
    ink: Colour
    gauge_back: Colour
    gauge_ink: Colour
    seed: int


def sample_frame_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draws one of `FRAME_SIZES`."""
    return FRAME_SIZES[int(rng.choice(len(FRAME_SIZES), p=_FRAME_SHARES))]


def _source_size(frame: tuple[int, int], rng: np.random.Generator, ease: float) -> tuple[tuple[int, int], float]:
    """A camera size that the image processor resizes to exactly `frame`, and source pixels per frame pixel."""
    if rng.random() > 0.25 * (1 - ease):
        return frame, 1.0
    if rng.random() < 0.15:
        zoom = float(rng.uniform(1.5, 2.2))
        return (round(frame[0] * zoom), round(frame[1] * zoom)), zoom
    width, height = (int(side + rng.integers(-13, 14)) for side in frame)
    return (width, height), max(width / frame[0], height / frame[1])


def _grey(rng: np.random.Generator, low: int, high: int, tint: int = 14) -> Colour:
    base = int(rng.integers(low, high + 1))
    r, g, b = (int(np.clip(base + rng.integers(-tint, tint + 1), 0, 255)) for _ in range(3))
    return r, g, b


def _split(box: Box, shares: tuple[float, ...], horizontal: bool, gap: float) -> list[Box]:
    left, top, right, bottom = box
    start, span = (left, right - left) if horizontal else (top, bottom - top)
    usable, parts = span - gap * (len(shares) - 1), []
    for share in shares:
        length = usable * share / sum(shares)
        parts.append((start, top, start + length, bottom) if horizontal else (left, start, right, start + length))
        start += length + gap
    return parts


def _layout(size: tuple[int, int], unit: float, rng: np.random.Generator) -> tuple[Box, Box, Box]:
    """Boxes of display, lamps and gauge: display above or below a strip (wide frames), or three rows."""
    width, height = size
    margin, gap = unit * rng.uniform(3, 7), unit * rng.uniform(3, 6)
    outer = (margin, margin, width - margin, height - margin)
    if width >= 1.15 * height or rng.random() < 0.35:
        display_first = rng.random() < 0.65
        share = rng.uniform(0.52, 0.62)
        rows = _split(outer, (share, 1 - share) if display_first else (1 - share, share), False, gap)
        display, strip = (rows[0], rows[1]) if display_first else (rows[1], rows[0])
        lamps_first = rng.random() < 0.5
        share = rng.uniform(0.5, 0.6)
        cells = _split(strip, (share, 1 - share) if lamps_first else (1 - share, share), True, gap)
        return (display, cells[0], cells[1]) if lamps_first else (display, cells[1], cells[0])
    order = [int(i) for i in rng.permutation(3)]
    shares = (rng.uniform(0.38, 0.46), rng.uniform(0.22, 0.28), rng.uniform(0.26, 0.32))
    rows = _split(outer, tuple(shares[i] for i in order), False, gap)
    boxes = dict(zip(order, rows, strict=True))
    return boxes[0], boxes[1], boxes[2]


def _face(rng: np.random.Generator, held_out: bool) -> Face:
    if held_out:
        return HELD_OUT[int(rng.integers(len(HELD_OUT)))]
    kind = rng.random()
    if kind < 0.25:
        return SEGMENTS
    faces = TRAINING_SANS if kind < 0.87 else TRAINING_SERIF
    return faces[int(rng.integers(len(faces)))]


def sample_style(
    rng: np.random.Generator,
    digits: int,
    frame: tuple[int, int],
    held_out: bool = False,
    ease: float = 0.0,
) -> PanelStyle:
    """Draws a look in which a number of `digits` digits fits.

    Args:
        rng: Source of all choices.
        digits: Digits of the number to be shown.
        frame: Width and height the model will see (one of `FRAME_SIZES`).
        held_out: Use a typeface of `HELD_OUT` instead of a training one.
        ease: 1 for large, plain pictures (start of training), 0 for the full range.
    """
    size, unit = _source_size(frame, rng, ease)
    display, lamps, gauge = _layout(size, unit, rng)
    capacity = 4 if rng.random() < 0.4 else digits
    room = (display[2] - display[0]) / (capacity + 0.4)
    widest = max(MIN_ADVANCE * unit, min(room, _MAX_ADVANCE * unit))
    advance = rng.uniform(MIN_ADVANCE * unit + (widest - MIN_ADVANCE * unit) * 0.6 * ease, widest)
    tallest = (display[3] - display[1]) * 0.88
    height = np.clip(advance * rng.uniform(1.25, 1.85), min(_MIN_DIGIT_HEIGHT * unit, tallest), tallest)
    face = _face(rng, held_out)
    lcd = rng.random() < 0.35
    if lcd:
        display_back, ink = _grey(rng, 160, 235, 24), _grey(rng, 5, 60)
    else:
        display_back = _grey(rng, 5, 45)
        ink = _LED_COLOURS[int(rng.integers(len(_LED_COLOURS)))]
    box_width, box_height = gauge[2] - gauge[0], gauge[3] - gauge[1]
    kinds = ["bar", "dial"] + (["column"] if box_height > 0.55 * box_width else [])
    dark_gauge = rng.random() < 0.5
    gauge_inks: tuple[Colour, ...] = ((240, 240, 240), (255, 140, 30), (80, 230, 90), (90, 170, 255), (250, 70, 60))
    dark_inks: tuple[Colour, ...] = ((20, 20, 20), (170, 20, 20), (20, 60, 160), (10, 100, 30))
    inks = gauge_inks if dark_gauge else dark_inks
    square = (lamps[2] - lamps[0]) < 2.2 * (lamps[3] - lamps[1])
    return PanelStyle(
        size=size,
        unit=unit,
        face=face,
        stroke=float(rng.uniform(0.14, 0.24)),
        slant=float(rng.choice((0.0, rng.uniform(0.02, 0.13)))),
        ghost=float(rng.choice((0.0, rng.uniform(0.03, 0.12)))),
        display=display,
        lamps=lamps,
        gauge=gauge,
        lamp_rows=2 if square else 1,
        capacity=capacity,
        advance=float(advance),
        digit_height=float(height),
        align=float(rng.choice((0.0, 0.5, 1.0), p=(0.2, 0.4, 0.4))),
        gauge_kind=str(rng.choice(kinds)),
        background=_grey(rng, 20, 200),
        plate=_grey(rng, 30, 220),
        display_back=display_back,
        ink=ink,
        gauge_back=_grey(rng, 10, 50) if dark_gauge else _grey(rng, 190, 240),
        gauge_ink=inks[int(rng.integers(len(inks)))],
        seed=int(rng.integers(2**31)),
    )
