"""Looking ahead: a guess of the next layer's logits saves waiting when it is right, and never changes a result."""

import time

import numpy as np
import pytest
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.numpy_experts import NumpyExperts
from runtime.inference.expert_core.bundles import INT4, inputs, write_bundle

DEADLINE_S = 60


def wait_for_reads(native: NativeExperts, reads: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while native.statistics().reads < reads:
        assert time.monotonic() < deadline, native.statistics()


def test_a_right_guess_leaves_the_next_layer_nothing_to_read(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)  # layers 0, 2 and 3 have experts
    native, plain = NativeExperts(bundle), NativeExperts(bundle, prefetch=False)
    first, second = inputs(bundle, 1, seed=2), inputs(bundle, 1, seed=3)
    picks = bundle.manifest.model.text.num_experts_per_tok
    wanted = plain.compute(2, *first)
    for bank in (native, plain):
        np.testing.assert_array_equal(bank.compute(2, *first, second[1]), wanted)
    wait_for_reads(native, 2 * picks)
    np.testing.assert_array_equal(native.compute(3, *second), plain.compute(3, *second))
    done = native.statistics()
    assert (done.hits, done.misses, done.prefetch_used) == (picks, picks, picks)
    assert plain.statistics().prefetch_used == 0
    native.close()
    plain.close()


def test_a_guess_for_a_layer_without_experts_or_for_many_tokens_is_left_alone(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle)
    guess = inputs(bundle, 1)[1]
    native.compute(0, *inputs(bundle, 1), guess)  # layer 1 is dense
    native.compute(2, *inputs(bundle, 2), guess)
    native.compute(3, *inputs(bundle, 1), guess)  # the last
    before = native.statistics()
    native.set_budget(1 << 30)  # waits for reads
    assert native.statistics().reads == before.reads == before.misses
    native.close()


def test_two_layers_are_foreseen_as_far_as_they_have_experts(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)  # layers 0, 2 and 3 have experts
    native = NativeExperts(bundle)
    picks = bundle.manifest.model.text.num_experts_per_tok
    x, logits = inputs(bundle, 1, seed=2)
    both = np.concatenate([inputs(bundle, 1, seed=3)[1], inputs(bundle, 1, seed=4)[1]])
    native.compute(2, x, logits, both)  # layer 3, and a fourth that there is not
    wait_for_reads(native, 2 * picks)
    native.compute(0, x, logits, both)  # layer 1 is dense: what is behind it is left alone too
    before = native.statistics()
    native.set_budget(1 << 30)  # waits for reads
    assert native.statistics().reads == before.reads == 3 * picks
    native.close()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_guess_that_is_not_finite_is_no_guess(tmp_path, value):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle)
    arrays = inputs(bundle, 1)
    guess = np.full_like(arrays[1], value)
    np.testing.assert_array_equal(native.compute(2, *arrays, guess), native.compute(2, *arrays))
    assert native.statistics().prefetch_used == 0
    native.close()


def test_a_guess_of_another_shape_is_refused(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    native = NativeExperts(bundle)
    x, logits = inputs(bundle, 1)
    with pytest.raises(ValueError, match="next_router_logits"):
        native.compute(2, x, logits, logits[:, :5])
    native.close()


def test_the_reference_takes_a_guess_and_reads_nothing_ahead(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    bank = NumpyExperts(bundle, 1 << 30)
    arrays = inputs(bundle, 1)
    np.testing.assert_array_equal(bank.compute(2, *arrays, arrays[1]), bank.compute(2, *arrays))
    assert bank.statistics().reads == bundle.manifest.model.text.num_experts_per_tok
    bank.close()
