"""What a camera does to a panel: tilt, light, blur, noise, compression."""

import io

import numpy as np
from PIL import Image, ImageFilter

from moedge_panel.render import Drawing
from moedge_panel.style import Box


def _tilt(drawing: Drawing, degrees: float) -> Drawing:
    """Turns the picture about its middle; parts move by at most a few pixels, so boxes are moved, not turned."""
    image = drawing.image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=drawing.image.getpixel((2, 2)))
    width, height = image.size
    angle = np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))

    def turn(box: Box) -> Box:
        x, y = ((box[0] + box[2]) / 2 - 0.5) * width, ((box[1] + box[3]) / 2 - 0.5) * height
        half_x, half_y = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
        to_x, to_y = (x * cos + y * sin) / width + 0.5, (-x * sin + y * cos) / height + 0.5
        return to_x - half_x, to_y - half_y, to_x + half_x, to_y + half_y

    return Drawing(image, tuple(map(turn, drawing.digits)), tuple(map(turn, drawing.lamps)), turn(drawing.gauge))


def _light(pixels: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Shade across the frame, brightness, contrast, colour cast; in and out float32 [height, width, 3], 0 to 255."""
    height, width = pixels.shape[:2]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * rng.uniform(-0.25, 0.25) * strength
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.uniform(-0.25, 0.25) * strength
    gain = 1 + rng.uniform(-0.35, 0.2) * strength + across + down
    cast = (1 + rng.uniform(-0.08, 0.08, 3) * strength).astype(np.float32)
    lift = rng.uniform(0, 30) * strength
    return (pixels * gain[..., None] * cast * (1 - lift / 255) + lift).astype(np.float32)


def photograph(drawing: Drawing, rng: np.random.Generator, strength: float = 1.0) -> Drawing:
    """Passes a drawing through a random camera.

    Args:
        drawing: The clean picture.
        rng: Source of all choices.
        strength: 0 for an untouched picture, 1 for the full range of training.

    Returns:
        The picture as RGB with the same places of digits, lamps and gauge (turned with it).
    """
    if strength > 0 and rng.random() < 0.35:
        drawing = _tilt(drawing, float(rng.uniform(-2, 2) * strength))
    image = drawing.image
    scale = image.size[0] * image.size[1] / 25000
    if rng.random() < 0.45 * strength:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.1)) * max(1.0, scale**0.5 * 0.8)))
    pixels = np.asarray(image, dtype=np.float32)
    if strength > 0:
        pixels = _light(pixels, rng, strength)
        if rng.random() < 0.6:
            sigma = rng.uniform(1, 10) * strength
            pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(sigma)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.5 * strength:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(45, 95)))
        image = Image.open(buffer).convert("RGB")
    return Drawing(image, drawing.digits, drawing.lamps, drawing.gauge)
