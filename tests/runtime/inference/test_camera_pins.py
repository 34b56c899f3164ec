"""Cameras that share a model: what each needs is in memory when it is asked, and no answer depends on that."""

import dataclasses
import time

import numpy as np
from moedge_runtime.bundle import Bundle
from moedge_runtime.inference import Engine, EngineOptions
from moedge_runtime.inference.camera_pins import CameraPins
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.hot_set import load_hot_set
from moedge_runtime.inference.numpy_experts import NumpyExperts
from runtime.inference.expert_core.bundles import INT4, inputs, write_bundle
from runtime.inference.expert_core.test_bank_preload import budget_for
from runtime.inference.test_engine import REQUESTS, least_budget

DEADLINE_S = 60
LAYERS = (0, 2, 3)
CAMERAS = {"gate": (0, 1), "yard": (4, 5), "door": (2, 9)}
"""Which experts of each layer a camera's tokens choose."""


def wait_for_pins(experts, pins):
    """Until all pins are in memory, as they are when a picture has been encoded."""
    deadline = time.monotonic() + DEADLINE_S
    while experts.statistics().pinned < pins:
        assert time.monotonic() < deadline, experts.statistics()


def turns(bundle, camera_of):
    """Answers of three tokens to the cameras in turn, `camera_of` saying which one they are said to be of.

    Returns:
        All results, and what the core did for the last two answers to each.
    """
    experts = NativeExperts(bundle, budget_for(bundle, 12), prefetch=False)
    pins = CameraPins(experts, bundle.manifest.model.text)
    results, before = [], experts.statistics()
    x, logits = inputs(bundle, 1)
    for turn, name in enumerate(list(CAMERAS) * 4):
        if turn == 2 * len(CAMERAS):
            before = experts.statistics()
        camera = camera_of[name]
        pins.begin(camera)
        experts.preload()
        places = experts.statistics().slots - experts.statistics().ring_slots
        wait_for_pins(experts, 0 if camera is None else len(pins.counts.pins(camera, places, 2)))
        logits[:] = 0
        logits[0, list(CAMERAS[name])] = 9
        results += [experts.compute(layer, x, logits) for _ in range(3) for layer in LAYERS]
        pins.answered(camera)
    done = experts.statistics() - before
    experts.close()
    return np.concatenate(results), done


def test_cameras_with_different_experts_find_theirs_in_memory_when_they_are_asked(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4, top_k=2)
    wanted, whole = turns(bundle, dict.fromkeys(CAMERAS))
    one, single = turns(bundle, dict.fromkeys(CAMERAS, "all"))
    results, apart = turns(bundle, {name: name for name in CAMERAS})
    np.testing.assert_array_equal(results, wanted)
    np.testing.assert_array_equal(one, wanted)
    assert (single.hits, single.misses) == (whole.hits, whole.misses), "one camera is as none"
    assert whole.preload_used == single.preload_used == 0
    assert apart.preloaded == apart.preload_used > 0
    assert apart.hits >= whole.hits + apart.preload_used
    assert apart.reads < whole.reads, "with what was preloaded"


def test_what_is_learned_is_what_the_tokens_chose_and_a_shared_prompt_is_divided(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    experts = NativeExperts(bundle)
    pins = CameraPins(experts, bundle.manifest.model.text)
    x, logits = inputs(bundle, 32)
    logits[:] = 0
    logits[:, [0, 1, 2]] = 9
    experts.compute(2, x, logits)  # for nobody
    pins.begin("gate")
    experts.compute(2, x, logits)
    pins.prompted(["gate", "yard", None, "gate"])
    experts.compute(2, x[:8], logits[:8])
    pins.answered("gate")
    experts.compute(2, x[:8], logits[:8])
    pins.answered(None)
    learned = pins.counts.counts()
    assert set(learned) == {"gate", "yard"}
    assert learned["yard"].tolist() == [[0] * 12, [1] * 3 + [0] * 9, [0] * 12]
    assert learned["gate"].tolist() == [[0] * 12, [10] * 3 + [0] * 9, [0] * 12], "(2 + 8) aged by an answer"
    experts.close()


def test_any_other_bank_learns_nothing(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    for experts in (None, NumpyExperts(bundle)):
        pins = CameraPins(experts, bundle.manifest.model.text)
        pins.begin("gate")
        pins.prompted(["gate"])
        pins.answered("gate")
        assert pins.counts.counts() == {}


def test_no_answer_depends_on_cameras_and_what_was_learned_outlives_the_engine(paged_int4, tmp_path):
    plain = [dataclasses.replace(REQUESTS[name], max_new_tokens=12) for name in ("one image", "image first")]
    requests = [dataclasses.replace(request, camera=name) for request, name in zip(plain, CAMERAS, strict=False)]
    opened, path = Bundle.open(paged_int4), tmp_path / "hot.json"
    budget = least_budget(paged_int4, max_context=1024) + 13 * opened.manifest.experts.record_bytes
    tight = EngineOptions(expert_budget_bytes=budget, max_context=1024, hot_set=path)
    with Engine.open(opened, EngineOptions(max_context=1024)) as roomy:
        wanted = [roomy.ask(request).text for request in plain]
    with Engine.open(opened, tight) as engine:
        for _ in range(3):
            assert [engine.ask(request).text for request in requests] == wanted
        assert 0 < engine.experts.statistics().pinned <= 4
        assert [each.answer().text for each in engine.begin([*requests, *plain])] == wanted * 2
        assert engine.experts.statistics().pinned == 0, "the last question was none of a camera"
    learned = load_hot_set(path, opened.manifest.model.text).cameras
    assert list(learned) == ["gate", "yard"] and all(counts.any() for counts in learned.values())
    with Engine.open(opened, tight) as engine:
        assert engine.ask(requests[1]).text == wanted[1]
        assert engine.experts.statistics().pinned > 0, "from the first answer on"
        assert engine.ask(plain[0]).text == wanted[0]
    assert set(load_hot_set(path, opened.manifest.model.text).cameras) == {"gate", "yard"}, (
        "asking without one keeps them"
    )
    with Engine.open(opened, tight) as engine:
        engine.keep_cameras({"yard", "new"})
        assert engine.ask(requests[1]).text == wanted[1]
        assert engine.experts.statistics().pinned == 0, "there is no other camera"
    assert list(load_hot_set(path, opened.manifest.model.text).cameras) == ["yard"]
