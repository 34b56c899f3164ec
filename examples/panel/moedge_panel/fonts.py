"""The typefaces of the display: which files train, which are only ever seen in evaluation, and how a glyph is drawn."""

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DEBIAN_FONTS = Path("/usr/share/fonts")


@dataclass(frozen=True)
class Face:
    """One font file.

    Attributes:
        package: PyPI module (`font_…`, files under `files/`) or Debian package (`fonts-…`) that carries it.
        file: File name, or path below /usr/share/fonts for Debian.
    """

    package: str
    file: str

    def path(self) -> Path:
        """Path of the font file.

        Raises:
            FileNotFoundError: The package is not installed.
        """
        if self.package.startswith("fonts-"):
            path = DEBIAN_FONTS / self.file
            install = f"apt-get install {self.package} (Debian 12; examples/panel/requirements-train.txt lists all)"
        else:
            install = "pip install -r examples/panel/requirements-train.txt"
            spec = importlib.util.find_spec(self.package)
            folders = list(spec.submodule_search_locations or ()) if spec else []
            path = Path(folders[0] if folders else ".") / "files" / self.file
        if not path.is_file():
            raise FileNotFoundError(
                f"Font {self.file} of package {self.package} is not installed. Install it: {install}."
            )
        return path


def _faces(package: str, files: str, suffix: str = ".ttf", folder: str = "") -> tuple[Face, ...]:
    return tuple(Face(package, f"{folder}{name}{suffix}") for name in files.split())


SEGMENTS = Face("", "seven-segment")
"""Not a file: digits of seven polygons with random slant and thickness."""

TRAINING_SANS = (
    *_faces("font_roboto", "Roboto-Regular Roboto-Medium Roboto-Bold Roboto-Black"),
    *_faces("font_source_sans_pro", "SourceSansPro-Regular SourceSansPro-Semibold SourceSansPro-Bold"),
    *_faces("font_hanken_grotesk", "HankenGrotesk-Regular HankenGrotesk-SemiBold HankenGrotesk-Bold", ".otf"),
    *_faces("font_manrope", "Manrope-Medium Manrope-Bold Manrope-ExtraBold"),
    *_faces("font_fredoka_one", "FredokaOne-Regular"),
    *_faces("fonts-dejavu-core", "DejaVuSans DejaVuSans-Bold DejaVuSansMono-Bold", folder="truetype/dejavu/"),
    *_faces(
        "fonts-liberation2",
        "LiberationSans-Regular LiberationSans-Bold LiberationMono-Bold",
        folder="truetype/liberation2/",
    ),
    *_faces("fonts-freefont-ttf", "FreeSans FreeSansBold FreeMonoBold", folder="truetype/freefont/"),
    *_faces("fonts-hack", "Hack-Regular Hack-Bold", folder="truetype/hack/"),
    *_faces("fonts-open-sans", "OpenSans-Regular OpenSans-Semibold OpenSans-Bold", folder="truetype/open-sans/"),
    *_faces("fonts-cantarell", "Cantarell-Regular Cantarell-Bold", ".otf", "opentype/cantarell/"),
    *_faces("fonts-noto-mono", "NotoSansMono-Bold", folder="truetype/noto/"),
)
TRAINING_SERIF = (
    *_faces("font_source_serif_pro", "SourceSerifPro-Regular SourceSerifPro-Bold"),
    *_faces("font_caladea", "Caladea-Regular Caladea-Bold"),
    *_faces("fonts-freefont-ttf", "FreeSerifBold", folder="truetype/freefont/"),
    *_faces("fonts-dejavu-core", "DejaVuSerif-Bold", folder="truetype/dejavu/"),
)
HELD_OUT = (
    *_faces("font_lato", "Lato-Regular Lato-Bold Lato-Black"),
    *_faces("font_rhd", "RedHatDisplay-Medium RedHatDisplay-Bold"),
)
"""Two families that no training image uses."""


