import re
import sys
import threading
import time

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle, Precision
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.expert_core import bank as bank_module
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.library import load_library
from moedge_runtime.inference.experts import ExpertStatistics
from moedge_runtime.inference.numpy_experts import ExpertWeights, NumpyExperts
from runtime.inference.expert_core.bundles import FP32, INT4, PRECISIONS, inputs, name_of, write_bundle

DEADLINE_S = 60


def least_budget(bundle: Bundle, **options: int) -> int:
    """What the refusal of a budget of one byte says."""
    with pytest.raises(ConfigError) as caught:
        NativeExperts(bundle, 1, **options)
    return int(re.search(r"at least ([\d,]+) are needed", str(caught.value))[1].replace(",", ""))


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def int8_activations(x: np.ndarray, block_size: int) -> np.ndarray:
    """What is left of `x` when every block of a row is stored as int8 with the value of largest magnitude at -128."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % block_size))).reshape(x.shape[0], -1, block_size)
    largest = np.take_along_axis(padded, np.abs(padded).argmax(axis=2, keepdims=True), axis=2)
    scale = largest / np.float32(-128)
    steps = np.minimum(np.rint(padded / np.where(scale == 0, 1, scale)), 127)
    return (steps * scale).reshape(x.shape[0], -1)[:, : x.shape[1]].astype(np.float32)


@pytest.fixture
def quantized_oracle(monkeypatch):
    """Makes NumpyExperts compute with int8 activations of some block size."""

    def use(block_size: int) -> None:
        def call(self: ExpertWeights, x: np.ndarray) -> np.ndarray:
            both = int8_activations(x, block_size) @ self.fc1.T
            gate, up = both[:, 0::2], both[:, 1::2]
            return int8_activations(gate / (1 + np.exp(-gate)) * up, block_size) @ self.fc2.T

        monkeypatch.setattr(ExpertWeights, "__call__", call)

    return use


SHAPES = [(64, 32), (80, 48), (100, 52), (33, 7), (160, 129), (256, 300)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", PRECISIONS, ids=name_of)
def test_every_precision_and_shape_equals_the_numpy_reference(tmp_path, precision, shape, quantized_oracle):
    hidden_size, intermediate_size = shape if precision.bits != 4 else (size + size % 2 for size in shape)
    bundle = write_bundle(tmp_path / "bundle", precision, hidden_size, intermediate_size, experts=5, top_k=2)
    plain, native = NumpyExperts(bundle, 1 << 30), NativeExperts(bundle)
    for layer in bundle.manifest.model.text.moe_layers:
        for tokens in (1, 2, 5, 40):
            x, logits = inputs(bundle, tokens, seed=layer)
            wanted, got = plain.compute(layer, x, logits), native.compute(layer, x, logits)
            assert got.dtype == np.float32 and got.shape == wanted.shape
            largest = np.abs(wanted).max()
            if precision.bits == 32:
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * largest)
            else:
                assert rms(got - wanted) < 0.05 * rms(wanted)
    if precision.bits != 32:
        # With activations of eight bits the reference differs where one of them falls on the other side of a half.
        quantized_oracle(precision.block_size)
        wanted = plain.compute(layer, x, logits)
        assert rms(got - wanted) < 1e-3 * rms(wanted)
        assert np.abs(got - wanted).max() < 5e-3 * largest
    plain.close()
    native.close()


def test_any_number_of_tokens_equals_the_numpy_reference(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", FP32)
    plain, native = NumpyExperts(bundle, 1 << 30), NativeExperts(bundle, max_tokens=300)
    for tokens in range(301):
        x, logits = inputs(bundle, tokens)
        wanted, got = plain.compute(2, x, logits), native.compute(2, x, logits)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max(initial=0))
    native.close()


def test_a_call_of_more_tokens_than_the_core_takes_is_cut_without_changing_a_bit(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    x, logits = inputs(bundle, 100)
    whole, cut = NativeExperts(bundle), NativeExperts(bundle, max_tokens=7)
    np.testing.assert_array_equal(cut.compute(2, x, logits), whole.compute(2, x, logits))
    assert (whole.statistics().calls, cut.statistics().calls) == (1, 15)
    assert whole.statistics().tokens == cut.statistics().tokens == 100
    whole.close()
    cut.close()


@pytest.mark.parametrize("tokens", [1, 20])
def test_of_equal_logits_the_lower_expert_is_taken(tmp_path, tokens):
    bundle = write_bundle(tmp_path / "bundle", FP32)
    x, logits = inputs(bundle, tokens)
    logits[:] = 0
    logits[:, 5:7] = 1
    plain, native = NumpyExperts(bundle), NativeExperts(bundle)
    wanted, got = plain.compute(0, x, logits), native.compute(0, x, logits)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    counts = native.counts()
    assert (counts.dtype, counts.shape) == (np.uint64, (3, 12))
    assert np.flatnonzero(counts[0]).tolist() == [0, 5, 6]
    native.close()


def test_all_tokens_may_choose_the_same_experts(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", FP32)
    x, logits = inputs(bundle, 50)
    logits[:] = logits[:1]
    plain, native = NumpyExperts(bundle), NativeExperts(bundle)
    wanted, got = plain.compute(3, x, logits), native.compute(3, x, logits)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert sorted(native.counts()[2].tolist()) == [0] * 9 + [50] * 3
    native.close()


@pytest.mark.parametrize("logit", [1e4, 3e38])
def test_very_large_logits_do_not_overflow(tmp_path, logit):
    bundle = write_bundle(tmp_path / "bundle", FP32)
    x, logits = inputs(bundle, 3)
    logits[0, 4], logits[1] = logit, -logit
    plain, native = NumpyExperts(bundle), NativeExperts(bundle)
    wanted, got = plain.compute(0, x, logits), native.compute(0, x, logits)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    native.close()


def test_arrays_of_any_memory_layout_and_type_are_taken(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle)
    x, logits = inputs(bundle, 6)
    wanted = native.compute(2, x, logits)
    for change in (
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda a: a.astype(np.float64),
    ):
        np.testing.assert_array_equal(native.compute(2, change(x), change(logits)), wanted)
    native.close()


def test_arrays_of_another_shape_never_reach_the_core(tmp_path):
    native = NativeExperts(write_bundle(tmp_path / "bundle", INT4))
    good, logits = np.zeros((2, 64), np.float32), np.zeros((2, 12), np.float32)
    for x, router_logits in ((good[:, :63], logits), (good, logits[:1]), (good, logits[:, :5]), (good[0], logits)):
        with pytest.raises(ValueError, match=r"are to be \[tokens, 64\] and \[tokens, 12\]"):
            native.compute(0, x, router_logits)
    with pytest.raises(KeyError):
        native.compute(1, good, logits)  # a dense layer
    native.close()


def test_statistics_add_up(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    record_bytes = bundle.manifest.experts.record_bytes
    native = NativeExperts(bundle)
    chosen = 0
    before = native.statistics()
    assert (before.calls, before.hits, before.misses, before.reads, before.resident) == (0, 0, 0, 0, 0)
    for tokens in (1, 30, 2):
        for layer in (0, 2, 3):
            counts = native.counts()
            native.compute(layer, *inputs(bundle, tokens, seed=layer))
            assert (native.counts() - counts).sum() == tokens * 3
            chosen += np.count_nonzero(native.counts() - counts)
    after = native.statistics()
    assert (after.calls, after.tokens) == (9, 99)
    assert after.hits + after.misses == chosen
    assert after.reads == after.resident <= 36
    assert after.read_bytes == after.reads * record_bytes
    assert after.queue_depth_sum >= after.reads
    assert after.slots == 36 and after.ring_slots == 0
    assert after.evictions == after.failed_reads == after.pinned == 0
    assert before.used_bytes < after.used_bytes <= after.budget_bytes
    assert after.compute_ms > 0 and after.flash_wait_ms >= 0
    native.compute(0, *inputs(bundle, 30))
    again = native.statistics() - after
    assert (again.calls, again.tokens, again.misses, again.reads, again.read_bytes) == (1, 30, 0, 0, 0)
    assert again.hits > 0 and 0 < again.compute_ms < native.statistics().compute_ms
    assert again.resident == after.resident
    native.close()


def test_the_reference_counts_alike(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    plain, native = NumpyExperts(bundle, 1 << 30), NativeExperts(bundle, prefetch=False)
    for tokens in (1, 9, 1):
        for layer in (0, 2):
            for experts in (plain, native):
                experts.compute(layer, *inputs(bundle, tokens))
    for name in ("calls", "tokens", "hits", "misses", "reads", "read_bytes", "failed_reads", "evictions", "resident"):
        assert getattr(plain.statistics(), name) == getattr(native.statistics(), name), name
    assert plain.statistics().compute_ms > 0
    assert plain.statistics().slots is None
    plain.close()
    native.close()


def test_a_difference_of_statistics_counts_what_came_between_and_keeps_the_state():
    earlier = ExpertStatistics(hits=2, read_bytes=100, flash_wait_ms=1.5, compute_ms=3, resident=4, slots=9)
    later = ExpertStatistics(
        hits=7, read_bytes=150, flash_wait_ms=2, compute_ms=10, resident=3, slots=9, budget_bytes=5
    )
    assert later - earlier == ExpertStatistics(
        hits=5, read_bytes=50, flash_wait_ms=0.5, compute_ms=7, resident=3, slots=9, budget_bytes=5
    )


def test_pinned_experts_survive_any_storm(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    record_bytes = bundle.manifest.experts.record_bytes
    native = NativeExperts(bundle, least_budget(bundle) + 4 * record_bytes)
    x, logits = inputs(bundle, 1)
    logits[:] = 0
    logits[0, [1, 7, 11]] = 9
    native.pin([(2, 7), (2, 1), (2, 11)])
    native.compute(2, x, logits)
    for seed in range(30):
        native.compute((0, 3)[seed % 2], *inputs(bundle, 1 + seed % 20, seed))
    before = native.statistics()
    assert before.pinned == 3 and before.evictions > 0
    native.compute(2, x, logits)
    assert (native.statistics() - before).misses == 0
    native.pin([])
    for seed in range(30):
        native.compute(0, *inputs(bundle, 1, seed))
    assert native.statistics().pinned == 0
    before = native.statistics()
    native.compute(2, x, logits)
    assert (native.statistics() - before).misses == 3
    native.close()


def test_only_experts_that_exist_can_be_pinned(tmp_path):
    native = NativeExperts(write_bundle(tmp_path / "bundle", INT4))
    for key in ((1, 0), (0, 12), (0, -1), (4, 0)):
        with pytest.raises(ValueError, match=rf"no expert {key[1]} of layer {key[0]}"):
            native.pin([(0, 0), key])
    native.pin([(layer, expert) for layer in (0, 2, 3) for expert in range(12)] * 2)
    native.close()


def test_the_budget_can_change_between_calls(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    least = least_budget(bundle)
    native = NativeExperts(bundle)
    calls = [(layer, inputs(bundle, 20, layer)) for layer in (0, 2, 3)]
    wanted = [native.compute(layer, *arrays) for layer, arrays in calls]
    assert native.statistics().resident > 30
    for budget in (least, 1 << 30, least + 70_000):
        native.set_budget(budget)
        statistics = native.statistics()
        assert statistics.budget_bytes == budget >= statistics.used_bytes
        for (layer, arrays), result in zip(calls, wanted, strict=True):
            np.testing.assert_array_equal(native.compute(layer, *arrays), result)
        assert native.statistics().used_bytes <= budget
    with pytest.raises(ConfigError, match="The memory for experts is too small") as caught:
        native.set_budget(least - 1)
    assert caught.value.key == "core.budget_too_small"
    assert native.statistics().budget_bytes == least + 70_000
    np.testing.assert_array_equal(native.compute(0, *calls[0][1]), wanted[0])
    native.close()


def test_a_budget_that_is_too_small_is_refused_with_the_least_that_is_possible(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    with pytest.raises(
        ConfigError, match=r"budget of 1,000 bytes, at least [\d,]+ are needed: .* Give at least \dM"
    ) as e:
        NativeExperts(bundle, 1000)
    assert (e.value.key, e.value.exit_code) == ("core.budget_too_small", 2)
    least = least_budget(bundle)
    with pytest.raises(ConfigError):
        NativeExperts(bundle, least - 1)
    NativeExperts(bundle, least).close()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"budget_bytes": 0}, "budget_bytes=0 is not possible"),
        ({"budget_bytes": -5}, "budget_bytes=-5 is not possible"),
        ({"threads": 0}, "threads=0 is not possible. Set 1 to 64"),
        ({"threads": 65}, "threads=65 is not possible"),
        ({"readers": 0}, "readers=0 is not possible"),
        ({"readers": 65}, "readers=65 is not possible"),
        ({"max_tokens": 0}, "max_tokens=0 is not possible"),
        ({"max_tokens": 1 << 40}, "max_tokens=1,099,511,627,776 is not possible"),
        ({"isa": "mmx"}, "isa=mmx is not possible on this processor"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options, text):
    with pytest.raises(ConfigError, match=text) as caught:
        NativeExperts(write_bundle(tmp_path / "bundle", INT4), **options)
    assert caught.value.key == "core.bad_option"


def test_without_a_budget_there_is_room_for_all_experts(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle)
    assert native.statistics().slots == 36
    native.close()


def test_closing_twice_is_allowed_and_nothing_else_afterwards(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle)
    native.close()
    native.close()
    for call in (
        lambda: native.compute(0, *inputs(bundle, 1)),
        lambda: native.pin([]),
        lambda: native.set_budget(1 << 30),
        native.counts,
        native.statistics,
    ):
        with pytest.raises(RuntimeError, match="closed"):
            call()


class Held:
    """The library, but a computation waits until it is let go."""

    def __init__(self):
        self.real = load_library()
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.order = []

    def __getattr__(self, name):
        return getattr(self.real, name)

    def moedge_core_compute(self, *arguments):
        self.entered.set()
        assert self.let_go.wait(DEADLINE_S)
        status = self.real.moedge_core_compute(*arguments)
        self.order.append("compute")
        return status

    def moedge_core_close(self, core):
        self.order.append("close")
        self.real.moedge_core_close(core)


def test_closing_waits_for_a_call_and_statistics_do_not(tmp_path, monkeypatch):
    held = Held()
    monkeypatch.setattr(bank_module, "load_library", lambda: held)
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle)
    computing = threading.Thread(target=native.compute, args=(0, *inputs(bundle, 1)))
    computing.start()
    assert held.entered.wait(DEADLINE_S)
    assert native.statistics().calls == native.counts().sum() == 0
    closing = threading.Thread(target=native.close)
    closing.start()
    closing.join(0.2)  # a close that does not wait is over by then
    held.let_go.set()
    computing.join(DEADLINE_S)
    closing.join(DEADLINE_S)
    assert held.order == ["compute", "close"]


def test_threads_take_turns_until_it_is_closed(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle, least_budget(bundle))
    calls = [(layer, inputs(bundle, 30, layer)) for layer in (0, 2, 3)]
    wanted = [native.compute(layer, *arrays) for layer, arrays in calls]
    begun = threading.Barrier(4)
    problems = []

    def work():
        begun.wait(DEADLINE_S)
        try:
            while True:
                for (layer, arrays), result in zip(calls, wanted, strict=True):
                    np.testing.assert_array_equal(native.compute(layer, *arrays), result)
                native.statistics()
                native.counts()
        except RuntimeError:
            return
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait(DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while native.statistics().calls < 60 and time.monotonic() < deadline:
        pass
    native.close()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    assert not problems


def test_other_python_threads_run_while_it_computes(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", FP32, hidden_size=256, intermediate_size=256)
    native = NativeExperts(bundle, threads=1, isa="scalar", max_tokens=500)
    arrays = inputs(bundle, 500)
    seen: list[float] = []
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            seen.append(time.perf_counter())

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        deadline = time.monotonic() + DEADLINE_S
        inside: list[float] = []
        while not inside and time.monotonic() < deadline:
            begin = time.perf_counter()
            native.compute(0, *arrays)
            end = time.perf_counter()
            # Around the call the interpreter may switch as well; a call that keeps the lock has nothing in its middle.
            assert end - begin > 10 * interval, "too short to tell"
            middle = (begin + 0.25 * (end - begin), begin + 0.75 * (end - begin))
            inside = [moment for moment in list(seen) if middle[0] < moment < middle[1]]
            seen.clear()
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    assert inside
    native.close()


def test_a_forgotten_bank_is_freed(tmp_path):
    native = NativeExperts(write_bundle(tmp_path / "bundle", Precision(bits=8)))
    free = native._free
    assert free.alive and not free.atexit
    del native
    assert not free.alive
