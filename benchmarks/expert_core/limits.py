"""What the machine can do: read bandwidth of its memory, and of its flash at our record size."""

from __future__ import annotations

import ctypes
import mmap
import os
import statistics
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

MEMORY_BYTES = 512 << 20
"""Read by each thread at once; far more than any cache."""

HUGE_PAGE_BYTES = 2 << 20


def memory_bandwidth(threads: int, rounds: int = 5) -> float:
    """Bytes a second that `threads` read together; the median of `rounds`.

    memchr of the C library looks for a byte that is not there, which is one pass at the speed of memory.
    """
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.memchr.restype = ctypes.c_void_p
    buffers = [np.zeros(MEMORY_BYTES, np.uint8) for _ in range(threads)]
    for buffer in buffers:
        buffer[:] = 1

    def read(thread: int) -> None:
        found = libc.memchr(buffers[thread].ctypes.data, 7, MEMORY_BYTES)
        assert found is None

    return threads * MEMORY_BYTES / statistics.median(_together(threads, read) for _ in range(rounds))


def read_seconds(path: Path, record_bytes: int, records: Sequence[int], threads: int) -> float:
    """Seconds that O_DIRECT reads of these records take, in this order, `threads` at a time."""
    remaining = iter(records)
    lock = threading.Lock()
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffers = [_huge_buffer(record_bytes) for _ in range(threads)]

    def read(thread: int) -> None:
        view = memoryview(buffers[thread])[:record_bytes]
        while True:
            with lock:
                record = next(remaining, None)
            if record is None:
                return
            got = os.preadv(file, [view], record * record_bytes)
            assert got == record_bytes

    seconds = _together(threads, read)
    os.close(file)
    return seconds


def touch_memory(nbytes: int) -> None:
    """Use so much memory once. What a guest has never used its host may have to find first: 16 ms for 2 MiB, once."""
    _huge_buffer(nbytes).close()


def _huge_buffer(nbytes: int) -> mmap.mmap:
    """Memory backed by huge pages where the kernel has them, as the core's slots are; small pages slow direct reads."""
    buffer = mmap.mmap(-1, -(-nbytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES)
    buffer.madvise(mmap.MADV_HUGEPAGE)
    for start in range(0, len(buffer), HUGE_PAGE_BYTES):
        buffer[start : start + HUGE_PAGE_BYTES] = b"\1" * HUGE_PAGE_BYTES
    return buffer


def _together(threads: int, work: Callable[[int], None]) -> float:
    """Seconds until `work` has returned in all threads."""
    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    start = perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return perf_counter() - start
