"""ONNX Runtime sessions: pools that do not spin between calls, and a checked execution provider.

Every session has a pool of its own, whose threads stop spinning when its call ends, since the cores then belong to the
experts or to the next layer. Why not one pool for all of them: docs/decisions/0007-thread-pools.md. The GPU providers
are configured here but have not been run by us: no machine with a GPU was at hand.
"""

from __future__ import annotations

import os
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
