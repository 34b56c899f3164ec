"""Turns what the core reports into the error that a user can act on."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

from moedge_runtime.errors import BundleError, ConfigError, MoedgeError, StorageError
from moedge_runtime.inference.expert_core.library import LIBRARY, NATIVE, CoreError, Status
from moedge_runtime.inference.experts import damaged_expert, not_finite, unusable_experts

_MIB = 1 << 20


def core_failure(error: CoreError, path: Path, moe_layers: Sequence[int], layer: int | None = None) -> MoedgeError:
    """The error to raise for a status that is not OK.

    Args:
        error: As the core filled it.
        path: experts.bin.
        moe_layers: Decoder layers with experts; the core counts these.
        layer: Decoder layer of the call that failed, if it was `compute`.
    """
    status, message = Status(error.status), error.message.decode("utf-8", "replace")
    if status in (Status.EXPERT_DAMAGED, Status.READ_TIMEOUT):
        return _unread_record(error, message, path, moe_layers[error.layer])
    if status in (Status.BUDGET_TOO_SMALL, Status.OUT_OF_MEMORY):
        return _lack_of_memory(error, message, path)
    if status is Status.FILE_UNUSABLE:
        return unusable_experts(path, message)
    if status is Status.BAD_INPUT and layer is not None:
        return not_finite(path, layer, message)
    return ConfigError(f"The expert core refuses an option: {message}. Change it.", key="core.bad_option")


def dense_failure(error: CoreError, bundle_path: Path, part: str, where: str = "") -> MoedgeError:
    """The error to raise for a status that is not OK of what is computed beside the experts.

    Args:
        error: As the core filled it.
        bundle_path: Whose weights it computes with.
        part: What computes, e.g. "dense layers".
        where: In it, e.g. " in layer 3".
    """
    message = error.message.decode("utf-8", "replace")
    if message.startswith("interface version"):
        return NATIVE.other_version(LIBRARY, f"it refuses {message}")
    if error.status == Status.OUT_OF_MEMORY:
        return ConfigError(
            f"The system has no memory for the {part} of '{bundle_path}': {message}. End other programs.",
            key="core.out_of_memory",
        )
    if error.status == Status.BAD_INPUT:
        return BundleError(
            f"The model of '{bundle_path}' fails{where}: {message}. Check the bundle with `moedge verify`; if it is "
            f"whole, export it again with a higher precision.",
            key="bundle.not_finite" if "finite" in message else "bundle.weights_unusable",
        )
    return ConfigError(f"The core refuses an option of the {part}: {message}.", key="core.bad_option")


def _unread_record(error: CoreError, message: str, path: Path, layer: int) -> MoedgeError:
    if error.status == Status.EXPERT_DAMAGED:
        return damaged_expert(path, layer, error.expert, error.offset, message)
    return StorageError(
        f"Expert {error.expert} of layer {layer} at byte {error.offset:,} of '{path}' cannot be read: {message}. Check "
        f"the disk, its connection and the kernel's log; replace a disk that does this again.",
        key="storage.read_timeout",
    )


def _lack_of_memory(error: CoreError, message: str, path: Path) -> MoedgeError:
    if error.status == Status.BUDGET_TOO_SMALL:
        return ConfigError(
            f"The memory for experts is too small: {message}. Give at least {-(-error.value // _MIB)}M with "
            f"--expert-memory, or model.expert_memory in moedge.yaml; with more, fewer experts are read again.",
            key="core.budget_too_small",
        )
    if error.os_error:
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        allowed = "any amount" if limit == resource.RLIM_INFINITY else f"{limit:,} bytes"
        return ConfigError(
            f"The memory of the experts cannot be locked: {message}; this process may lock {allowed}. Allow more "
            f"(`ulimit -l unlimited`, LimitMEMLOCK=infinity of systemd, --ulimit memlock=-1 of docker), give less with "
            f"--expert-memory (model.expert_memory), or leave out --mlock (model.mlock).",
            key="core.mlock",
        )
    return ConfigError(
        f"The system has no memory for the experts of '{path.parent}': {message}. Give less with --expert-memory, or "
        f"model.expert_memory in moedge.yaml; or end other programs.",
        key="core.out_of_memory",
    )
