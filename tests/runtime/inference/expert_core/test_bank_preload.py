"""Reading ahead of the first use: what an earlier run chose most, as many as there is room for, and no other result."""

import re
import time

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError, ConfigError
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.hot_set import HotSet, load_hot_set, save_hot_set
from moedge_runtime.inference.experts import ExpertBank
from moedge_runtime.inference.numpy_experts import NumpyExperts
from runtime.inference.expert_core.bundles import INT4, inputs, write_bundle

DEADLINE_S = 60


def wait_for_reads(native: NativeExperts, reads: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while native.statistics().reads < reads:
        assert time.monotonic() < deadline, native.statistics()


def budget_for(bundle: Bundle, experts: int) -> int:
    """Bytes in which so many experts stay beside a ring of two; at most a dozen."""
    with pytest.raises(ConfigError) as caught:
        NativeExperts(bundle, 1)
    least = int(re.search(r"at least ([\d,]+) are needed", str(caught.value))[1].replace(",", ""))
    return least + (experts - 3) * bundle.manifest.experts.record_bytes


def test_with_room_for_all_nothing_is_left_to_read(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    plain, native = NativeExperts(bundle, prefetch=False), NativeExperts(bundle)
    native.preload()
    wait_for_reads(native, 36)
    before = native.statistics()
    for layer in (0, 2, 3):
        for tokens in (1, 30):
            arrays = inputs(bundle, tokens, layer)
            np.testing.assert_array_equal(native.compute(layer, *arrays), plain.compute(layer, *arrays))
    done = native.statistics() - before
    assert (done.misses, done.reads, done.preloaded) == (0, 0, 0)
    assert native.statistics().preloaded == 36
    assert native.statistics().preloaded_bytes == native.statistics().read_bytes
    assert 0 < done.preload_used <= 36
    plain.close()
    native.close()


def test_a_later_run_begins_with_the_experts_that_an_earlier_one_chose_most(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    text, path = bundle.manifest.model.text, tmp_path / "counts.json"
    x, logits = inputs(bundle, 1)
    logits[:] = 0
    logits[0, [4, 7, 9]] = 9
    earlier = NativeExperts(bundle)
    for layer in (0, 2, 3):
        earlier.compute(layer, *inputs(bundle, 3, layer))
        for _ in range(20):
            earlier.compute(layer, x, logits)
    save_hot_set(path, HotSet(earlier.counts()), text)
    earlier.close()

    later = NativeExperts(bundle, budget_for(bundle, 9))
    later.set_counts(load_hot_set(path, text).counts)
    later.preload()
    wait_for_reads(later, 9)
    for layer in (0, 2, 3):
        later.compute(layer, x, logits)
    assert (later.statistics().hits, later.statistics().misses) == (9, 0)
    assert later.statistics().preload_used == 9
    assert later.counts().sum() == load_hot_set(path, text).counts.sum() + 9
    later.close()


def test_counts_of_another_shape_never_reach_the_core(tmp_path):
    native = NativeExperts(write_bundle(tmp_path / "bundle", INT4))
    for shape in ((3, 11), (4, 12), (36,)):
        with pytest.raises(ValueError, match=re.escape("are to be [layers with experts, experts], (3, 12)")):
            native.set_counts(np.zeros(shape, np.uint64))
    native.close()


def test_a_damaged_expert_fails_the_call_that_needs_it_and_not_the_preload(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    path, record_bytes = bundle.file("experts.bin"), bundle.manifest.experts.record_bytes
    content = bytearray(path.read_bytes())
    content[5 * record_bytes + 100] ^= 1
    path.write_bytes(content)
    native = NativeExperts(bundle)
    native.preload()
    wait_for_reads(native, 35)
    native.compute(2, *inputs(bundle, 20))
    x, logits = inputs(bundle, 1)
    logits[0, 5] = 99
    with pytest.raises(BundleError, match="Expert 5 of layer 0 at byte"):
        native.compute(0, x, logits)
    native.close()


@pytest.mark.parametrize("kind", [NativeExperts, NumpyExperts])
def test_every_bank_can_be_told_that_the_flash_is_idle_at_any_time(tmp_path, kind):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    bank: ExpertBank = kind(bundle)
    wanted = [NativeExperts(bundle).compute(layer, *inputs(bundle, 9)) for layer in (0, 2, 3)]
    for _ in range(3):
        for layer, result in zip((0, 2, 3), wanted, strict=True):
            bank.preload()
            bank.preload()
            np.testing.assert_allclose(bank.compute(layer, *inputs(bundle, 9)), result, atol=0.1)
    bank.preload()
    bank.close()


def test_a_closed_bank_preloads_nothing(tmp_path):
    native = NativeExperts(write_bundle(tmp_path / "bundle", INT4))
    native.preload()
    native.close()
    with pytest.raises(RuntimeError, match="closed"):
        native.preload()
    with pytest.raises(RuntimeError, match="closed"):
        native.set_counts(np.zeros((3, 12), np.uint64))
