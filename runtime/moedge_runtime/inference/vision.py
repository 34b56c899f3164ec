"""The vision tower: the port that pictures go through, and the one that does it with ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.decoder import ShouldStop
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.image_processor import ProcessedImage
from moedge_runtime.inference.onnx_session import giving_back, open_session


@dataclass(frozen=True)
class VisionFeatures:
    """What the decoder gets of one or more images, N image tokens in the prompt's order.

    Attributes:
        image: float32 [N, hidden_size], in place of the embeddings of the image tokens.
        deepstack: float32 [taps, N, hidden_size], added after decoder layers 0, 1, …
    """

    image: FloatArray
    deepstack: FloatArray


class VisionEncoder(Protocol):
    """A vision tower."""

    def encode(self, images: list[ProcessedImage], should_stop: ShouldStop | None = None) -> VisionFeatures:
        """Features of all images of a prompt; at least one.

        Args:
            images: They.
            should_stop: Asked between blocks where the implementation can stop there.

        Raises:
            Cancelled: `should_stop` returned True.
            BundleError: The weights cannot be loaded, or an activation is not finite.
        """
        ...


class OnnxVision:
    """vision.onnx in ONNX Runtime; packing its weights takes seconds of a core.

    Args:
        bundle: Any.
        provider: As in EngineOptions.
        threads: As in EngineOptions.
        resident: Keep the weights in memory; else they are loaded for each call of `encode` and released after it.

    Raises:
        BundleError: The graph cannot be loaded.
    """

    def __init__(
        self, bundle: Bundle, provider: str = "cpu", threads: int | None = None, *, resident: bool = True
    ) -> None:
        self._open = partial(open_session, bundle.file(bundle.manifest.graphs.vision), provider, threads)
        self._session = self._open() if resident else None

    def encode(self, images: list[ProcessedImage], should_stop: ShouldStop | None = None) -> VisionFeatures:
        """See `VisionEncoder.encode`; does not stop. What the graph computes in is given back at the end."""
        session = self._session or self._open()
        outputs = [
            session.run(
                ["image_features", "deepstack_features"],
                {"pixel_values": image.pixel_values, "grid_thw": np.array(image.grid_thw, np.int64)},
                giving_back(),
            )
            for image in images
        ]
        return VisionFeatures(
            np.concatenate([features for features, _ in outputs]),
            np.concatenate([deepstack for _, deepstack in outputs], axis=1),
        )
