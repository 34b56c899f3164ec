import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.inference.camera_counts import HALF_LIFE_ANSWERS, LAYERS_AT_ONCE, PROMPT_TOKEN, CameraCounts
from moedge_runtime.inference.expert_core.hot_set import MAX_CAMERAS

LAYERS, EXPERTS, TOP_K = 3, 16, 2
ALL = LAYERS * EXPERTS


def chose(*keys):
    """Uses of experts, by their place among all; of the first 9, of the second 8, and so on."""
    uses = np.zeros(ALL)
    uses[list(keys)] = range(9, 9 - len(keys), -1)
    return uses.reshape(LAYERS, EXPERTS)


def two_cameras():
    counts = CameraCounts()
    counts.answered("gate", chose(5, 33, 2, 18, 40, 3, 46, 1, 4))
    counts.answered("yard", chose(47, 0))
    return counts


def test_a_camera_has_what_it_used_most_pinned_in_half_of_the_places():
    counts = two_cameras()
    assert counts.pins("gate", 16, TOP_K) == [(0, 5), (2, 1), (0, 2), (1, 2), (2, 8), (0, 3), (2, 14), (0, 1)]
    assert counts.pins("yard", 40, TOP_K) == [(2, 15), (0, 0)], "what it never used is left to the rest"


def test_beside_the_pins_there_is_room_for_a_layer_and_three_that_follow():
    counts = two_cameras()
    assert [len(counts.pins("gate", places, TOP_K)) for places in (1, 8, 9, 13, 17)] == [0, 0, 1, 5, 8]


def test_nothing_is_pinned_for_an_only_camera_an_unknown_one_or_where_all_have_room():
    counts = two_cameras()
    assert counts.pins("door", 20, TOP_K) == []
    assert counts.pins("gate", ALL, TOP_K) == []
    counts.keep({"gate"})
    assert counts.pins("gate", 20, TOP_K) == []


def test_a_token_of_a_prompt_counts_less_than_one_of_an_answer():
    counts = CameraCounts()
    counts.answered("yard", chose(0))
    counts.prompted("gate", chose(1) * 3)
    counts.prompted("gate", chose(4) / PROMPT_TOKEN)
    counts.answered("gate", chose(7))
    assert counts.pins("gate", 40, TOP_K) == [(0, 4), (0, 7), (0, 1)]


def test_a_camera_that_is_turned_has_other_experts_after_some_answers():
    counts = CameraCounts()
    counts.answered("yard", chose(0))
    for _ in range(100):
        counts.answered("gate", chose(1))
    for _ in range(HALF_LIFE_ANSWERS - 1):
        counts.answered("gate", chose(2))
    assert counts.pins("gate", LAYERS_AT_ONCE * TOP_K + 1, TOP_K) == [(0, 1)]
    for _ in range(2):
        counts.answered("gate", chose(2))
    assert counts.pins("gate", LAYERS_AT_ONCE * TOP_K + 1, TOP_K) == [(0, 2)]


def test_of_too_many_cameras_the_one_that_was_asked_longest_ago_is_forgotten():
    counts = CameraCounts()
    for index in range(MAX_CAMERAS):
        counts.answered(f"camera-{index}", chose(index % ALL))
    counts.prompted("camera-0", chose(3))
    counts.answered("new", chose(4))
    assert len(counts.counts()) == MAX_CAMERAS
    assert {"camera-0", "new"} < counts.counts().keys() and "camera-1" not in counts.counts()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["answered", "prompted"]),
            st.sampled_from(["gate", "yard", "door"]),
            st.lists(st.integers(0, 300), min_size=ALL, max_size=ALL),
        ),
        max_size=12,
    ),
    st.integers(0, 60),
)
def test_pins_are_distinct_within_the_limit_and_survive_saving(turns, places):
    counts = CameraCounts()
    for what, camera, chosen in turns:
        getattr(counts, what)(camera, np.array(chosen, np.float64).reshape(LAYERS, EXPERTS))
    saved = counts.counts()
    restored = CameraCounts(saved)
    for camera in ("gate", "yard", "door"):
        pins = counts.pins(camera, places, TOP_K)
        assert len(set(pins)) == len(pins) <= max(0, places - LAYERS_AT_ONCE * TOP_K)
        assert all(0 <= layer < LAYERS and 0 <= expert < EXPERTS for layer, expert in pins)
        if camera in saved:
            again = restored.pins(camera, places, TOP_K)
            uses = [sum(int(saved[camera][pin]) for pin in some) for some in (pins, again)]
            assert uses[0] == pytest.approx(uses[1], abs=len(pins)), "but for what rounding has made equal"
    assert [values.tolist() for values in restored.counts().values()] == [values.tolist() for values in saved.values()]
