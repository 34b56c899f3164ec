"""Measures the board: bandwidths of memory and flash at the size of a record, and how fast the kernels compute."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from moedge_runtime.bench.bandwidth import flash_bandwidth, memory_bandwidth, read_seconds
from moedge_runtime.bench.compute import expert_rate, layer_rate, vision_rate
from moedge_runtime.bench.rounds import FLASH_RECORDS, synthetic_picture
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import MoedgeError
from moedge_runtime.inference.expert_core.library import usable_instruction_sets

READERS = 4
"""As the runtime reads by default (EngineOptions.expert_readers)."""

FLASH_ROUNDS = 3


@dataclass(frozen=True)
class Measurement:
    """What the board does, in bytes or operations a second; None for what was not or could not be measured.

    Attributes:
        memory: Read by all threads together.
        flash: Random records past the page cache, `READERS` at a time.
        flash_in_order: Neighbouring records, as a prefill that needs all experts reads them.
        experts: Operations of the expert core.
        layers: Of a decoder layer without its experts; needs a bundle.
        vision: In the vision tower; needs a bundle.
        instruction_sets: That the core can use, slowest first.
        problems: What could not be measured, as sentences.
    """

    memory: float | None
    flash: float | None
    flash_in_order: float | None
    experts: float | None
    layers: float | None
    vision: float | None
    instruction_sets: list[str]
    problems: list[str]


def measure(bundle: Bundle, threads: int, *, whole: bool, say: Callable[[str], None]) -> Measurement:
    """Measure with the records of `bundle`.

    Args:
        bundle: A paged one, or a probe.
        threads: That compute.
        whole: Whether the bundle has graphs too, so that dense parts can be timed.
        say: Told what is being measured.
    """
    problems: list[str] = []

    def attempt(what: str, call: Callable[[], float]) -> float | None:
        say(what)
        try:
            return call()
        except MoedgeError as error:
            problems.append(str(error))
            return None

    memory = attempt("bandwidth of the memory", lambda: memory_bandwidth(threads))
    flash = attempt("bandwidth of the flash, random records", lambda: _random_records(bundle))
    in_order = attempt("bandwidth of the flash, records in order", lambda: _records_in_order(bundle))
    sets: list[str] = []
    try:
        sets = usable_instruction_sets()
    except MoedgeError as error:
        problems.append(str(error))
    experts = attempt("computing of experts", lambda: expert_rate(bundle, threads)) if sets else None
    layers = attempt("computing of a decoder layer", lambda: layer_rate(bundle, threads)) if whole else None
    vision = (
        attempt("computing of the vision tower", lambda: vision_rate(bundle, threads, synthetic_picture()))
        if whole
        else None
    )
    return Measurement(memory, flash, in_order, experts, layers, vision, sets, problems)


def _random_records(bundle: Bundle) -> float:
    return statistics.median(flash_bandwidth(bundle, FLASH_RECORDS, READERS, seed) for seed in range(FLASH_ROUNDS))


def _records_in_order(bundle: Bundle) -> float:
    info = bundle.manifest.experts
    assert info is not None, "an inline bundle has no records"
    every = sum(map(len, info.crc32c))
    count = min(every, FLASH_RECORDS)
    rates = []
    for part in range(FLASH_ROUNDS):
        first = (every - count) * part // FLASH_ROUNDS
        seconds = read_seconds(bundle.file(info.file), info.record_bytes, range(first, first + count), READERS)
        rates.append(count * info.record_bytes / seconds)
    return statistics.median(rates)
