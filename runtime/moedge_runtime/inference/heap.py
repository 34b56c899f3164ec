"""Makes the C library give freed memory back to the system; without that a budget would only hold on paper."""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD = -3
"""Source: glibc's malloc.h."""

MAPPED_BYTES = 1 << 20
"""Blocks from this size on are mapped one by one and unmapped when they are freed. Left alone, glibc raises the limit
to the largest block freed so far, 32 MiB at most, and keeps those below it (docs/memory.md)."""


def return_large_blocks() -> None:
    """From now on, give blocks of `MAPPED_BYTES` and more back when they are freed; nothing where that is unknown."""
    with contextlib.suppress(AttributeError):  # musl has no such switch and always does so
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
