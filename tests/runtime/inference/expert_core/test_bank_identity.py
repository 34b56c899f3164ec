"""Paging, threads and instruction set never change a bit of what the core computes."""

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle, Precision
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.library import usable_instruction_sets
from runtime.inference.expert_core.bundles import FP32, PRECISIONS, inputs, name_of, write_bundle
from runtime.inference.expert_core.test_bank import least_budget

MAX_TOKENS = 300
CALLS = [(layer, tokens) for tokens in (1, 1, 2, 5, 8, 9, 37, 300, 1, 3) for layer in (0, 2, 3)]
"""Decoder layer and tokens: decode, the border between decode and prefill, prefill, decode again."""

INT4 = Precision(bits=4, block_size=32, symmetric=False)
PLAIN = {"threads": 1, "readers": 1, "prefetch": False, "isa": "scalar"}


def run(native: NativeExperts, bundle: Bundle) -> list[np.ndarray]:
    return [native.compute(layer, *inputs(bundle, tokens, seed)) for seed, (layer, tokens) in enumerate(CALLS)]


def storm(native: NativeExperts, bundle: Bundle) -> None:
    """Make it throw out and read again what it has."""
    for seed in range(60):
        native.compute((0, 2, 3)[seed % 3], *inputs(bundle, (1, 1, 20)[seed // 3 % 3], 1000 + seed))


def assert_same(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


@pytest.fixture(scope="module", params=[FP32, INT4], ids=name_of)
def reference(request, tmp_path_factory):
    """A bundle of an odd shape and what one thread computes of it with everything resident."""
    bundle = write_bundle(tmp_path_factory.mktemp("identity") / "bundle", request.param, 116, 84, experts=16, top_k=4)
    native = NativeExperts(bundle, max_tokens=MAX_TOKENS, **PLAIN)
    results = run(native, bundle)
    assert_same(run(native, bundle), results)  # now all are hits
    native.close()
    return bundle, results


@pytest.mark.parametrize("records", [None, 0, 1, 3, 7, 20, 41], ids=lambda n: "all" if n is None else f"least+{n}")
@pytest.mark.parametrize(
    "options",
    [{}, {"readers": 1}, {"readers": 16}, {"prefetch": False}, {"threads": 1}, {"threads": 5}, {"direct": False}],
    ids=str,
)
def test_paging_never_changes_a_bit(reference, records, options):
    bundle, wanted = reference
    options = {"max_tokens": MAX_TOKENS, **options}
    budget = None
    if records is not None:
        budget = least_budget(bundle, **options) + records * bundle.manifest.experts.record_bytes
    native = NativeExperts(bundle, budget, **options)
    assert_same(run(native, bundle), wanted)
    storm(native, bundle)
    assert_same(run(native, bundle), wanted)
    statistics = native.statistics()
    assert statistics.used_bytes <= statistics.budget_bytes
    assert (statistics.evictions == 0) == (records is None)
    native.close()


@pytest.mark.parametrize("isa", usable_instruction_sets())
@pytest.mark.parametrize("records", [None, 0])
def test_every_instruction_set_computes_the_same_bits(reference, isa, records):
    bundle, wanted = reference
    budget = None if records is None else least_budget(bundle, max_tokens=MAX_TOKENS)
    native = NativeExperts(bundle, budget, isa=isa, max_tokens=MAX_TOKENS)
    assert native.isa == isa
    assert_same(run(native, bundle), wanted)
    native.close()


@pytest.mark.parametrize("precision", PRECISIONS, ids=name_of)
def test_every_precision_is_the_same_with_every_instruction_set_and_budget(tmp_path, precision):
    bundle = write_bundle(tmp_path / "bundle", precision, 144, 80)
    native = NativeExperts(bundle, max_tokens=MAX_TOKENS, **PLAIN)
    wanted = run(native, bundle)
    native.close()
    for isa in usable_instruction_sets():
        native = NativeExperts(bundle, least_budget(bundle, max_tokens=MAX_TOKENS), isa=isa, max_tokens=MAX_TOKENS)
        assert_same(run(native, bundle), wanted)
        native.close()


def test_pins_and_changing_budgets_never_change_a_bit(reference):
    bundle, wanted = reference
    least = least_budget(bundle, max_tokens=MAX_TOKENS)
    native = NativeExperts(bundle, max_tokens=MAX_TOKENS)
    for round_, records in enumerate((30, 2, 12, 0, 48)):
        native.set_budget(least + records * bundle.manifest.experts.record_bytes)
        native.pin([(layer, (expert * 5 + round_) % 16) for layer in (3, 0, 2) for expert in range(round_ * 3)])
        storm(native, bundle)
        assert_same(run(native, bundle), wanted)
    native.close()


def test_a_token_computes_the_same_alone_and_in_a_prefill(reference):
    bundle, _ = reference
    native = NativeExperts(bundle)
    x, logits = inputs(bundle, 60)
    together = native.compute(2, x, logits)
    for token in range(60):
        row = slice(token, token + 1)
        np.testing.assert_array_equal(native.compute(2, x[row], logits[row]), together[row])
    native.close()
