"""Draws a panel: display, lamps and gauge, and says where each of them is."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from moedge_panel.fonts import SEGMENTS, digit_mask, segment_mask
from moedge_panel.state import PanelState
from moedge_panel.style import Box, Colour, PanelStyle

Point = tuple[float, float]

_LIT: dict[str, Colour] = {
    "red": (255, 40, 30),
    "amber": (255, 175, 20),
    "green": (50, 240, 70),
    "blue": (50, 110, 255),
}
_UNLIT: dict[str, Colour] = {"red": (78, 18, 16), "amber": (82, 58, 14), "green": (16, 66, 24), "blue": (18, 30, 84)}
_OVERSAMPLING = 3


@dataclass(frozen=True)
class Drawing:
    """A rendered panel before the camera.

    Attributes:
        image: RGB picture of the style's size.
        digits: Box of each digit's cell, left to right, in shares of width and height.
        lamps: Box of each fitted lamp, in the order of the state's `fitted`, in shares.
        gauge: Box of the gauge in shares.
    """

    image: Image.Image
    digits: tuple[Box, ...]
    lamps: tuple[Box, ...]
    gauge: Box


def _mix(a: Colour, b: Colour, share_of_b: float) -> Colour:
    r, g, bl = (int(x + (y - x) * share_of_b) for x, y in zip(a, b, strict=True))
    return r, g, bl


def _draw_display(image: Image.Image, style: PanelStyle, text: str) -> list[Box]:
    left, top, right, bottom = style.display
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right, bottom), fill=style.display_back, outline=_mix(style.plate, (0, 0, 0), 0.5))
    detail = np.random.default_rng(style.seed)
    slack_x = max(0.0, (right - left) - style.capacity * style.advance)
    x0 = left + slack_x * detail.uniform(0.1, 0.9) + (style.capacity - len(text)) * style.advance * style.align
    y0 = top + max(0.0, (bottom - top) - style.digit_height) * detail.uniform(0.15, 0.85)
    cell = (max(4, round(style.advance * (0.9 if style.face == SEGMENTS else 1.0))), max(6, round(style.digit_height)))
    boxes: list[Box] = []
    for place, digit in enumerate(text):
        x = round(x0 + place * style.advance)
        if style.face == SEGMENTS:
            if style.ghost:
                ghost = segment_mask("8", cell, style.stroke, style.slant).point(lambda v: int(v * style.ghost))
                image.paste(style.ink, (x, round(y0)), ghost)
            mask = segment_mask(digit, cell, style.stroke, style.slant)
        else:
            mask = digit_mask(style.face, digit, cell)
        image.paste(style.ink, (x, round(y0)), mask)
        boxes.append((x, y0, x + cell[0], y0 + cell[1]))
    return boxes


def _lamp_centres(style: PanelStyle, count: int) -> tuple[list[Point], float]:
    left, top, right, bottom = style.lamps
    columns = count if style.lamp_rows == 1 else 2
    rows = math.ceil(count / columns)
    step_x, step_y = (right - left) / columns, (bottom - top) / rows
    radius = min(step_x, step_y) * 0.36
    radius = max(min(radius, 15 * style.unit), 5 * style.unit)
    return [(left + step_x * (i % columns + 0.5), top + step_y * (i // columns + 0.5)) for i in range(count)], radius


def _draw_lamps(image: Image.Image, style: PanelStyle, state: PanelState) -> list[Box]:
    centres, radius = _lamp_centres(style, len(state.fitted))
    detail = np.random.default_rng(style.seed + 1)
    square, ring = detail.random() < 0.2, _mix(style.plate, (0, 0, 0), 0.6)
    glow = detail.random() < 0.5
    k = _OVERSAMPLING
    for colour, (x, y) in zip(state.fitted, centres, strict=True):
        lit = colour in state.lit
        side = int(radius * 3) + 2
        mask = Image.new("L", (side * k, side * k), 0)
        core = Image.new("L", (side * k, side * k), 0)
        middle, r = side * k / 2, radius * k
        shape = ImageDraw.Draw(mask).rectangle if square else ImageDraw.Draw(mask).ellipse
        shape((middle - r * 1.15, middle - r * 1.15, middle + r * 1.15, middle + r * 1.15), fill=255)
        shape = ImageDraw.Draw(core).rectangle if square else ImageDraw.Draw(core).ellipse
        shape((middle - r, middle - r, middle + r, middle + r), fill=255)
        at = (round(x - side / 2), round(y - side / 2))
        if lit and glow:
            halo = Image.new("L", (side, side), 0)
            ImageDraw.Draw(halo).ellipse((0, 0, side - 1, side - 1), fill=70)
            image.paste(_LIT[colour], at, halo)
        image.paste(ring, at, mask.reduce(k))
        image.paste((_LIT if lit else _UNLIT)[colour], at, core.reduce(k))
        if lit:
            spot = radius * 0.4
            ImageDraw.Draw(image).ellipse(
                (x - spot, y - spot, x + spot, y + spot), fill=_mix(_LIT[colour], (255, 255, 255), 0.55)
            )
    return [(x - radius, y - radius, x + radius, y + radius) for x, y in centres]


def _draw_gauge(image: Image.Image, style: PanelStyle, percent: int) -> None:
    left, top, right, bottom = style.gauge
    share, edge = percent / 100, _mix(style.gauge_back, (128, 128, 128), 0.7)
    draw = ImageDraw.Draw(image)
    if style.gauge_kind == "dial":
        radius = min((right - left) / 2, (bottom - top) * 0.92) - 1
        cx, cy = (left + right) / 2, bottom - (bottom - top - radius) / 2
        draw.pieslice(
            (cx - radius, cy - radius, cx + radius, cy + radius), 180, 360, fill=style.gauge_back, outline=edge
        )
        for tick in range(11):
            angle = math.pi * (1 - tick / 10)
            c, s = math.cos(angle), -math.sin(angle)
            inner = radius * (0.75 if tick % 5 == 0 else 0.87)
            draw.line((cx + c * inner, cy + s * inner, cx + c * radius, cy + s * radius), fill=edge)
        angle = math.pi * (1 - share)
        tip = (cx + math.cos(angle) * radius * 0.9, cy - math.sin(angle) * radius * 0.9)
        draw.line((cx, cy, *tip), fill=style.gauge_ink, width=max(2, round(2.2 * style.unit)))
        hub = 3 * style.unit
        draw.ellipse((cx - hub, cy - hub, cx + hub, cy + hub), fill=style.gauge_ink)
        return
    detail = np.random.default_rng(style.seed + 2)
    thickness = detail.uniform(0.45, 0.8)
    if style.gauge_kind == "bar":
        middle, half = (top + bottom) / 2, min((bottom - top) * thickness / 2, 12 * style.unit)
        draw.rectangle((left, middle - half, right, middle + half), fill=style.gauge_back, outline=edge)
        draw.rectangle(
            (left + 1, middle - half + 1, left + (right - left) * share, middle + half - 1), fill=style.gauge_ink
        )
        draw.line(((left + right) / 2, middle - half - 2, (left + right) / 2, middle + half + 2), fill=edge)
    else:
        middle, half = (left + right) / 2, min((right - left) * thickness / 2, 14 * style.unit)
        draw.rectangle((middle - half, top, middle + half, bottom), fill=style.gauge_back, outline=edge)
        draw.rectangle(
            (middle - half + 1, bottom - (bottom - top) * share, middle + half - 1, bottom - 1), fill=style.gauge_ink
        )
        draw.line((middle - half - 2, (top + bottom) / 2, middle + half + 2, (top + bottom) / 2), fill=edge)


def draw_panel(state: PanelState, style: PanelStyle) -> Drawing:
    """Draws `state` in the look of `style`; the same arguments always give the same picture."""
    width, height = style.size
    image = Image.new("RGB", style.size, style.background)
    ImageDraw.Draw(image).rounded_rectangle((1, 1, width - 2, height - 2), radius=4 * style.unit, fill=style.plate)
    digits = _draw_display(image, style, str(state.reading))
    lamps = _draw_lamps(image, style, state)
    _draw_gauge(image, style, state.gauge_percent)

    def shares(box: Box) -> Box:
        return box[0] / width, box[1] / height, box[2] / width, box[3] / height

    return Drawing(image, tuple(map(shares, digits)), tuple(map(shares, lamps)), shares(style.gauge))
