"""Reads tensors out of safetensors shards piece by piece, without mapping them into memory."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from moedge_runtime.errors import CheckpointError, StorageError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors format (safetensors README, "Format")."""

SAMPLES, SAMPLE_BYTES = 16, 4096
"""Of each tensor, for the fingerprint."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes lie."""

    shard: Path
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]


class SafetensorsReader:
    """All tensors of a directory with `model.safetensors`, or with shards and `model.safetensors.index.json`.

    Shards are read with pread, not mapped: the pages of a mapping count as this process's memory, and a whole
    checkpoint passes through here. Opening reads every shard's header and checks its length. Reading is thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        """Open all shards.

        Raises:
            CheckpointError: No safetensors there, or a shard is missing, truncated or no safetensors file.
        """
        self._files: dict[Path, int] = {}
        self._tensors: dict[str, StoredTensor] = {}
        try:
            for shard in _shards(directory):
                self._files[shard] = os.open(shard, os.O_RDONLY)
                self._tensors |= _read_header(shard, self._files[shard])
        except BaseException:
            self.close()
            raise

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor; None if the checkpoint has no such tensor."""
        stored = self._tensors.get(name)
        return None if stored is None else stored.shape

    def dtype(self, name: str) -> str:
        """Data type of a tensor as safetensors names it, e.g. `BF16`."""
        return self._tensors[name].dtype

    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Elements `start` to `stop` along the first axis, in the stored data type; freshly read memory."""
        stored = self._tensors[name]
        row_bytes = stored.nbytes // stored.shape[0]
        buffer = bytearray((stop - start) * row_bytes)
        view, position = memoryview(buffer), stored.offset + start * row_bytes
        while view:
            try:
                count = os.preadv(self._files[stored.shard], [view], position)
            except OSError as error:
                raise StorageError(
                    f"Shard '{stored.shard}' cannot be read: {error.strerror}. Check its disk.", key="storage.read"
                ) from error
            if count == 0:
                raise CheckpointError(
                    f"Shard '{stored.shard}' ended while it was read: {len(view):,} bytes of tensor '{name}' are "
                    f"missing. Download it again.",
                    key="checkpoint.truncated",
                )
            view, position = view[count:], position + count
        return torch.frombuffer(buffer, dtype=DTYPES[stored.dtype]).reshape(stop - start, *stored.shape[1:])

    def fingerprint(self) -> str:
        """Tells these weights apart from others by names, types, shapes and samples of every tensor.

        `SAMPLES` pieces of `SAMPLE_BYTES` of each tensor are read: 60 MB of Qwen3-VL-30B-A3B's 62 GB. A finetune
        changes tensors throughout; who alters single weights by hand must not rely on this.
        """
        digest = hashlib.sha256()
        for name, stored in sorted(self._tensors.items()):
            digest.update(f"{name} {stored.dtype} {stored.shape}\n".encode())
            last = max(0, stored.nbytes - SAMPLE_BYTES)
            for sample in range(SAMPLES):
                offset = stored.offset + last * sample // (SAMPLES - 1)
                digest.update(os.pread(self._files[stored.shard], min(SAMPLE_BYTES, stored.nbytes), offset))
        return digest.hexdigest()

    def close(self) -> None:
        """Close all shards."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()


def _shards(directory: Path) -> list[Path]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if index.exists():
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            shards = [directory / name for name in sorted(set(weight_map.values()))]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"'{index}' does not say which shard each tensor is in ({type(error).__name__}: {error}). Download it "
                f"again.",
                key="checkpoint.damaged",
            ) from error
    elif single.exists():
        shards = [single]
    else:
        raise CheckpointError(
            f"'{directory}' has neither model.safetensors nor model.safetensors.index.json. Give a checkpoint in "
            f"safetensors format.",
            key="checkpoint.no_weights",
        )
    for shard in shards:
        if not shard.exists():
            raise CheckpointError(
                f"Checkpoint '{directory}' lacks the shard '{shard.name}' that its index lists. Download it again.",
                key="checkpoint.shard_missing",
            )
    return shards


def _read_header(shard: Path, descriptor: int) -> dict[str, StoredTensor]:
    size = os.fstat(descriptor).st_size
    header_bytes = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or (size < 8 + header_bytes <= 8 + MAX_HEADER_BYTES):
        raise _truncated(shard, size, 8 + header_bytes if size >= 8 else 8)
    try:
        if header_bytes > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {header_bytes:,} bytes")
        header = json.loads(os.pread(descriptor, header_bytes, 8))
        tensors = {
            name: _stored_tensor(shard, 8 + header_bytes, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"Shard '{shard}' is no safetensors file ({error}). Download it again.", key="checkpoint.damaged"
        ) from error
    expected = max((tensor.offset + tensor.nbytes for tensor in tensors.values()), default=8 + header_bytes)
    if size < expected:
        raise _truncated(shard, size, expected)
    return tensors


def _stored_tensor(shard: Path, data: int, entry: dict[str, Any]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    dtype = str(entry["dtype"])
    if dtype in DTYPES and end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{end - begin} bytes for shape {shape} of {dtype}")
    return StoredTensor(shard, data + begin, end - begin, dtype, shape)


def _truncated(shard: Path, got: int, expected: int) -> CheckpointError:
    return CheckpointError(
        f"Shard '{shard}' is truncated: it has {got:,} bytes, its header needs {expected:,}. Download it again.",
        key="checkpoint.truncated",
    )
