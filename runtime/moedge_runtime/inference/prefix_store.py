"""Keys and values of the texts before the picture of the last questions, so that each question is computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.kv_cache import KvCache

PREFIX_TOKENS = 512
"""Tokens that are kept, all prefixes together, whatever the context: a prompt that begins with kept tokens may differ
from one that does not in the last bits, and options of memory are to change no bit."""


class PrefixStore:
    """Copies of the beginning of KV caches, by tokens; those not used for the longest time make room for new ones.

    Args:
        cache: That of which the store knows what it begins with; another one is taken as empty.
    """

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._kept: OrderedDict[tuple[int, ...], list[FloatArray]] = OrderedDict()
        self._present: tuple[int, ...] = ()  # what that cache begins with

    def begin(self, cache: KvCache, tokens: Sequence[int]) -> int:
        """Make `cache` begin with as many of `tokens` as are known, and with nothing else.

        Returns:
            How many these are.
        """
        wanted = tuple(tokens)
        present = self._present if cache is self._cache else ()
        best = max(self._kept, key=lambda kept: _common(kept, wanted), default=())
        length = _common(best, wanted)
        if length > _common(present, wanted):
            cache.restore([array[:, :length] for array in self._kept[best]])
            self._kept.move_to_end(best)
        else:
            length = _common(present, wanted)
            cache.truncate(length)
        if cache is self._cache:
            self._present = wanted[:length]
        return length

    def keep(self, cache: KvCache, tokens: Sequence[int]) -> None:
        """`cache` begins with `tokens` now: remember that."""
        wanted = tuple(tokens)
        if cache is self._cache:
            self._present = wanted
        if not 0 < len(wanted) <= PREFIX_TOKENS or any(_common(kept, wanted) == len(wanted) for kept in self._kept):
            return
        copied = cache.copy(len(wanted))
        if not copied:
            return
        while sum(map(len, self._kept)) + len(wanted) > PREFIX_TOKENS:
            self._kept.popitem(last=False)
        self._kept[wanted] = copied


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that both begin with."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))
