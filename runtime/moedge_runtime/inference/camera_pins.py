"""Pins, while a camera is asked, the experts that its answers need most, and learns which these are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moedge_runtime.bundle import TextInfo
from moedge_runtime.inference.camera_counts import CameraCounts, Uses
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.experts import ExpertBank


class CameraPins:
    """What the native experts are told of cameras, and what their counts tell of them.

    The core counts for itself; what an answer chose is the difference of two of its counts, so that a token costs
    nothing. Nothing here changes a result. One thread at a time.

    Args:
        experts: Of the engine; with any other bank than the native one nothing is pinned or learned.
        text: Of the bundle.

    Attributes:
        counts: What was learned.
    """

    def __init__(self, experts: ExpertBank | None, text: TextInfo) -> None:
        self.counts = CameraCounts()
        self._experts = experts if isinstance(experts, NativeExperts) else None
        self._layers, self._top_k = text.moe_layers, text.num_experts_per_tok
        self._seen = np.zeros((len(text.moe_layers), text.num_experts), np.uint64)

    def begin(self, camera: str | None) -> None:
        """Prompts or an answer follow: pin what `camera` needs; None pins nothing.

        What is not in memory comes with the next `preload`, or when it is first needed.
        """
        if self._experts is None:
            return
        statistics = self._experts.statistics()
        assert statistics.slots is not None and statistics.ring_slots is not None
        places = statistics.slots - statistics.ring_slots
        pins = [] if camera is None else self.counts.pins(camera, places, self._top_k)
        self._experts.pin([(self._layers[layer], expert) for layer, expert in pins])
        self._seen = self._experts.counts()

    def prompted(self, cameras: Sequence[str | None]) -> None:
        """Prompts have gone through the model since `begin`, one of each of `cameras`: each has an equal part."""
        chosen = self._chosen()
        for camera in cameras:
            if camera is not None and chosen is not None:
                self.counts.prompted(camera, chosen / len(cameras))

    def answered(self, camera: str | None) -> None:
        """An answer has been decoded since `begin` or `prompted`."""
        chosen = self._chosen()
        if camera is not None and chosen is not None:
            self.counts.answered(camera, chosen)

    def _chosen(self) -> Uses | None:
        if self._experts is None:
            return None
        before, self._seen = self._seen, self._experts.counts()
        return (self._seen - before).astype(np.float64)
