"""Expected times are the design's limits times what is stated, and move the right way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devices.plan.samples import GIB, plan
from hypothesis import given, settings
from hypothesis import strategies as st
from moedge_devices.plan.calibration import Calibration, Routing, calibration
from moedge_devices.plan.prediction import Case, Frame, Prediction, predict, resident_experts
from moedge_devices.plan.routing import missed_by_token
from moedge_runtime.bench.limits import Bandwidths, decode_limit_s, token_bytes
from moedge_runtime.inference.memory_plan import CORE_BYTES, plan_memory


def case(memory_gib: float = 6.0, **changes: object) -> Case:
    """A Jetson Orin Nano with other memory or speeds."""
    setup = plan().setup
    manifest = setup.subject.manifest
    memory = plan_memory(manifest, round(memory_gib * GIB), max_context=4096, wanted_pixels=setup.subject.max_pixels)
    return Case(manifest, memory, replace(plan().speeds, **changes), calibration())


def predicted(memory_gib: float = 6.0, routing: Routing = "skewed", **changes: object) -> Prediction:
    return predict(case(memory_gib, **changes), routing)


def without_losses() -> Calibration:
    """A runtime that reaches every limit."""
    content = calibration().model_dump()
    one = {"value": 1.0, "assumed": "for this test, what a perfect runtime would do"}
    by_routing = {"skewed": one, "uniform": one}
    over = {"prefill_flash": by_routing, "decode_flash": one, "decode_memory": one}
    hidden = {"decode_not_hidden": one | {"value": 1e-12}}
    return Calibration.model_validate(content | {"over_limit": over, "missed_over_ideal": by_routing} | hidden)


@pytest.mark.parametrize("routing", ["skewed", "uniform"])
def test_a_runtime_without_losses_takes_the_limits_themselves(routing: Routing) -> None:
    perfect = predict(replace(case(), calibration=without_losses()), routing)
    assert perfect.token.seconds == pytest.approx(perfect.token.limit_s)
    assert perfect.warm.prefill_s == perfect.warm.prefill_limit_s
    bandwidths = case().speeds.bandwidths
    nbytes = token_bytes(case().manifest)
    assert perfect.token.limit_s == decode_limit_s(perfect.token.missed_bytes, 1, nbytes, bandwidths)


def test_everything_in_memory_misses_nothing_and_is_bound_by_memory_or_computing() -> None:
    prediction = predicted(24.0)
    assert prediction.token.missed_bytes == 0
    assert prediction.warm.missed_bytes == pytest.approx(0, abs=1)
    assert not prediction.warm.flash_bound
    assert prediction.token.bound in ("memory", "computing")
    assert prediction.cold.missed_bytes > 12e9  # the first frame still reads what it needs


def test_a_token_from_memory_takes_its_weights_at_the_bandwidth_that_was_reached() -> None:
    prediction = predicted(24.0, bandwidths=Bandwidths(memory=10e9, flash=1e9))
    assert prediction.token.bound == "memory"
    nbytes = token_bytes(case().manifest)
    assert prediction.token.limit_s == pytest.approx(nbytes / 10e9)
    assert prediction.token.seconds == pytest.approx(nbytes / 10e9 * calibration().over_limit.decode_memory.value)


def test_a_token_misses_more_than_the_best_memory_would_but_never_more_than_it_needs() -> None:
    setup = case()
    layer_bytes = 48 * (setup.manifest.experts.record_bytes if setup.manifest.experts else 0)
    resident = resident_experts(setup.manifest, setup.memory.experts)
    ideal = layer_bytes * missed_by_token(128, 8, resident, "skewed")
    assert predicted().token.missed_bytes == pytest.approx(calibration().missed_over_ideal.skewed.value * ideal)
    assert predicted(3.6, "uniform").token.missed_bytes <= 8 * layer_bytes


def test_the_ring_keeps_nothing_between_frames() -> None:
    manifest = case().manifest
    assert manifest.experts is not None
    record = manifest.experts.record_bytes
    assert resident_experts(manifest, CORE_BYTES + 1000 * record) == (1000 - 32) / 48
    assert resident_experts(manifest, CORE_BYTES + 80 * record) == (80 - 10) / 48
    assert resident_experts(manifest, CORE_BYTES + 6144 * record) == 128


def test_a_slow_flash_binds_the_prefill_and_the_tokens() -> None:
    slow = Bandwidths(memory=27e9, flash=0.067e9)
    prediction = predicted(bandwidths=slow, flash_in_order=0.067e9)
    assert prediction.warm.flash_bound
    over = calibration().over_limit
    assert prediction.warm.prefill_s == pytest.approx(
        prediction.warm.missed_bytes / 0.067e9 * over.prefill_flash.skewed.value
    )
    assert prediction.token.bound == "flash"
    memory_s = token_bytes(case().manifest) / 27e9 * over.decode_memory.value
    assert prediction.token.seconds == pytest.approx(
        prediction.token.missed_bytes / 0.067e9 * over.decode_flash.value
        + calibration().decode_not_hidden.value * memory_s
    )


def test_parts_of_the_first_token_add_up() -> None:
    warm = predicted().warm
    assert warm.seconds == warm.preprocess_s + warm.vision_s + warm.prefill_s


def test_a_vision_tower_that_is_loaded_for_each_picture_costs_its_bytes_and_its_packing() -> None:
    resident, loaded = predicted(6.0), predicted(4.0)
    assert case(6.0).memory.vision_resident
    assert not case(4.0).memory.vision_resident
    speeds = case().speeds
    vision_bytes = sum(entry.nbytes for entry in case().manifest.files if entry.path.startswith("vision"))
    extra = vision_bytes / speeds.flash_in_order + speeds.vision_packing_s
    assert loaded.warm.vision_s - resident.warm.vision_s == pytest.approx(extra)


def test_a_vision_tower_that_comes_in_turn_is_read_while_it_computes() -> None:
    base = case(4.0)
    for flash, bound in ((1e9, "computing"), (1e7, "flash")):
        in_turn = replace(
            base, memory=replace(base.memory, native_vision=True), speeds=replace(base.speeds, flash_in_order=flash)
        )
        vision_bytes = sum(entry.nbytes for entry in base.manifest.files if entry.path.startswith("vision"))
        computing = predicted(6.0).warm.vision_s / 1.7 + base.speeds.vision_loading_s
        wanted = vision_bytes / flash if bound == "flash" else computing
        assert predict(in_turn, "skewed").warm.vision_s == pytest.approx(wanted)


def test_flash_in_order_is_what_a_prefill_reads_at_and_random_reads_what_its_limit_has() -> None:
    prediction = predicted(bandwidths=Bandwidths(memory=27e9, flash=0.1e9), flash_in_order=0.2e9)
    assert prediction.warm.prefill_limit_s == pytest.approx(prediction.warm.missed_bytes / 0.1e9)
    over = calibration().over_limit.prefill_flash.skewed.value
    assert prediction.warm.prefill_s == pytest.approx(prediction.warm.missed_bytes / 0.2e9 * over)


def test_a_picture_that_chooses_fewer_experts_is_read_faster_and_computed_as_before() -> None:
    as_text, alike = predict(case(), "skewed"), predict(case(), "skewed", Frame(experts=60.0))
    manifest = case().manifest
    assert manifest.experts is not None
    one_of_each_layer = len(manifest.model.text.moe_layers) * manifest.experts.record_bytes
    assert alike.cold.missed_bytes == pytest.approx(60.0 * one_of_each_layer, rel=1e-6)
    assert alike.warm.missed_bytes < as_text.warm.missed_bytes
    assert alike.token == as_text.token


@settings(max_examples=40, deadline=None)
@given(
    st.floats(4.0, 20.0),
    st.floats(1.0, 1.5),
    st.floats(1.0, 4.0),
    st.sampled_from(["skewed", "uniform"]),
    st.integers(16, 1000),
)
def test_more_memory_or_a_faster_board_is_never_slower(
    memory_gib: float, more: float, faster: float, routing: Routing, image_tokens: int
) -> None:
    frame = Frame(image_tokens + 16, image_tokens)
    base = case(memory_gib)
    before = predict(base, routing, frame)
    speeds = base.speeds
    quick = replace(
        speeds,
        bandwidths=Bandwidths(speeds.bandwidths.memory * faster, speeds.bandwidths.flash * faster),
        flash_in_order=speeds.flash_in_order * faster,
        experts=speeds.experts * faster,
        layers=speeds.layers * faster,
        vision=speeds.vision * faster,
        vision_in_onnxruntime=speeds.vision_in_onnxruntime * faster,
    )
    for changed in (case(memory_gib * more), replace(base, speeds=quick)):
        after = predict(changed, routing, frame)
        assert after.warm.seconds <= before.warm.seconds * 1.000001
        if changed.memory.vision_resident == base.memory.vision_resident:  # else it takes memory of experts
            assert after.warm.prefill_s <= before.warm.prefill_s * 1.000001
            assert after.token.seconds <= before.token.seconds * 1.000001
