"""The memory plan of one engine on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import ConfigError, RequestError
from moedge_runtime.inference.check import context_of
from moedge_runtime.inference.dense_sizes import DenseShape
from moedge_runtime.inference.expert_core.memory import (
    RESERVE_BYTES,
    RESERVE_SHARE,
    available_memory,
    default_memory,
    total_memory,
)
from moedge_runtime.inference.experts import ExpertBank
from moedge_runtime.inference.image_processor import ImageProcessorSettings, ProcessedImage
from moedge_runtime.inference.memory_plan import MIB, MemoryPlan, plan_memory
from moedge_runtime.inference.request import DEFAULT_NUMPY_BYTES, EngineOptions

logger = logging.getLogger(__name__)


def plan_for(bundle: Bundle, options: EngineOptions) -> MemoryPlan | None:
    """Divide `options.memory_bytes`, or what the machine has available less its reserve.

    Returns:
        None for an inline bundle.

    Raises:
        ConfigError: It does not fit, this machine has less, it does not say what it has, or the bundle is inline.
    """
    if bundle.manifest.form == "inline":
        if options.memory_bytes is not None or options.expert_budget_bytes is not None:
            raise _inline(bundle)
        return None
    if options.memory_bytes is None:
        return plan_of(bundle, options, _default())
    most = total_memory()
    if most is not None and options.memory_bytes > most:
        raise ConfigError(
            f"memory={-(-options.memory_bytes // MIB):,} MiB is more than this machine, or the limit of its control "
            f"group, has: {most // MIB:,} MiB. Give less with --memory (model.memory), or leave it out.",
            key="memory.more_than_there_is",
        )
    plan = plan_of(bundle, options, options.memory_bytes)
    _warn_of_shortage(plan)
    return plan


def plan_of(bundle: Bundle, options: EngineOptions, total: int) -> MemoryPlan:
    """How `total` bytes would be divided, on any machine.

    Raises:
        ConfigError: They are too few, or the bundle is inline.
    """
    if bundle.manifest.form == "inline":
        raise _inline(bundle)
    experts = options.expert_budget_bytes
    if experts is None and options.experts == "numpy":
        experts = DEFAULT_NUMPY_BYTES
    return plan_memory(
        bundle.manifest,
        total,
        max_context=context_of(bundle, options.max_context),
        wanted_pixels=ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json")).max_pixels,
        max_pixels=options.max_pixels,
        experts=experts,
        dense=DenseShape.of(bundle.manifest) if native_layers(bundle, options) else None,
        tower=bundle.manifest.vision_tower if native_vision(bundle, options) else None,
    )


def limit_for(total: int) -> int:
    """The lowest limit of a control group in which `default_memory` leaves `total` bytes to a process."""
    return total + max(RESERVE_BYTES, -(-total // (RESERVE_SHARE - 1)))


def native_layers(bundle: Bundle, options: EngineOptions) -> bool:
    """Whether the native core computes the dense layers of a paged bundle.

    Raises:
        ConfigError: It is to, and cannot.
    """
    possible = bool(bundle.manifest.weights) and options.provider == "cpu"
    if options.layers != "core":
        return possible and options.layers == "auto" and options.experts != "numpy"
    if options.provider != "cpu":
        raise ConfigError(
            f"--layers core (model.layers) computes on the processor, and provider='{options.provider}' on a GPU. "
            f"Leave out one.",
            key="core.layers",
        )
    if not possible:
        raise ConfigError(
            f"--layers core (model.layers) is not possible with '{bundle.path}': its manifest does not say where the "
            f"weights of its graphs lie. It was exported by an earlier version or with --activations fp32: export it "
            f"again, or leave it out.",
            key="core.layers",
        )
    return True


def native_vision(bundle: Bundle, options: EngineOptions) -> bool:
    """Whether the native core computes the vision tower: with the layers, if the bundle says where its weights lie.

    Raises:
        ConfigError: See `native_layers`.
    """
    if bundle.manifest.form == "inline":
        return False
    return native_layers(bundle, options) and bundle.manifest.vision_tower is not None


@contextmanager
def room_for_pictures(
    plan: MemoryPlan | None, experts: ExpertBank | None, images: list[ProcessedImage], held_bytes: int = 0
) -> Iterator[None]:
    """While this lasts, the experts leave the memory that encoding `images` needs.

    Args:
        plan: None for an inline bundle.
        experts: Likewise.
        images: What is to be encoded.
        held_bytes: What earlier pictures left in the memory of the buffers.

    Raises:
        RequestError: They cannot leave so much for the pictures.
        ConfigError: They cannot leave it beside what is held.
    """
    if plan is None or experts is None:
        yield
        return
    patches = sum(image.grid_thw[1] * image.grid_thw[2] for image in images)
    if patches > plan.most_patches:
        raise RequestError(
            f"The pictures have {patches * plan.patch_pixels:,} pixels in all; memory={plan.total // MIB:,} MiB is "
            f"enough for {plan.most_patches * plan.patch_pixels:,}. Give fewer or smaller ones, or more memory.",
            key="request.pictures_too_large",
        )
    beside = plan.experts_beside(patches, held_bytes)
    if beside >= plan.experts:
        yield
        return
    experts.set_budget(beside)
    try:
        yield
    finally:
        experts.set_budget(plan.experts)


def _warn_of_shortage(plan: MemoryPlan) -> None:
    """Say that a memory which was asked for is in use elsewhere; it may be given back before it is needed."""
    available = available_memory()
    needed = sum(plan.parts().values()) - plan.process  # most of which is there already
    if available is not None and needed > available:
        logger.warning(
            "memory=%s MiB is more than is available now: %s MiB would be taken, %s MiB are free. The kernel may end "
            "this or another process: end other programs, or give less with --memory (model.memory).",
            *(f"{nbytes // MIB:,}" for nbytes in (plan.total, needed, available)),
        )


def _inline(bundle: Bundle) -> ConfigError:
    return ConfigError(
        f"Bundle '{bundle.path}' is inline: its experts are part of its model, which is in memory as a whole. Leave "
        f"out the memory, or export the bundle with --experts paged."
    )


def _default() -> int:
    available = available_memory()
    if available is None:
        raise ConfigError(
            "This system does not say how much memory is available. Say how much moedge may have with --memory, or "
            "model.memory in moedge.yaml.",
            key="core.memory_unknown",
        )
    return default_memory(available)
