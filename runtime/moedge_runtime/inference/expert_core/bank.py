"""The expert bank of boards: the native core behind the port `ExpertBank`."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.expert_core.failure import core_failure
from moedge_runtime.inference.expert_core.hot_set import Counts
from moedge_runtime.inference.expert_core.library import (
    ABI,
    LIBRARY,
    NATIVE,
    CoreError,
    CoreOptions,
    CoreStatistics,
    Status,
    load_library,
)
from moedge_runtime.inference.experts import ExpertStatistics

MAX_TOKENS = 4096
"""Tokens that go to the core in one call; more are cut into calls of so many, each of which reads the experts anew.
The buffers take about 5.5 KiB a token at the shape of Qwen3-VL-30B-A3B."""

MAX_THREADS = 64
"""The most that the core computes with."""

READ_TIMEOUT_MS = 60_000
"""Linux itself gives an unresponsive disk 30 s before it resets it, and then tries again."""


class NativeExperts:
    """Experts paged from flash into a byte budget and computed by the native core (runtime/core).

    The result never depends on budget, readers, threads, prefetch or instruction set. One call at a time; another
    thread that calls waits for its turn. `statistics` and `counts` wait for nobody.

    Args:
        bundle: A paged one.
        budget_bytes: Of everything that the core allocates; None for all experts.
        threads: Threads that compute, 1 to `MAX_THREADS`; None for one a core.
        readers: Records of a prefill that are read at once, 1 to 64.
        max_tokens: Most tokens of one call into the core; more are cut.
        direct: Bypass the page cache where the file system can.
        prefetch: Read ahead into the next layer while a call leaves the flash idle.
        lock_memory: Back the memory of the experts by pages at once, which are never swapped out.
        isa: Instruction set, one of `library.INSTRUCTION_SETS`; None for the processor's best.

    Raises:
        BundleError: experts.bin cannot be opened or has another size.
        ConfigError: The library cannot be used, an option is out of range, or the memory is too small.
    """

    def __init__(
        self,
        bundle: Bundle,
        budget_bytes: int | None = None,
        *,
        threads: int | None = None,
        readers: int = 4,
        max_tokens: int = MAX_TOKENS,
        direct: bool = True,
        prefetch: bool = True,
        lock_memory: bool = False,
        isa: str | None = None,
    ) -> None:
        info, text = bundle.manifest.experts, bundle.manifest.model.text
        assert info is not None, "only a paged bundle has experts.bin"
        precision = bundle.manifest.quantization.experts
        self._library = load_library()
        self._path = bundle.file(info.file)
        self._moe_layers = list(text.moe_layers)
        self._position = {layer: position for position, layer in enumerate(text.moe_layers)}
        self._hidden_size, self._experts, self._max_tokens = text.hidden_size, text.num_experts, max_tokens
        checksums = np.ascontiguousarray(info.crc32c, np.uint32)
        options = CoreOptions(
            abi=ABI,
            layers=len(text.moe_layers),
            experts=text.num_experts,
            top_k=text.num_experts_per_tok,
            hidden_size=text.hidden_size,
            intermediate_size=text.moe_intermediate_size,
            bits=precision.bits,
            block_size=precision.block_size,
            symmetric=precision.symmetric,
            threads=_within("threads", _cores() if threads is None else threads, MAX_THREADS),
            readers=_within("readers", readers, 64),
            max_tokens=_within("max_tokens", max_tokens, 1 << 20),
            direct=direct,
            prefetch=prefetch,
            lock_memory=lock_memory,
            read_timeout_ms=READ_TIMEOUT_MS,
            record_bytes=info.record_bytes,
            budget_bytes=0 if budget_bytes is None else _within("budget_bytes", budget_bytes, (1 << 63) - 1),
            path=os.fsencode(self._path),
            crc32c=checksums.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32)),
            isa=None if isa is None else isa.encode(),
        )
        self._calling = threading.Lock()  # compute, preload, pin, set_budget, set_counts
        self._closing = threading.Lock()  # what may run beside these, and close
        core = ctypes.c_void_p()
        error = CoreError()
        if self._library.moedge_core_open(ctypes.byref(options), ctypes.byref(core), ctypes.byref(error)) != Status.OK:
            if error.message.startswith(b"interface version"):
                raise NATIVE.other_version(LIBRARY, f"it refuses {error.message.decode()}")
            raise core_failure(error, self._path, self._moe_layers)
        self._core: int | None = core.value
        # Not at the end of the process: a thread may still be inside the core then.
        self._free = weakref.finalize(self, self._library.moedge_core_close, core.value)
        self._free.atexit = False

    @property
    def handle(self) -> int:
        """The moedge_core, for dense layers that use its threads; they keep these, not the experts, alive."""
        return self._opened()

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        with self._closing:
            name: bytes = self._library.moedge_core_isa(self._opened())
        return name.decode()

    def compute(
        self,
        layer: int,
        moe_input: FloatArray,
        router_logits: FloatArray,
        next_router_logits: FloatArray | None = None,
    ) -> FloatArray:
        """See `ExpertBank.compute`; other Python threads run meanwhile."""
        inputs = np.ascontiguousarray(moe_input, np.float32)
        logits = np.ascontiguousarray(router_logits, np.float32)
        tokens = inputs.shape[0]
        following = np.empty((0, self._experts), np.float32)
        if next_router_logits is not None and tokens == 1:
            following = np.ascontiguousarray(next_router_logits, np.float32)
            if following.shape[1:] != (self._experts,):
                raise ValueError(f"next_router_logits {following.shape} are to be [layers, {self._experts}]")
            ahead = 0
            while ahead < len(following) and layer + ahead + 1 in self._position:
                ahead += 1
            following = following[:ahead]
        if inputs.shape != (tokens, self._hidden_size) or logits.shape != (tokens, self._experts):
            raise ValueError(
                f"moe_input {inputs.shape} and router_logits {logits.shape} are to be "
                f"[tokens, {self._hidden_size}] and [tokens, {self._experts}]"
            )
        position = self._position[layer]
        result = np.empty((tokens, self._hidden_size), np.float32)
        error = CoreError()
        with self._calling:
            core = self._opened()
            for begin in range(0, tokens, self._max_tokens):
                status = self._library.moedge_core_compute(
                    core,
                    position,
                    min(self._max_tokens, tokens - begin),
                    inputs[begin:].ctypes.data,
                    logits[begin:].ctypes.data,
                    following.ctypes.data,
                    len(following),
                    result[begin:].ctypes.data,
                    ctypes.byref(error),
                )
                if status != Status.OK:
                    raise core_failure(error, self._path, self._moe_layers, layer)
        return result

    def preload(self) -> None:
        """See `ExpertBank.preload`: pinned experts first, then those used most often and most recently.

        Waits for a call that another thread has under way.
        """
        error = CoreError()
        with self._calling:
            status = self._library.moedge_core_preload(self._opened(), ctypes.byref(error))
        if status != Status.OK:
            raise core_failure(error, self._path, self._moe_layers)

    def pin(self, keys: Sequence[tuple[int, int]]) -> None:
        """Keep exactly these experts in memory from the time they are first read; replaces the last set.

        Args:
            keys: (decoder layer, expert), the most important first: what does not fit is left out.
        """
        for layer, expert in keys:
            if layer not in self._position or not 0 <= expert < self._experts:
                raise ValueError(f"there is no expert {expert} of layer {layer}")
        flat = np.array([self._position[layer] * self._experts + expert for layer, expert in keys], np.uint32)
        error = CoreError()
        with self._calling:
            status = self._library.moedge_core_pin(self._opened(), flat.ctypes.data, flat.size, ctypes.byref(error))
        if status != Status.OK:
            raise core_failure(error, self._path, self._moe_layers)

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget; what no longer fits is dropped, pinned experts last.

        Raises:
            ConfigError: It is too small; the old one stays in force.
        """
        _within("budget_bytes", budget_bytes, (1 << 63) - 1)
        error = CoreError()
        with self._calling:
            status = self._library.moedge_core_set_budget(self._opened(), budget_bytes, ctypes.byref(error))
        if status != Status.OK:
            raise core_failure(error, self._path, self._moe_layers)

    def counts(self) -> Counts:
        """How often each expert was chosen by a token: uint64 [layers with experts, experts]."""
        counts = np.empty((len(self._moe_layers), self._experts), np.uint64)
        with self._closing:
            self._library.moedge_core_counts(self._opened(), counts.ctypes.data)
        return counts

    def set_counts(self, counts: Counts) -> None:
        """Start from the counts of an earlier run, best before the first `preload`; `counts` goes on from here.

        What was chosen often is read first, and stays as if it had been used at this rate for long.

        Args:
            counts: uint64 [layers with experts, experts], as `hot_set.load_counts` gives them.
        """
        values = np.ascontiguousarray(counts, np.uint64)
        shape = (len(self._moe_layers), self._experts)
        if values.shape != shape:
            raise ValueError(f"counts {values.shape} are to be [layers with experts, experts], {shape}")
        with self._calling:
            self._library.moedge_core_set_counts(self._opened(), values.ctypes.data)

    def statistics(self) -> ExpertStatistics:
        """See `ExpertBank.statistics`."""
        native = CoreStatistics()
        with self._closing:
            self._library.moedge_core_get_statistics(self._opened(), ctypes.byref(native))
        values = {name: getattr(native, name) for name, _ in CoreStatistics._fields_}
        values["flash_wait_ms"] = values.pop("flash_wait_ns") / 1e6
        values["compute_ms"] = values.pop("compute_ns") / 1e6
        values.update(direct=bool(native.direct), huge_pages=bool(native.huge_pages))
        return ExpertStatistics(**values)

    def close(self) -> None:
        """See `ExpertBank.close`; waits for a call and for reads under way. May be called again."""
        with self._calling, self._closing:
            self._core = None
            self._free()

    def _opened(self) -> int:
        if self._core is None:
            raise RuntimeError("the experts are closed")
        return self._core


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)


def _within(name: str, value: int, most: int) -> int:
    """`value`, which ctypes would cut to its type's bits."""
    if not 1 <= value <= most:
        raise ConfigError(f"{name}={value:,} is not possible. Set 1 to {most:,}.", key="core.bad_option")
    return value
