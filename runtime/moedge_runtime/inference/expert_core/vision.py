"""The vision tower of boards: the native core behind the port `VisionEncoder`."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np

from moedge_runtime.bundle import Bundle, Manifest, VisionInfo, VisionTowerInfo
from moedge_runtime.inference.decoder import Cancelled, ShouldStop
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.expert_core.bank import MAX_THREADS, NativeExperts
from moedge_runtime.inference.expert_core.failure import dense_failure
from moedge_runtime.inference.expert_core.library import (
    ABI,
    CoreError,
    MatrixView,
    Status,
    VisionBlockWeights,
    VisionMergerWeights,
    VisionOptions,
    VisionPicture,
    load_library,
)
from moedge_runtime.inference.expert_core.weights import GraphWeights, ReadMemory
from moedge_runtime.inference.image_processor import ProcessedImage
from moedge_runtime.inference.onnx_session import thread_count
from moedge_runtime.inference.patches import PatchPlaces
from moedge_runtime.inference.positions import image_tokens
from moedge_runtime.inference.vision import VisionFeatures
from moedge_runtime.inference.vision_sizes import patch_values, vision_read_bytes

NORM_EPSILON = 1e-6
"""Fixed in the code of Qwen3VLMoeVisionBlock and Qwen3VLMoeVisionPatchMerger (transformers 5.23)."""

MEMORY_ALIGNMENT = 64
"""moedge_vision_picture."""


class NativeVision:
    """The vision tower, computed by the native core (runtime/core).

    The result depends neither on threads nor on the instruction set. One call at a time; another thread that calls
    waits for its turn.

    Args:
        bundle: One whose manifest has a `vision_tower`.
        experts: Whose threads are used, if they are native ones.
        threads: Threads that compute, if they are not those of `experts`; None for one a core.
        isa: Likewise the instruction set, one of `library.INSTRUCTION_SETS`; None for the processor's best.
        resident: Keep the weights in memory; else they come from the disk for each call of `encode`, while what is
            before them is computed, and no more of them than two blocks and two mergers are in memory.

    Raises:
        BundleError: A weight is missing, of another shape, or cannot be read; if they are resident.
        ConfigError: The library cannot be used, an option is out of range, or the memory is too small.
    """

    def __init__(
        self,
        bundle: Bundle,
        experts: NativeExperts | None = None,
        *,
        threads: int | None = None,
        isa: str | None = None,
        resident: bool = True,
    ) -> None:
        count = min(thread_count(threads), MAX_THREADS)
        self._bundle = bundle
        self._open = partial(_Tower, bundle, experts, threads=count, isa=isa, resident=resident)
        self._calling = threading.Lock()
        self._tower: _Tower | None = None
        if resident:
            self._tower = self._open()
            try:
                self._tower.load_all(count)
            except BaseException:
                self._tower.close()
                raise

    def bytes(self, patches: int) -> tuple[int, int, int]:
        """Bytes of the weights, of the threads' buffers, and of the memory of a picture of so many patches."""
        with self._calling, self._opened() as tower:
            return tower.bytes(patches)

    def encode(self, images: list[ProcessedImage], should_stop: ShouldStop | None = None) -> VisionFeatures:
        """See `VisionEncoder.encode`."""
        vision = self._bundle.manifest.model.vision
        counts = [image_tokens(image.grid_thw, vision.spatial_merge_size) for image in images]
        ends = np.cumsum([0, *counts])
        taps = len(vision.deepstack_visual_indexes)
        features = np.empty((1 + taps, ends[-1], vision.out_hidden_size), np.float32)
        with self._calling, self._opened() as tower:
            pictures = [tower.picture(image) for image in images]
            with closing(tower.in_turn(ahead=self._tower is None)) as parts:
                for part in parts:
                    if should_stop is not None and should_stop():
                        raise Cancelled
                    for picture, begin in zip(pictures, ends[:-1], strict=True):
                        tower.compute(part, picture, features[:, begin:])
        return VisionFeatures(features[taps], features[:taps])

    @contextmanager
    def _opened(self) -> Iterator[_Tower]:
        if self._tower is not None:
            yield self._tower
            return
        tower = self._open()
        try:
            yield tower
        finally:
            tower.close()


Part = tuple[Literal["patches", "block", "merger"], int]
"""What has weights of its own, and its index."""