@lru_cache(maxsize=4096)
def _font(face: Face, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(face.path()), size_px)


@lru_cache(maxsize=256)
def _measure(face: Face) -> tuple[float, float]:
    """Height of the digits and width of the widest one, in units of the font size."""
    font = _font(face, 100)
    boxes = [font.getbbox(str(digit)) for digit in range(10)]
    return max(b[3] - b[1] for b in boxes) / 100, max(b[2] - b[0] for b in boxes) / 100


@lru_cache(maxsize=20000)
def digit_mask(face: Face, digit: str, cell_px: tuple[int, int]) -> Image.Image:
    """Draws a digit as large as fits the cell, centred, one size and one baseline for all ten digits.

    Args:
        face: A face with a file (not `SEGMENTS`).
        digit: One character, 0 to 9.
        cell_px: Width and height of the cell.

    Returns:
        Coverage, mode `L`, of size `cell_px`.
    """
    width, height = cell_px
    unit_height, unit_width = _measure(face)
    font = _font(face, max(8, int(min(height / unit_height, width * 0.94 / unit_width))))
    mask = Image.new("L", cell_px, 0)
    left, _, right, _ = font.getbbox(digit)
    tops = font.getbbox("0123456789")
    y = (height - (tops[3] - tops[1])) / 2 - tops[1]
    ImageDraw.Draw(mask).text(((width - (right - left)) / 2 - left, y), digit, font=font, fill=255)
    return mask


_LIT_SEGMENTS = {
    "0": "abcdef",
    "1": "bc",
    "2": "abdeg",
    "3": "abcdg",
    "4": "bcfg",
    "5": "acdfg",
    "6": "acdefg",
    "7": "abc",
    "8": "abcdefg",
    "9": "abcdfg",
}
_OVERSAMPLING = 3


@lru_cache(maxsize=20000)
def segment_mask(digit: str, cell_px: tuple[int, int], thickness: float, slant: float) -> Image.Image:
    """Draws a seven-segment digit.

    Args:
        digit: One character, 0 to 9.
        cell_px: Width and height of the cell.
        thickness: Stroke as a share of the cell's width, about 0.12 to 0.24.
        slant: Shift of the top against the bottom as a share of the height, 0 to about 0.15.

    Returns:
        Coverage, mode `L`, of size `cell_px`.
    """
    k = _OVERSAMPLING
    width, height = cell_px[0] * k, cell_px[1] * k
    t = thickness * width
    x0, x1 = width * 0.08 + t / 2, width * 0.92 - t / 2 - slant * height * 0.5
    y0, y1 = t / 2 + height * 0.02, height * 0.98 - t / 2
    ym, gap = (y0 + y1) / 2, t * 0.12
    ends = {
        "a": (x0, y0, x1, y0),
        "g": (x0, ym, x1, ym),
        "d": (x0, y1, x1, y1),
        "f": (x0, y0, x0, ym),
        "b": (x1, y0, x1, ym),
        "e": (x0, ym, x0, y1),
        "c": (x1, ym, x1, y1),
    }

    def lean(x: float, y: float) -> tuple[float, float]:
        return x + slant * (height - y) * 0.5, y

    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    for name in _LIT_SEGMENTS[digit]:
        ax, ay, bx, by = ends[name]
        h = t / 2
        if ay == by:
            points = [(ax + gap, ay), (ax + gap + h, ay - h), (bx - gap - h, by - h)]
            points += [(bx - gap, by), (bx - gap - h, by + h), (ax + gap + h, ay + h)]
        else:
            points = [(ax, ay + gap), (ax + h, ay + gap + h), (bx + h, by - gap - h)]
            points += [(bx, by - gap), (bx - h, by - gap - h), (ax - h, ay + gap + h)]
        draw.polygon([lean(x, y) for x, y in points], fill=255)
    return mask.reduce(k)
