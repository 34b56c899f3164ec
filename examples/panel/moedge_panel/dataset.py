"""Training pictures: rendered in worker processes, chunk by chunk, with a label for every 16-pixel patch."""

import multiprocessing as mp
import os
import queue
from dataclasses import dataclass

import numpy as np
from PIL import Image

from moedge_panel.camera import photograph
from moedge_panel.model_config import MERGE, PATCH
from moedge_panel.render import Drawing, draw_panel
from moedge_panel.state import LAMP_COLOURS, PanelState, sample_state
from moedge_panel.style import Box, sample_frame_size, sample_style

CHUNK = 32
"""Images in a chunk; all of one size."""

LABEL_CLASSES = (11, 5, 9, 9)
"""Classes per patch of: digit (0 none), place of the digit from the left (0 none), lamp colour and light (0 none),
gauge level (0 no gauge here, 1 to 4 low, 5 to 8 high)."""


LABEL_NAMES = ("digits", "places", "lamps", "gauge")

IGNORED = 255
"""Label of a patch on the edge of something."""


@dataclass
class Chunk:
    """Rendered images of one size.

    Attributes:
        images: uint8 [images, height, width, 3], sides multiples of 32.
        labels: uint8 [images, merged tokens, 4 patches, 4 label kinds] (`LABEL_CLASSES`).
        states: What each image shows.
    """

    images: np.ndarray
    labels: np.ndarray
    states: list[PanelState]


def gauge_class(percent: int) -> int:
    """1 to 4 for 5 to 40 %, 5 to 8 for 60 to 95 %."""
    return 1 + min(3, (percent - 5) // 9) if percent <= 50 else 5 + min(3, (percent - 60) // 9)


def patch_labels(drawing: Drawing, state: PanelState, frame: tuple[int, int]) -> np.ndarray:
    """Labels of every patch, uint8 [merged tokens, 4, 4], patches in the order of the vision tower.

    A patch belongs to a digit when the patch's middle lies well inside the digit's cell, and so on; patches on an
    edge are `IGNORED`, so that no label hangs on a single pixel. The patch nearest to a centre is always labelled.
    """
    columns, rows = frame[0] // PATCH, frame[1] // PATCH
    grid = np.zeros((rows, columns, 4), dtype=np.uint8)
    x_at = ((np.arange(columns) + 0.5) / columns)[None, :]
    y_at = ((np.arange(rows) + 0.5) / rows)[:, None]

    def mark(box: Box, kinds: list[tuple[int, int]], inner: float, outer: float) -> None:
        middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        far_x = np.abs(x_at - middle_x) / ((box[2] - box[0]) / 2)
        far_y = np.abs(y_at - middle_y) / ((box[3] - box[1]) / 2)
        far = np.maximum(far_x, far_y)
        inside = far <= inner
        nearest = np.hypot((x_at - middle_x) * columns, (y_at - middle_y) * rows).argmin()
        inside.flat[nearest] = True
        edge = (far <= outer) & ~inside
        for kind, value in kinds:
            layer = grid[..., kind]
            layer[edge & (layer == 0)] = IGNORED
            layer[inside] = value

    mark(drawing.gauge, [(3, gauge_class(state.gauge_percent))], 0.9, 1.25)
    for number, (box, digit) in enumerate(zip(drawing.digits, str(state.reading), strict=True)):
        mark(box, [(0, 1 + int(digit)), (1, 1 + number)], 0.65, 1.2)
    for box, colour in zip(drawing.lamps, state.fitted, strict=True):
        mark(box, [(2, 1 + 2 * LAMP_COLOURS.index(colour) + (colour in state.lit))], 0.8, 1.8)
    blocks = grid.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE, 4).transpose(0, 2, 1, 3, 4)
    labels: np.ndarray = blocks.reshape(-1, MERGE * MERGE, 4)
    return labels


def render_chunk(seed: int, index: int, ease: float, count: int = CHUNK) -> Chunk:
    """Renders chunk `index` of the training set with `seed`; the same arguments always give the same chunk."""
    rng = np.random.default_rng([seed, index])
    frame = sample_frame_size(rng)
    images = np.empty((count, frame[1], frame[0], 3), dtype=np.uint8)
    labels, states = [], []
    for number in range(count):
        state = sample_state(rng)
        style = sample_style(rng, len(str(state.reading)), frame, ease=ease)
        drawing = photograph(draw_panel(state, style), rng, strength=1 - ease)
        image = drawing.image
        if image.size != frame:
            image = image.resize(frame, Image.Resampling.BICUBIC)
        images[number] = np.asarray(image)
        labels.append(patch_labels(drawing, state, frame))
        states.append(state)
    return Chunk(images, np.stack(labels), states)


def _work(  # noqa: PLR0917
    seed: int, first: int, step: int, ramp: int, core: int | None, out: "mp.Queue[Chunk]"
) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
        os.setpriority(os.PRIO_PROCESS, 0, 5)  # training comes first
    index = first
    while True:
        out.put(render_chunk(seed, index, max(0.0, 1 - index / ramp)))
        index += step


class ChunkSource:
    """Chunks from workers; when they are slower than training, earlier chunks are shown again.

    Args:
        seed: Seed of the training set.
        workers: Number of processes.
        ramp: Chunks over which pictures go from easy to the full range.
        core: CPU core the workers are bound to, or None.
        memory: Chunks kept for showing again.
    """

    def __init__(self, seed: int, workers: int, ramp: int, core: int | None, memory: int = 1200) -> None:
        context = mp.get_context("fork")
        self._queue: mp.Queue[Chunk] = context.Queue(maxsize=48)
        self._kept: list[Chunk] = []
        self._memory = memory
        self._rng = np.random.default_rng([seed, 1])
        self.fresh = 0
        self.repeated = 0
        self._processes = [
            context.Process(target=_work, args=(seed, n, workers, ramp, core, self._queue), daemon=True)
            for n in range(workers)
        ]
        for process in self._processes:
            process.start()

    def next(self) -> Chunk:
        """A new chunk if one is ready, else a random earlier one; blocks only while there is none at all."""
        try:
            chunk = self._queue.get(block=not self._kept)
        except queue.Empty:
            self.repeated += 1
            return self._kept[int(self._rng.integers(len(self._kept)))]
        self.fresh += 1
        if len(self._kept) < self._memory:
            self._kept.append(chunk)
        else:
            self._kept[int(self._rng.integers(self._memory))] = chunk
        return chunk

    def close(self) -> None:
        """Ends the workers."""
        for process in self._processes:
            process.terminate()
