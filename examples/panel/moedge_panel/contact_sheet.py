"""One picture of many frames with what was said about them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

COLUMNS = 5
MARGIN = 6
LINE_HEIGHT = 15
RIGHT, WRONG, PAPER, INK = (24, 120, 60), (200, 30, 30), (250, 250, 248), (30, 30, 30)


@dataclass(frozen=True)
class Tile:
    """A frame, a line about it and whether the line is right."""

    frame: int
    label: str
    right: bool


def write_contact_sheet(video: Path, tiles: list[Tile], path: Path) -> None:
    """Write a PNG with every frame that `tiles` name, in order, and under it all of its lines; wrong ones are red."""
    lines: dict[int, list[Tile]] = defaultdict(list)
    for tile in tiles:
        lines[tile.frame].append(tile)
    pictures = _frames(video, set(lines))
    width, height = next(iter(pictures.values())).size if pictures else (1, 1)
    tile_height = height + LINE_HEIGHT * max((len(found) for found in lines.values()), default=0) + MARGIN
    rows = -(-len(lines) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (width + MARGIN) + MARGIN, rows * (tile_height + MARGIN) + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, frame in enumerate(sorted(lines)):
        x = MARGIN + place % COLUMNS * (width + MARGIN)
        y = MARGIN + place // COLUMNS * (tile_height + MARGIN)
        sheet.paste(pictures[frame], (x, y))
        for number, tile in enumerate(lines[frame]):
            top = y + height + 1 + number * LINE_HEIGHT
            draw.ellipse((x + 1, top + 3, x + 9, top + 11), fill=RIGHT if tile.right else WRONG)
            draw.text((x + 13, top), tile.label, fill=INK if tile.right else WRONG, font=font)
    sheet.save(path, optimize=True)


def _frames(video: Path, wanted: set[int]) -> dict[int, Image.Image]:
    with av.open(str(video)) as container:
        return {index: frame.to_image() for index, frame in enumerate(container.decode(video=0)) if index in wanted}
