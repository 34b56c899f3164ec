"""ONNX Runtime sessions of one process: one thread pool for all of them, and a checked execution provider.

Every session of a layer having its own spinning pool costs 1,059 ms a token; one shared pool costs 39 to 45 ms (48
layers, onnxruntime 1.32, 2 cores, 2026-11-23). The GPU providers are configured here but have not been run by us: no
machine with a GPU was at hand.
"""

from __future__ import annotations

import os
import threading
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

_lock = threading.Lock()
_pool_threads: int | None = None


def configure_threads(threads: int | None) -> int:
    """Size the thread pool that all sessions of this process share.

    ONNX Runtime fixes the pool when the first session is made, so the first call decides.

    Args:
        threads: Threads that compute; None for one a core that this process may use.

    Returns:
        The size of the pool.

    Raises:
        ConfigError: `threads` is below 1, or differs from the pool that exists already.
    """
    global _pool_threads  # noqa: PLW0603  the pool itself is global to the process
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads} is not possible. Set at least 1, or nothing for one a core.")
    with _lock:
        if _pool_threads is None:
            _pool_threads = threads or _available_cores()
            ort.set_global_thread_pool_sizes(_pool_threads, 1)
        elif threads is not None and threads != _pool_threads:
            raise ConfigError(
                f"threads={threads} differs from the {_pool_threads} threads that this process already computes with. "
                f"Use the same number for every engine of a process."
            )
        return _pool_threads


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


def open_session(path: Path, provider: str = "cpu") -> Any:
    """An `onnxruntime.InferenceSession` on the shared thread pool.

    Worker threads stop spinning when no session runs: between two layers the cores belong to the experts.

    Raises:
        BundleError: The file is no graph that this ONNX Runtime can load.
        ConfigError: See `providers_for`.
    """
    providers = providers_for(provider)
    configure_threads(None)
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the classes of onnxruntime's C API errors have no common base
        first_line = str(error).strip().splitlines()[0]
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load '{path}': {first_line} "
            f"Run `moedge verify` on the bundle; if it is whole, this onnxruntime is too old for it: upgrade.",
            key="bundle.graph_unloadable",
        ) from error


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
