"""What the machine can do: read bandwidth of its memory, and of its flash in records of a bundle."""

from __future__ import annotations

import ctypes
import mmap
import os
import statistics
import threading
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import StorageError

LEAST_MEMORY_BYTES = 256 << 20
"""Read at once, by all threads together; twice the last cache where that is more."""

HUGE_PAGE_BYTES = 2 << 20

LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


def memory_bandwidth(threads: int, rounds: int = 5) -> float:
    """Bytes a second that `threads` read together; the median of `rounds`.

    memchr of the C library looks for a byte that is not there, which is one pass at the speed of memory.
    """
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.memchr.restype = ctypes.c_void_p
    nbytes = max(LEAST_MEMORY_BYTES, 2 * _last_cache_bytes()) // threads
    buffers = [np.ones(nbytes, np.uint8) for _ in range(threads)]

    def read(thread: int) -> None:
        found = libc.memchr(buffers[thread].ctypes.data, 7, nbytes)
        assert found is None

    return threads * nbytes / statistics.median(_together(threads, read) for _ in range(rounds))


def flash_bandwidth(bundle: Bundle, count: int, threads: int, seed: int) -> float:
    """Bytes a second of O_DIRECT reads of `count` random records of a paged bundle, `threads` at a time.

    Raises:
        StorageError: The file system has no O_DIRECT, or a read fails.
    """
    experts = bundle.manifest.experts
    assert experts is not None, "an inline bundle has no records"
    records = sum(map(len, experts.crc32c))
    wanted = np.random.default_rng(seed).permutation(records)[:count].tolist()
    seconds = read_seconds(bundle.file(experts.file), experts.record_bytes, wanted, threads)
    return len(wanted) * experts.record_bytes / seconds


def read_seconds(
    path: Path, record_bytes: int, records: Sequence[int], threads: int, *, memory_bytes: int = 0
) -> float:
    """Seconds that O_DIRECT reads of these records of a file take, in this order, `threads` at a time.

    Args:
        path: The file.
        record_bytes: Of each record; a multiple of 4,096.
        records: Their numbers.
        threads: That read.
        memory_bytes: Of the memory that is filled in turn, at least a record for each thread. A small one stays in the
            processor's cache.

    Raises:
        StorageError: The file system has no O_DIRECT, or a read fails.
    """
    remaining = iter(records)
    lock = threading.Lock()
    failures: list[str] = []
    of_thread = max(1, memory_bytes // record_bytes // threads)
    buffers = [huge_buffer(of_thread * record_bytes) for _ in range(threads)]

    def read(thread: int) -> None:
        places = [memoryview(buffers[thread])[i * record_bytes : (i + 1) * record_bytes] for i in range(of_thread)]
        for view in cycle(places):
            with lock:
                record = None if failures else next(remaining, None)
            if record is None:
                return
            try:
                got = os.preadv(file, [view], record * record_bytes)
            except OSError as error:
                failures.append(f"reading record {record} failed ({error.strerror})")
                return
            if got != record_bytes:
                failures.append(f"record {record} has {got:,} of {record_bytes:,} bytes")

    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        raise _unmeasurable(path, f"it cannot be opened past the page cache ({error.strerror})") from error
    try:
        seconds = _together(threads, read)
    finally:
        os.close(file)
    if failures:
        raise _unmeasurable(path, failures[0])
    return seconds


def _unmeasurable(path: Path, problem: str) -> StorageError:
    return StorageError(
        f"The flash under '{path}' cannot be measured: {problem}. Put the bundle on a disk of this machine with a file "
        f"system that can O_DIRECT, such as ext4, xfs or btrfs.",
        key="storage.no_direct_reads",
    )


def _last_cache_bytes() -> int:
    try:
        size = LAST_CACHE.read_text(encoding="ascii").strip()  # e.g. 32768K
    except OSError:
        return 0
    return int(size[:-1]) << 10 if size.endswith("K") and size[:-1].isdigit() else 0


def huge_buffer(nbytes: int) -> mmap.mmap:
    """Memory backed by huge pages where the kernel has them, as the core's slots are; small pages slow direct reads."""
    size = -(-nbytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    buffer = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has huge pages rarely
    buffer.madvise(mmap.MADV_HUGEPAGE)
    for _ in range(0, len(buffer), HUGE_PAGE_BYTES):
        buffer.write(b"\1" * HUGE_PAGE_BYTES)
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
