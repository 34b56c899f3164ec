"""Loads the parts of an engine: experts, decoder and vision tower, side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.camera_counts import CameraCounts
from moedge_runtime.inference.check import context_of
from moedge_runtime.inference.decoder import Decoder, InlineDecoder, PagedDecoder
from moedge_runtime.inference.expert_core.bank import MAX_THREADS, MAX_TOKENS, NativeExperts
from moedge_runtime.inference.expert_core.layers import NativeLayers
from moedge_runtime.inference.expert_core.vision import NativeVision
from moedge_runtime.inference.experts import ExpertBank
from moedge_runtime.inference.hot_set_file import HotSetFile
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layers import Layers, OnnxLayers
from moedge_runtime.inference.memory_budget import native_layers, native_vision
from moedge_runtime.inference.memory_plan import MemoryPlan
from moedge_runtime.inference.numpy_experts import NumpyExperts
from moedge_runtime.inference.onnx_session import kv_device, thread_count
from moedge_runtime.inference.request import EngineOptions
from moedge_runtime.inference.vision import OnnxVision, VisionEncoder


def open_experts(bundle: Bundle, options: EngineOptions, plan: MemoryPlan | None) -> ExpertBank | None:
    """The expert bank of a paged bundle; None for an inline one, which has no plan either.

    Raises:
        BundleError: experts.bin cannot be used.
        ConfigError: An option is out of range.
    """
    if options.mlock and (plan is None or options.experts != "core"):
        raise ConfigError("Only the native expert core locks its memory. Leave out --mlock (model.mlock).")
    if plan is None:
        return None
    if options.experts == "numpy":
        return NumpyExperts(bundle, plan.experts)
    if options.experts != "core":
        return options.experts(bundle)
    return NativeExperts(
        bundle,
        plan.experts,
        threads=min(thread_count(options.threads), MAX_THREADS),
        readers=options.expert_readers,
        max_tokens=min(plan.max_context, MAX_TOKENS),
        lock_memory=options.mlock,
    )


def open_hot_set(
    bundle: Bundle, options: EngineOptions, experts: ExpertBank | None, cameras: CameraCounts
) -> HotSetFile | None:
    """The file of `options.hot_set`, read into `experts` and `cameras`.

    Raises:
        ConfigError: There is no native core to use it, or the file cannot be used.
        StorageError: It cannot be read.
    """
    if options.hot_set is None:
        return None
    if not isinstance(experts, NativeExperts):
        raise ConfigError("A hot set is of use to the native expert core only. Leave out --hot-set (model.hot_set).")
    return HotSetFile(options.hot_set, bundle.manifest.model.text, experts, cameras)


def open_dense(
    bundle: Bundle, options: EngineOptions, plan: MemoryPlan | None, experts: ExpertBank | None
) -> tuple[Decoder, VisionEncoder]:
    """Decoder and vision tower; packing their weights takes seconds of each core.

    Raises:
        BundleError: A graph cannot be loaded.
    """
    resident = plan is None or plan.vision_resident
    with ThreadPoolExecutor(1) as beside:
        vision = beside.submit(open_vision, bundle, options, experts, resident=resident)
        max_context = context_of(bundle, options.max_context)
        decoder: Decoder
        if experts is None:
            decoder = InlineDecoder(bundle, max_context, options.provider, options.threads)
        else:
            text = bundle.manifest.model.text
            cache = KvCache(text, max_context, kv_device(options.provider))
            decoder = PagedDecoder(text, experts, _open_layers(bundle, options, experts, max_context), cache)
        return decoder, vision.result()


def open_vision(
    bundle: Bundle, options: EngineOptions, experts: ExpertBank | None = None, *, resident: bool = True
) -> VisionEncoder:
    """The vision tower of any bundle.

    Args:
        bundle: Any.
        options: What computes it, and with how many threads.
        experts: Those whose threads the native core is to use.
        resident: Keep its weights in memory; else they are loaded for each picture.

    Raises:
        BundleError: They cannot be loaded.
    """
    if not native_vision(bundle, options):
        return OnnxVision(bundle, options.provider, options.threads, resident=resident)
    bank = experts if isinstance(experts, NativeExperts) else None
    return NativeVision(bundle, bank, threads=options.threads, resident=resident)


def _open_layers(bundle: Bundle, options: EngineOptions, experts: ExpertBank, slots: int) -> Layers:
    if not native_layers(bundle, options):
        return OnnxLayers(bundle, options.provider, options.threads)
    return NativeLayers(bundle, slots, experts if isinstance(experts, NativeExperts) else None, threads=options.threads)
