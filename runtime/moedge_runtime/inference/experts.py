"""The port through which a decoder reaches its experts, what a bank has done, and the errors of every bank."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from moedge_runtime.errors import BundleError
from moedge_runtime.inference.dequantize import FloatArray


@dataclass(frozen=True)
class ExpertStatistics:
    """What a bank has done since it was opened; the difference of two is what it did in between.

    Attributes:
        calls: Calls of `compute` that succeeded.
        tokens: Tokens of these calls.
        hits: (call, expert) pairs whose record was in memory when the call began.
        misses: Those that had to be read, or waited for.
        reads: Records read completely.
        read_bytes: Bytes read.
        prefetch_used: Records read ahead and then computed with.
        prefetch_unused: Records read ahead and thrown away.
        preloaded: Records that `preload` began to read.
        preloaded_bytes: Of these records.
        preload_used: Of these, those that a later call computed with or waited for.
        failed_reads: I/O errors, short reads and checksum mismatches.
        evictions: Records dropped for others.
        queue_depth_sum: Reads outstanding whenever a read was added, itself included; divided by `reads` the mean.
        flash_wait_ms: Time in which the calling thread had nothing to compute while a read was outstanding.
        compute_ms: All other time of the calling thread inside `compute`.
        budget_bytes: In force now, as is everything below; a difference holds what the later one says.
        used_bytes: Of the budget.
        resident: Records in memory.
        pinned: Of these, those that stay.
        slots: Places for records, those for the scan of a prefill included; None where there are none.
        ring_slots: Places for the scan of a prefill.
        direct: Whether reads bypass the page cache.
        huge_pages: Whether the kernel took the advice to use huge pages.
    """

    calls: int = 0
    tokens: int = 0
    hits: int = 0
    misses: int = 0
    reads: int = 0
    read_bytes: int = 0
    prefetch_used: int = 0
    prefetch_unused: int = 0
    preloaded: int = 0
    preloaded_bytes: int = 0
    preload_used: int = 0
    failed_reads: int = 0
    evictions: int = 0
    queue_depth_sum: int = 0
    flash_wait_ms: float = 0.0
    compute_ms: float = 0.0
    budget_bytes: int = 0
    used_bytes: int = 0
    resident: int = 0
    pinned: int = 0
    slots: int | None = None
    ring_slots: int | None = None
    direct: bool | None = None
    huge_pages: bool | None = None

    def __sub__(self, earlier: ExpertStatistics) -> ExpertStatistics:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in values.keys() - _STATE:
            values[name] -= getattr(earlier, name)
        return ExpertStatistics(**values)

    def __add__(self, later: ExpertStatistics) -> ExpertStatistics:
        values = {field.name: getattr(later, field.name) for field in fields(self)}
        for name in values.keys() - _STATE:
            values[name] += getattr(self, name)
        return ExpertStatistics(**values)

    def part(self, index: int, parts: int) -> ExpertStatistics:
        """One of `parts` nearly equal parts, which add up to the whole."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in values.keys() - _STATE:
            value = values[name]
            values[name] = value // parts + (index < value % parts) if isinstance(value, int) else value / parts
        return ExpertStatistics(**values)


_STATE = frozenset(
    ("budget_bytes", "used_bytes", "resident", "pinned", "slots", "ring_slots", "direct", "huge_pages"),
)
"""The fields that say how things are now; all others only grow."""


class ExpertBank(Protocol):
    """Computes the experts of one layer. Where their weights are is its own affair and never changes the result.

    Nor may the result for one token depend on the others of a call: these may belong to another question. (Of the numpy
    reference it does, in the last bits, so that no question shares a pass with another one there.)
    """

    def compute(
        self,
        layer: int,
        moe_input: FloatArray,
        router_logits: FloatArray,
        next_router_logits: FloatArray | None = None,
    ) -> FloatArray:
        """Weighted sum of each token's experts.

        Args:
            layer: Index of the decoder layer, one of the manifest's `moe_layers`.
            moe_input: float32 [tokens, hidden_size], normed.
            router_logits: float32 [tokens, num_experts].
            next_router_logits: float32 [A, num_experts], a guess of what the routers of the next A layers will say of
                the last token: what it chooses may be read before they are called. Never changes a result.

        Returns:
            float32 [tokens, hidden_size].

        Raises:
            BundleError: A record cannot be read or is damaged, or an input is not finite.
        """
        ...

    def preload(self) -> None:
        """The flash is idle until the next call: begin to read what that will probably need, and return at once.

        The next `compute` ends it, so it is to be called again whenever nothing will be computed for a while. It
        changes no result, and an expert that cannot be read fails nothing until a `compute` needs it.
        """
        ...

    def set_budget(self, budget_bytes: int) -> None:
        """Change the memory that it may take; what no longer fits is dropped before this returns.

        Raises:
            ConfigError: It is too small; the old one stays in force.
        """
        ...

    def statistics(self) -> ExpertStatistics:
        """What it has done so far. May be called from any thread."""
        ...

    def close(self) -> None:
        """Release files and memory; `compute` must not be called afterwards."""
        ...


def damaged_expert(path: Path, layer: int, expert: int, offset: int, problem: str) -> BundleError:
    """The error for a record of `path` that cannot be used.

    Args:
        path: experts.bin.
        layer: Index of the decoder layer.
        expert: Index in the layer.
        offset: Of the record in the file, bytes.
        problem: What is wrong, as a clause.
    """
    return BundleError(
        f"Expert {expert} of layer {layer} at byte {offset:,} of '{path}' cannot be used: {problem}. "
        f"Copy the bundle again; if it happens again, replace the disk.",
        key="bundle.expert_damaged",
    )


def unusable_experts(path: Path, problem: str) -> BundleError:
    """The error for an experts.bin that cannot be opened or has another size; `problem` is a clause."""
    return BundleError(f"'{path}' cannot be used: {problem}. Copy the bundle again.", key="bundle.experts_unusable")


def not_finite(path: Path, layer: int, problem: str) -> BundleError:
    """The error for inputs of an expert layer that hold NaN or infinity; `problem` is a clause."""
    return BundleError(
        f"The model of '{path.parent}' fails in layer {layer}: {problem}. Check the bundle with `moedge verify`; if it "
        f"is whole, export it again with a higher precision or `--activations fp32`.",
        key="bundle.not_finite",
    )
