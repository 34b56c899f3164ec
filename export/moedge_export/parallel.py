"""Runs work on threads and hands its results over in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_RESULTS = 4
"""Finished results that may wait for the caller, beside one in work on each thread: bounds the memory."""


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Each item with `work(item)`, in the order of the items, computed a few items ahead on the pool's threads.

    An exception of `work` is raised where its result would have come; what is not begun by then is not done.
    """
    ahead: deque[tuple[Item, Future[Result]]] = deque()
    limit = processors() + WAITING_RESULTS
    try:
        for item in items:
            ahead.append((item, pool.submit(work, item)))
            if len(ahead) == limit:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        for _, future in ahead:
            future.cancel()


@contextmanager
def quantizing_threads() -> Iterator[ThreadPoolExecutor]:
    """A thread for every processor; torch's own threads, which would fight with them, rest meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(processors()) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def processors() -> int:
    """Processors that this process may use."""
    # macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
