"""Draws the test pictures of the packs: `python tests/runtime/packs/draw.py`. Drawings, and meant to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from moedge_runtime.packs.read import ROOT
from PIL import Image, ImageDraw

SIZE = (320, 240)
SEGMENTS = {
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc",
    "5": "afgcd", "6": "afgedc", "7": "abc", "8": "abcdefg", "9": "abcdfg",
}  # fmt: skip

Pen = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


def meter(reading: str, fog: bool = False) -> Image.Image:
    """A counter with three red digits behind the point."""
    picture, pen = _canvas((88, 96, 104))
    pen.ellipse((40, 0, 280, 240), fill=(214, 216, 210), outline=(40, 40, 40), width=4)
    pen.rectangle((62, 84, 258, 134), fill=(16, 16, 16))
    for place, digit in enumerate(reading):
        _digit(pen, 68 + place * 24, 90, digit, (230, 60, 50) if place >= 5 else (240, 240, 240))
    pen.text((146, 150), "m3", fill=(20, 20, 20))
    if fog:
        pen.rectangle((50, 70, 270, 150), fill=(190, 196, 198))
    return picture


def shelf(missing: set[tuple[int, int]]) -> Image.Image:
    """Three rows of seven boxes."""
    picture, pen = _canvas((120, 112, 100))
    for row in range(3):
        pen.rectangle((10, 76 + row * 72, 310, 82 + row * 72), fill=(70, 60, 50))
        for place in range(7):
            if (row, place) not in missing:
                left = 16 + place * 42
                colour = ((200, 70, 60), (70, 150, 80), (60, 90, 190))[row]
                pen.rectangle((left, 28 + row * 72, left + 34, 75 + row * 72), fill=colour, outline=(30, 30, 30))
    return picture


def site(people: list[tuple[int, bool, bool]]) -> Image.Image:
    """A building site with people: left edge, helmet, vest."""
    picture, pen = _canvas((168, 190, 205))
    pen.rectangle((0, 150, 320, 240), fill=(150, 130, 100))
    pen.polygon([(20, 150), (20, 40), (60, 40), (60, 150)], fill=(120, 120, 124))
    for left, helmet, vest in people:
        _person(pen, left, 60, (245, 120, 30) if vest else (60, 60, 80))
        if helmet:
            pen.pieslice((left + 8, 52, left + 40, 88), 180, 360, fill=(250, 210, 40))
    return picture


def car_park(taken: set[int]) -> Image.Image:
    """Five places from above."""
    picture, pen = _canvas((92, 94, 96))
    for line in range(6):
        pen.rectangle((10 + line * 58, 60, 13 + line * 58, 190), fill=(235, 235, 235))
    for place in taken:
        colour = ((180, 40, 40), (40, 70, 150), (230, 230, 225), (30, 30, 34), (150, 150, 60))[place]
        left = 21 + place * 58
        pen.rounded_rectangle((left, 74, left + 40, 176), 10, fill=colour, outline=(10, 10, 10))
        pen.rectangle((left + 6, 98, left + 34, 116), fill=(150, 180, 200))
    return picture


def field(damaged: bool) -> Image.Image:
    """Rows of plants."""
    picture, pen = _canvas((112, 84, 58))
    for row in range(4):
        for place in range(6):
            x, y = 12 + place * 52, 8 + row * 58
            ill = damaged and (row + place) % 3 == 0
            colour = (190, 180, 60) if ill else (60, 140 + (row * 7 + place * 11) % 30, 50)
            for dx, dy in ((0, 8), (16, 0), (16, 18), (30, 10)):
                pen.ellipse((x + dx - 8, y + dy, x + dx + 14, y + dy + 20), fill=colour)
    return picture


def door(person: bool, parcel: bool) -> Image.Image:
    """A door, perhaps with somebody before it."""
    picture, pen = _canvas((176, 168, 150))
    pen.rectangle((110, 20, 210, 220), fill=(96, 62, 40), outline=(50, 32, 20), width=4)
    pen.ellipse((192, 120, 202, 130), fill=(220, 200, 90))
    if person:
        _person(pen, 132, 60, (50, 80, 140))
    if parcel:
        pen.rectangle((216, 180, 262, 220), fill=(190, 150, 100), outline=(90, 70, 40), width=3)
    return picture


def brighter(picture: Image.Image, by: int) -> Image.Image:
    """The whole picture brighter, or darker: a cloud, a lamp."""
    return picture.point(lambda value: max(0, min(255, value + by)))


GAPS = {(1, 1), (1, 4), (2, 0), (2, 2), (2, 3), (2, 6)}

PICTURES: dict[str, Callable[[], Image.Image]] = {
    "meter_reading/reading": lambda: meter("01734285"),
    "meter_reading/later": lambda: meter("01735061"),
    "meter_reading/fogged": lambda: meter("01735900", fog=True),
    "shelf_stock/full": lambda: shelf(set()),
    "shelf_stock/full_dimmer": lambda: brighter(shelf(set()), -14),
    "shelf_stock/gaps": lambda: shelf(GAPS),
    "safety_gear/empty": lambda: site([]),
    "safety_gear/empty_brighter": lambda: brighter(site([]), 20),
    "safety_gear/equipped": lambda: site([(90, True, True)]),
    "safety_gear/bare_head": lambda: site([(90, True, True), (200, False, False)]),
    "parking/two_free": lambda: car_park({0, 2, 3}),
    "parking/two_free_dusk": lambda: brighter(car_park({0, 2, 3}), -20),
    "parking/taken": lambda: car_park({0, 1, 2, 3, 4}),
    "crops/healthy": lambda: field(False),
    "crops/damaged": lambda: field(True),
    "door_visitors/nobody": lambda: door(False, False),
    "door_visitors/nobody_darker": lambda: brighter(door(False, False), -18),
    "door_visitors/visitor": lambda: door(True, False),
    "door_visitors/delivery": lambda: door(True, True),
}


def pictures() -> Iterator[tuple[Path, Image.Image]]:
    """Every picture and its file."""
    for name, draw in PICTURES.items():
        yield ROOT / f"{name}.png", draw()


def _canvas(colour: Colour) -> tuple[Image.Image, Pen]:
    picture = Image.new("RGB", SIZE, colour)
    return picture, ImageDraw.Draw(picture)


def _person(pen: Pen, left: int, top: int, clothes: Colour) -> None:
    pen.ellipse((left + 10, top, left + 38, top + 32), fill=(224, 180, 150))
    pen.rounded_rectangle((left, top + 34, left + 48, top + 108), 8, fill=clothes)
    pen.rectangle((left + 6, top + 108, left + 20, top + 160), fill=(40, 44, 60))
    pen.rectangle((left + 28, top + 108, left + 42, top + 160), fill=(40, 44, 60))


def _digit(pen: Pen, x: int, y: int, digit: str, colour: Colour) -> None:
    """A seven-segment digit, 14 x 38."""
    bars = {
        "a": (x, y, x + 14, y + 3), "g": (x, y + 17, x + 14, y + 20), "d": (x, y + 35, x + 14, y + 38),
        "f": (x, y, x + 3, y + 19), "b": (x + 11, y, x + 14, y + 19),
        "e": (x, y + 18, x + 3, y + 38), "c": (x + 11, y + 18, x + 14, y + 38),
    }  # fmt: skip
    for segment in SEGMENTS[digit]:
        pen.rectangle(bars[segment], fill=colour)


if __name__ == "__main__":
    for path, picture in pictures():
        picture.save(path, optimize=True)
