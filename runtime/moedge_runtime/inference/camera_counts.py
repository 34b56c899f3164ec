"""Which experts the answers to each camera need, learned from answers, and which of them to pin for it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from moedge_runtime.inference.dense_sizes import LAYERS_AHEAD
from moedge_runtime.inference.expert_core.hot_set import MAX_CAMERAS, Counts

PROMPT_TOKEN = 1 / 8
"""What a token of a prompt counts for beside a decoded one, as in the core (docs/decisions/0006-eviction.md)."""

HALF_LIFE_ANSWERS = 16
"""An answer counts half after so many to the same camera: a camera that is turned soon gets other experts. On the demo
model counts that never age save no more (docs/decisions/0018-camera-pins.md)."""

PINNED_SHARE = 1 / 2
"""Of the places that stay, for pins. Three quarters read less where cameras differ, and more where they do not."""

LAYERS_AT_ONCE = 1 + LAYERS_AHEAD
"""Of which a token's experts find room beside the pins: its layer, and those into which the core looks ahead."""

Uses = npt.NDArray[np.float64]
"""float64 [layers with experts, experts]: tokens that chose each expert, weighted and aged."""


class CameraCounts:
    """The last `MAX_CAMERAS` cameras that were asked and what their answers used.

    Args:
        counts: What an earlier `counts` has given, if anything.
    """

    def __init__(self, counts: Mapping[str, Counts] | None = None) -> None:
        self._uses: dict[str, Uses] = {}
        self.restore(counts or {})

    def restore(self, counts: Mapping[str, Counts]) -> None:
        """Start from what an earlier `counts` has given."""
        self._uses = {camera: values.astype(np.float64) for camera, values in counts.items()}

    def counts(self) -> dict[str, Counts]:
        """Of each camera, as whole numbers; the one that was asked last comes last."""
        return {camera: np.rint(uses).astype(np.uint64) for camera, uses in self._uses.items()}

    def prompted(self, camera: str, chosen: Uses) -> None:
        """A prompt has gone through the model: how many of its tokens chose each expert."""
        self._add(camera, chosen * PROMPT_TOKEN)

    def answered(self, camera: str, chosen: Uses) -> None:
        """Likewise an answer; what was before counts less from now on."""
        self._add(camera, chosen)
        self._uses[camera] *= 2 ** (-1 / HALF_LIFE_ANSWERS)

    def keep(self, cameras: Collection[str]) -> None:
        """Forget all others."""
        self._uses = {camera: uses for camera, uses in self._uses.items() if camera in cameras}

    def pins(self, camera: str, places: int, top_k: int) -> list[tuple[int, int]]:
        """What to pin while `camera` is asked.

        Args:
            camera: One that may be unknown.
            places: Records that can stay in memory.
            top_k: Experts of a token in a layer.

        Returns:
            (position among the layers with experts, expert), the most used first; nothing if there is no other camera
            to tell it from, or room for all records.
        """
        uses = self._uses.get(camera)
        if uses is None or len(self._uses) < 2 or places >= uses.size:
            return []
        most = max(0, min(int(places * PINNED_SHARE), places - LAYERS_AT_ONCE * top_k))
        hottest = np.argsort(-uses, axis=None, kind="stable")[:most]
        layers, experts = np.unravel_index(hottest[uses.flat[hottest] > 0], uses.shape)
        return list(zip(layers.tolist(), experts.tolist(), strict=True))

    def _add(self, camera: str, uses: Uses) -> None:
        known = self._uses.pop(camera, None)
        self._uses[camera] = uses.copy() if known is None else known + uses
        if len(self._uses) > MAX_CAMERAS:
            del self._uses[next(iter(self._uses))]
