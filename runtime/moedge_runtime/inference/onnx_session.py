"""ONNX Runtime sessions: pools that do not spin between calls, one arena, and a checked execution provider.

Every session has a pool of its own, whose threads stop spinning when its call ends, since the cores then belong to the
experts or to the next layer. Why not one pool for all of them: docs/decisions/0007-thread-pools.md. All sessions of the
process share one arena for what they compute in, since only one of them runs at a time: with one each, 48 layers keep
48 times what a layer needs (docs/memory.md). The GPU providers are configured here but have not been run by us: no
machine with a GPU was at hand.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from moedge_runtime.errors import BundleError, ConfigError

PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""Execution providers by the name used in options, in the order in which ONNX Runtime tries them."""


def thread_count(threads: int | None) -> int:
    """Threads that compute.

    Args:
        threads: The option's value; None for one a core that this process may use.

    Raises:
        ConfigError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads} is not possible. Set at least 1, or nothing for one a core.")
    return _available_cores() if threads is None else threads


def providers_for(name: str, available: list[str] | None = None) -> list[str]:
    """ONNX Runtime provider list for the option value `name`.

    Args:
        name: A key of `PROVIDERS`.
        available: Providers that the installed ONNX Runtime has; None asks it.

    Raises:
        ConfigError: Unknown, or the installed ONNX Runtime does not have it.
    """
    have = ort.get_available_providers() if available is None else available
    usable = sorted(key for key, chain in PROVIDERS.items() if chain[0] in have)
    if name not in PROVIDERS:
        raise ConfigError(f"provider='{name}' is unknown. Use one of: {', '.join(PROVIDERS)}.")
    if name not in usable:
        raise ConfigError(
            f"provider='{name}' needs {PROVIDERS[name][0]}, which the installed onnxruntime {ort.__version__} does "
            f"not have. Available: {', '.join(usable) or 'none'}. Choose one of these, or install the onnxruntime "
            f"package for your GPU."
        )
    return [provider for provider in PROVIDERS[name] if provider in have]


def kv_device(provider: str) -> str:
    """Device type of memory that a provider computes in, as `onnxruntime.OrtValue` names it."""
    return "cpu" if provider == "cpu" else "cuda"


def open_session(path: Path, provider: str = "cpu", threads: int | None = None) -> Any:
    """An `onnxruntime.InferenceSession`.

    Args:
        path: The graph.
        provider: A key of `PROVIDERS`.
        threads: See `thread_count`.

    Raises:
        BundleError: The file is no graph that this ONNX Runtime can load.
        ConfigError: See `providers_for` and `thread_count`.
    """
    providers = providers_for(provider)
    options = ort.SessionOptions()
    options.intra_op_num_threads = thread_count(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # a plan for every length of a prompt, kept by every session for ever
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # keep weights out of it
    _share_arena()
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the classes of onnxruntime's C API errors have no common base
        first_line = str(error).strip().splitlines()[0]
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load '{path}': {first_line} "
            f"Run `moedge verify` on the bundle; if it is whole, this onnxruntime is too old for it: upgrade.",
            key="bundle.graph_unloadable",
        ) from error


def open_sessions(paths: Sequence[Path], provider: str = "cpu", threads: int | None = None) -> list[Any]:
    """`open_session` of every path, as many at once as there are threads that compute: packing weights takes one each.

    Raises:
        BundleError, ConfigError: See `open_session`.
    """
    with ThreadPoolExecutor(thread_count(threads)) as pool:
        return list(pool.map(lambda path: open_session(path, provider, threads), paths))


def giving_back() -> Any:
    """`onnxruntime.RunOptions` of a call at whose end the shared arena gives all that is free back to the system."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


@cache
def _share_arena() -> None:
    """Give ONNX Runtime the arena that all sessions of this process use; once, it cannot be taken back."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    as_requested = 1  # extend by what is asked for, not by powers of two
    settings = {
        "max_mem": 0,
        "arena_extend_strategy": as_requested,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(settings))


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
