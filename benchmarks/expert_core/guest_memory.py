"""Memory that the host has already found for this guest, so that finding it is not measured."""

from __future__ import annotations

from moedge_runtime.bench.bandwidth import huge_buffer


def touch_memory(nbytes: int) -> None:
    """Use so much memory once. What a guest has never used its host may have to find first: 16 ms for 2 MiB, once."""
    huge_buffer(nbytes).close()
