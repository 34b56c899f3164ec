"""How long a frame should take: the design's limits (moedge_runtime.bench.limits) times what measurements say. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from moedge_runtime.bench.limits import Bandwidths, decode_limit_s, prefill_limit_s, token_bytes
from moedge_runtime.bench.operations import (
    dense_token_operations,
    expert_operations,
    head_weights,
    layer_operations,
    stored_bytes,
    vision_operations,
)
from moedge_runtime.bundle import Manifest
from moedge_runtime.inference.memory_plan import CORE_BYTES, MemoryPlan

from moedge_devices.plan.calibration import Calibration, Routing
from moedge_devices.plan.routing import missed_by_token, missed_in_prefill, tokens_that_need
from moedge_devices.plan.speeds import Speeds

RING_SHARE, LEAST_RING, MOST_RING = 8, 2, 32
"""Places that the core keeps for the scan of a prefill: an eighth of all, within these (docs/expert-core.md)."""


@dataclass(frozen=True)
class Frame:
    """One question about one picture.

    Attributes:
        prefill_tokens: Computed before the first token of the answer, those of the picture included.
        image_tokens: Of the picture.
        experts: Different experts of a layer that the prefill chooses, on average over the layers; None for as many as
            tokens choose that do not resemble each other.
    """

    prefill_tokens: int = 236
    image_tokens: int = 220
    experts: float | None = None


USUAL_FRAME = Frame()
"""A picture of 640 × 352 and the text behind it; the question before it is computed once and kept."""


@dataclass(frozen=True)
class FirstToken:
    """Time to the first token, in seconds; its parts add up.

    Attributes:
        vision_s: Picture to features, with loading the vision tower where it is not resident.
        prefill_s: Expected time of the prefill.
        prefill_limit_s: At least, by the design's limit.
        missed_bytes: Of experts, to be read from flash.
        flash_bound: Whether flash takes longer than computing.
    """

    preprocess_s: float
    vision_s: float
    prefill_s: float
    prefill_limit_s: float
    missed_bytes: float
    flash_bound: bool

    @property
    def seconds(self) -> float:
        """Expected time from the picture to the first token."""
        return self.preprocess_s + self.vision_s + self.prefill_s


@dataclass(frozen=True)
class Token:
    """One decoded token, in seconds.

    Attributes:
        seconds: Expected.
        limit_s: At least, by the design's limit.
        missed_bytes: Of experts, to be read from flash.
        bound: What takes longest.
    """

    seconds: float
    limit_s: float
    missed_bytes: float
    bound: str

    @property
    def per_second(self) -> float:
        """Expected tokens a second."""
        return 1.0 / self.seconds


@dataclass(frozen=True)
class Prediction:
    """What a frame should take under one assumption about routing.

    Attributes:
        cold: The first frame after a start, no expert in memory.
        warm: One of a camera that runs: what is needed most is in memory.
        token: Of the answer to a warm frame.
    """

    routing: Routing
    cold: FirstToken
    warm: FirstToken
    token: Token


@dataclass(frozen=True)
class Case:
    """What is predicted: a model, divided over memory, on a board.

    Attributes:
        manifest: The model.
        memory: How much its parts get.
        speeds: The board's.
        calibration: How far from the limits the runtime is.
    """

    manifest: Manifest
    memory: MemoryPlan
    speeds: Speeds
    calibration: Calibration


def predict(case: Case, routing: Routing, frame: Frame = USUAL_FRAME) -> Prediction:
    """Times of `frame` under one assumption about routing."""
    resident = resident_experts(case.manifest, case.memory.experts)
    return Prediction(
        routing=routing,
        cold=_first_token(case, routing, frame, 0.0),
        warm=_first_token(case, routing, frame, resident),
        token=_token(case, routing, resident),
    )


def resident_experts(manifest: Manifest, expert_bytes: int) -> float:
    """Experts of a layer that stay in memory with a budget of `expert_bytes`, on average over the layers."""
    text, info = manifest.model.text, manifest.experts
    assert info is not None, "an inline bundle has no records"
    layers, every = len(text.moe_layers), len(text.moe_layers) * text.num_experts
    places = (expert_bytes - CORE_BYTES) // info.record_bytes
    if places >= every:
        return float(text.num_experts)
    ring = min(MOST_RING, max(LEAST_RING, places // RING_SHARE))
    return max(0, places - ring) / layers


def _first_token(case: Case, routing: Routing, frame: Frame, resident: float) -> FirstToken:
    manifest, speeds, calibration = case.manifest, case.speeds, case.calibration
    text = manifest.model.text
    experts, top_k = text.num_experts, text.num_experts_per_tok
    tokens: float = frame.prefill_tokens
    if frame.experts is not None:
        tokens = tokens_that_need(experts, top_k, frame.experts, routing)
    missed = _layer_bytes(manifest) * missed_in_prefill(experts, top_k, tokens, resident, routing)
    compute_s = layer_operations(manifest, frame.prefill_tokens) / speeds.layers
    compute_s += 2.0 * head_weights(manifest) / speeds.layers  # of the last token only
    compute_s += expert_operations(manifest, frame.prefill_tokens) / speeds.experts
    over = calibration.over_limit.prefill_flash.of(routing)
    expected = Bandwidths(speeds.bandwidths.memory, speeds.flash_in_order / over)
    patches = frame.image_tokens * manifest.model.vision.spatial_merge_size**2
    native = case.memory.native_vision
    vision_s = vision_operations(manifest, patches) / (speeds.vision if native else speeds.vision_in_onnxruntime)
    if not case.memory.vision_resident:
        read_s = stored_bytes(manifest, [manifest.graphs.vision]) / speeds.flash_in_order
        if native:
            vision_s = max(vision_s + speeds.vision_loading_s, read_s)
        else:
            vision_s += read_s + speeds.vision_packing_s
    return FirstToken(
        preprocess_s=speeds.preprocess_s,
        vision_s=vision_s,
        prefill_s=prefill_limit_s(missed, compute_s, expected),
        prefill_limit_s=prefill_limit_s(missed, compute_s, speeds.bandwidths),
        missed_bytes=missed,
        flash_bound=missed / expected.flash > compute_s,
    )


def _token(case: Case, routing: Routing, resident: float) -> Token:
    manifest, speeds, calibration = case.manifest, case.speeds, case.calibration
    text, over = manifest.model.text, calibration.over_limit
    ideal = _layer_bytes(manifest) * missed_by_token(text.num_experts, text.num_experts_per_tok, resident, routing)
    most = _layer_bytes(manifest) * text.num_experts_per_tok
    missed = min(most, ideal * calibration.missed_over_ideal.of(routing))
    nbytes = token_bytes(manifest)
    seconds = {
        "flash": missed / speeds.bandwidths.flash * over.decode_flash.value,
        "memory": nbytes / speeds.bandwidths.memory * over.decode_memory.value,
        "computing": dense_token_operations(manifest) / speeds.layers + expert_operations(manifest, 1) / speeds.experts,
    }
    busy_s = max(seconds["memory"], seconds["computing"])
    return Token(
        seconds=max(seconds["flash"], busy_s) + calibration.decode_not_hidden.value * min(seconds["flash"], busy_s),
        limit_s=decode_limit_s(missed, 1, nbytes, speeds.bandwidths),
        missed_bytes=missed,
        bound=max(seconds, key=lambda name: seconds[name]),
    )


def _layer_bytes(manifest: Manifest) -> int:
    """Bytes of one expert of every layer."""
    info = manifest.experts
    assert info is not None, "an inline bundle has no records"
    return len(manifest.model.text.moe_layers) * info.record_bytes
