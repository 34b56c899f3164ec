from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from moedge_runtime.bench import frame as module
from moedge_runtime.bench.frame import measure_frame
from moedge_runtime.inference import AskRequest, ExpertStatistics

RECORD = 100


class ScriptedEngine:
    """Asks whether to stop before each of two layers and each of three decoded tokens, by a clock of its own.

    Before these it asks for each of the seven parts of a native vision tower.
    """

    def __init__(
        self, *, counted: bool = True, preloaded: int = 0, preload_used: int = 0, native_vision: bool = True
    ) -> None:
        self.preloaded, self.preload_used = preloaded, preload_used
        self.now = 0.0
        self.read: int | None = 0 if counted else None
        self.done = ExpertStatistics()
        info = SimpleNamespace(record_bytes=RECORD)
        vision = SimpleNamespace(depth=3, deepstack_visual_indexes=[0, 1])
        model = SimpleNamespace(text=SimpleNamespace(num_hidden_layers=2, moe_layers=[0, 1]), vision=vision)
        self.plan = SimpleNamespace(native_vision=native_vision)
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(experts=info, model=model))
        self.experts = SimpleNamespace(statistics=lambda: self.done)

    def work(self, seconds: float, reads: int = 0, wait_ms: float = 0, **counts: int) -> None:
        self.now += seconds
        if self.read is not None:
            self.read += reads * RECORD
        counts = {name: getattr(self.done, name) + count for name, count in (counts | {"reads": reads}).items()}
        self.done = replace(self.done, flash_wait_ms=self.done.flash_wait_ms + wait_ms, **counts)

    def ask(self, _request: AskRequest, should_stop: Callable[[], bool]) -> Any:
        assert not any(should_stop() for _ in range(7 if self.plan.native_vision else 0))
        self.work(1.0, reads=self.preloaded, preloaded=self.preloaded)  # vision
        for _ in range(2):
            assert not should_stop()
            self.work(1.0, reads=10, hits=3, misses=8, prefetch_unused=2, wait_ms=250)
        self.work(0.0, preload_used=self.preload_used)
        for index in range(3):
            assert not should_stop()
            self.work(0.1 * (index + 1), reads=index, hits=1, misses=index)
        timing = SimpleNamespace(preprocess_ms=200.0, vision_ms=800.0, prefill_ms=2000.0)
        return SimpleNamespace(timing=timing, prompt_tokens=230, cached_tokens=4, image_tokens=220, tokens=(7, 8, 9))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedEngine], module.FrameMeasurement]:
    def measure(engine: ScriptedEngine) -> module.FrameMeasurement:
        monkeypatch.setattr(module, "perf_counter", lambda: engine.now)
        monkeypatch.setattr(module, "read_bytes", lambda: engine.read)
        request = AskRequest("?", images=[np.zeros((1, 1, 3), np.uint8)])
        return measure_frame(engine, request)  # type: ignore[arg-type]

    return measure


Measure = Callable[[ScriptedEngine], module.FrameMeasurement]


@pytest.mark.parametrize("native_vision", [True, False])
def test_a_prefill_and_each_decoded_token_get_their_own_time_bytes_and_wait(
    measured: Measure, native_vision: bool
) -> None:
    frame = measured(ScriptedEngine(native_vision=native_vision))
    assert frame.prefill_tokens == 226
    assert (frame.prefill.seconds, frame.prefill.flash_wait_s, frame.prefill.read_bytes) == (2.0, 0.5, 2000)
    assert [share.seconds for share in frame.decode] == pytest.approx([0.1, 0.2, 0.3])
    assert [share.read_bytes for share in frame.decode] == [0, 100, 200]
    assert frame.tokens == [7, 8, 9]


def test_the_experts_of_a_prefill_are_counted_by_layer_and_those_of_decoding_are_not_among_them(
    measured: Measure,
) -> None:
    assert measured(ScriptedEngine()).prefill_experts == 11


def test_what_was_read_ahead_for_nothing_is_not_missing(measured: Measure) -> None:
    assert measured(ScriptedEngine()).prefill.missed_bytes == 1600


def test_what_was_read_while_nothing_was_asked_is_missing_only_if_it_was_used(measured: Measure) -> None:
    assert measured(ScriptedEngine(preloaded=5, preload_used=3)).prefill.missed_bytes == pytest.approx(1900)
    assert measured(ScriptedEngine(preloaded=5, preload_used=0)).prefill.missed_bytes == pytest.approx(1600)
    assert measured(ScriptedEngine(preloaded=0, preload_used=9)).prefill.missed_bytes == pytest.approx(1600)


def test_a_kernel_that_counts_nothing_leaves_the_bytes_unknown_and_the_cores_own_count_as_missing(
    measured: Measure,
) -> None:
    frame = measured(ScriptedEngine(counted=False))
    assert frame.prefill.read_bytes is None
    assert frame.prefill.missed_bytes == 1600