def parts_of(vision: VisionInfo) -> list[Part]:
    """The parts of a tower, in the order in which a picture goes through them."""
    taps = vision.deepstack_visual_indexes
    order: list[Part] = [("patches", 0)]
    for block in range(vision.depth):
        order.append(("block", block))
        if block in taps:
            order.append(("merger", taps.index(block)))
    return [*order, ("merger", len(taps))]


class _Picture:
    """A picture on its way through the tower, and its memory."""

    def __init__(self, image: ProcessedImage, manifest: Manifest, memory_bytes: int) -> None:
        tower, info = manifest.model.vision, manifest.vision_tower
        assert info is not None
        places = PatchPlaces.of(image.grid_thw, tower.spatial_merge_size)
        patches = len(places.rows)
        self.pixels = np.ascontiguousarray(image.pixel_values, np.float32)
        assert self.pixels.shape == (patches, patch_values(manifest))
        self.corners, self.shares = places.corners(int(tower.num_position_embeddings**0.5))
        cos, sin = places.cos_sin(tower.hidden_size // tower.num_heads, info.rope_theta)
        hidden = np.empty((patches, tower.hidden_size), np.float32)
        memory = np.empty(memory_bytes + MEMORY_ALIGNMENT, np.uint8)
        self._kept = (hidden, cos, sin, memory)
        self.view = VisionPicture(
            patches=patches,
            frames=image.grid_thw[0],
            hidden=hidden.ctypes.data,
            cos=cos.ctypes.data,
            sin=sin.ctypes.data,
            memory=-(-memory.ctypes.data // MEMORY_ALIGNMENT) * MEMORY_ALIGNMENT,
        )


class _Tower:
    """A tower of the core; arguments as above."""

    def __init__(
        self, bundle: Bundle, experts: NativeExperts | None, *, threads: int, isa: str | None, resident: bool
    ) -> None:
        manifest = bundle.manifest
        assert manifest.vision_tower is not None, "the bundle has no table of the vision tower's weights"
        self._bundle, self._tower, self._info = bundle, manifest.model.vision, manifest.vision_tower
        self._library = load_library()
        tower, precision = self._tower, manifest.quantization.vision
        options = VisionOptions(
            abi=ABI,
            blocks=tower.depth,
            hidden_size=tower.hidden_size,
            heads=tower.num_heads,
            intermediate_size=self._info.intermediate_size,
            patch_values=patch_values(manifest),
            positions=tower.num_position_embeddings,
            merge=tower.spatial_merge_size**2,
            features=tower.out_hidden_size,
            taps=len(tower.deepstack_visual_indexes),
            gelu_tanh=self._info.gelu == "tanh",
            bits=precision.bits,
            block_size=precision.block_size,
            symmetric=precision.symmetric,
            resident=resident,
            threads=threads,
            epsilon=NORM_EPSILON,
            isa=None if isa is None else isa.encode(),
        )
        core, vision = None if experts is None else experts.handle, ctypes.c_void_p()
        self._check(self._library.moedge_vision_open, ctypes.byref(options), core, ctypes.byref(vision))
        self._vision = vision.value
        # Not at the end of the process: a thread may still be inside the core then.
        self.close = weakref.finalize(self, self._library.moedge_vision_close, vision.value)
        self.close.atexit = False

    def bytes(self, patches: int) -> tuple[int, int, int]:
        sizes = [ctypes.c_uint64() for _ in range(3)]
        self._library.moedge_vision_bytes(self._vision, patches, *map(ctypes.byref, sizes))
        weights, buffers, memory = (size.value for size in sizes)
        return weights, buffers, memory

    def picture(self, image: ProcessedImage) -> _Picture:
        return _Picture(image, self._bundle.manifest, self.bytes(image_tokens(image.grid_thw, merge_size=1))[2])

    def load_all(self, threads: int) -> None:
        """As many parts at once as threads compute."""
        own = threading.local()

        def load(part: Part) -> None:
            own.memory = getattr(own, "memory", None) or self._read_memory()
            self._load(part, own.memory)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(load, sorted(parts_of(self._tower), reverse=True)):  # the patches' and the mergers' first
                pass

    def in_turn(self, *, ahead: bool) -> Generator[Part, None, None]:
        """The parts in order; `ahead`: each is loaded while the one before it is computed."""
        parts = parts_of(self._tower)
        if not ahead:
            yield from parts
            return
        memory = self._read_memory()
        with ThreadPoolExecutor(1) as pool:
            next_one = pool.submit(self._load, parts[0], memory)
            for part, following in zip(parts, [*parts[1:], None], strict=True):
                next_one.result()
                if following is not None:
                    next_one = pool.submit(self._load, following, memory)
                yield part

    def _read_memory(self) -> ReadMemory:
        return ReadMemory(vision_read_bytes(self._bundle.manifest, self._info.intermediate_size))

    def compute(self, part: Part, picture: _Picture, features: FloatArray) -> None:
        """Send a picture through a part.

        Args:
            part: Loaded.
            picture: Has gone through what is before it.
            features: float32 [taps + 1, tokens or more, hidden_size]; what a merger gives is written to its first rows.
        """
        kind, index = part
        library, view = self._library, ctypes.byref(picture.view)
        if kind == "patches":
            arrays = (array.ctypes.data for array in (picture.pixels, picture.corners, picture.shares))
            self._check(library.moedge_vision_embed, self._vision, view, *arrays)
        elif kind == "block":
            where = f" in block {index} of its vision tower"
            self._check(library.moedge_vision_block, self._vision, view, index, where=where)
        else:
            self._check(library.moedge_vision_merge, self._vision, view, index, features[index].ctypes.data)

    def _check(self, function: Callable[..., int], *arguments: Any, where: str = "") -> None:
        error = CoreError()
        if function(*arguments, ctypes.byref(error)) != Status.OK:
            raise dense_failure(error, self._bundle.path, "vision tower", where)

    def _load(self, part: Part, memory: ReadMemory) -> None:
        """Read a part's weights and bring them into the core's layout."""
        memory.clear()
        kind, index = part
        weights = _Weights(self._bundle, memory)
        if kind == "patches":
            self._load_patches(weights)
        elif kind == "block":
            view = weights.block(f"blocks.{index}", self._tower, self._info)
            self._check(self._library.moedge_vision_load_block, self._vision, index, ctypes.byref(view))
        else:
            merger = weights.merger(index, self._tower, self._info)
            self._check(self._library.moedge_vision_load_merger, self._vision, index, ctypes.byref(merger))

    def _load_patches(self, weights: _Weights) -> None:
        tower = self._tower
        matrix = weights.linear("patch_embed.proj", tower.hidden_size, patch_values(self._bundle.manifest))
        positions = weights.array("pos_embed.weight", "float32", [tower.num_position_embeddings, tower.hidden_size])
        self._check(self._library.moedge_vision_load_patches, self._vision, ctypes.byref(matrix), positions)


class _Weights(GraphWeights):
    """Those of a part of the tower."""

    def __init__(self, bundle: Bundle, memory: ReadMemory) -> None:
        super().__init__(bundle, bundle.manifest.graphs.vision, memory)

    def linear(self, name: str, rows: int, inputs: int) -> MatrixView:
        return self.matrix(name, rows, inputs, self._bundle.manifest.quantization.vision, biased=True)

    def block(self, name: str, tower: VisionInfo, info: VisionTowerInfo) -> VisionBlockWeights:
        hidden, intermediate = tower.hidden_size, info.intermediate_size
        return VisionBlockWeights(
            input_norm=self.vector(f"{name}.norm1.weight", hidden),
            input_norm_bias=self.vector(f"{name}.norm1.bias", hidden),
            post_norm=self.vector(f"{name}.norm2.weight", hidden),
            post_norm_bias=self.vector(f"{name}.norm2.bias", hidden),
            qkv=self.linear(f"{name}.attn.qkv", 3 * hidden, hidden),
            output=self.linear(f"{name}.attn.proj", hidden, hidden),
            up=self.linear(f"{name}.mlp.linear_fc1", intermediate, hidden),
            down=self.linear(f"{name}.mlp.linear_fc2", hidden, intermediate),
        )

    def merger(self, index: int, tower: VisionInfo, info: VisionTowerInfo) -> VisionMergerWeights:
        merged = tower.hidden_size * tower.spatial_merge_size**2
        name, normed = "merger", tower.hidden_size
        if index < len(info.deepstack_mergers):
            name, normed = f"deepstack_merger_list.{info.deepstack_mergers[index]}", merged
        return VisionMergerWeights(
            norm=self.vector(f"{name}.norm.weight", normed),
            norm_bias=self.vector(f"{name}.norm.bias", normed),
            up=self.linear(f"{name}.linear_fc1", merged, merged),
            down=self.linear(f"{name}.linear_fc2", tower.out_hidden_size, merged),
        )
