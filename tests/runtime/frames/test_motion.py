import numpy as np
import pytest
from moedge_runtime.frames.motion import (
    ADAPT_S,
    QUIET_S,
    Motion,
    MotionDetector,
    MotionSettings,
    MotionState,
    Moving,
    brightness,
)
from moedge_runtime.frames.polygon import parse_polygon

ZONES = {"left": parse_polygon("0,0,0.4,0,0.4,1,0,1"), "right": parse_polygon("0.6,0,1,0,1,1,0.6,1")}


def picture(rng: np.random.Generator, level: int = 100, square: int | None = None) -> np.ndarray:
    """360 x 640 with a sensor's noise, perhaps with something 40 pixels wide at x = `square`."""
    image = np.full((360, 640), level, np.int16)
    if square is not None:
        image[160:200, square : square + 40] += 60
    noisy = image + rng.normal(0, 6, image.shape).astype(np.int16)
    return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture
def detector() -> MotionDetector:
    return MotionDetector(MotionSettings(), ZONES)


def test_noise_alone_is_no_motion(detector: MotionDetector) -> None:
    rng = np.random.default_rng(0)
    seen = [detector.look(picture(rng), float(second)) for second in range(20)]
    assert seen[0].first and seen[0].anywhere and seen[0].zones == {"left", "right"}
    assert not any(motion.anywhere or motion.zones for motion in seen[1:])


def test_something_that_moves_is_seen_in_its_zone_only(detector: MotionDetector) -> None:
    rng = np.random.default_rng(0)
    detector.look(picture(rng), 0.0)
    left, between, right = (detector.look(picture(rng, square=x), 1.0 + x / 640) for x in (100, 300, 500))
    assert (left.anywhere, left.zones) == (True, {"left"})
    assert (between.anywhere, between.zones) == (True, frozenset())
    assert (right.anywhere, right.zones) == (True, {"right"})


def test_a_change_of_the_light_is_no_motion(detector: MotionDetector) -> None:
    rng = np.random.default_rng(0)
    detector.look(picture(rng), 0.0)
    assert not detector.look(picture(rng, level=150), 1.0).anywhere
    assert detector.look(picture(rng, level=150, square=100), 2.0).zones == {"left"}


def test_what_stands_still_becomes_background(detector: MotionDetector) -> None:
    rng = np.random.default_rng(0)
    detector.look(picture(rng), 0.0)
    seen = [detector.look(picture(rng, square=100), 1.0 + second).anywhere for second in range(60)]
    gone_after = seen.index(False)
    assert ADAPT_S * 0.5 < gone_after < ADAPT_S * 3
    assert not any(seen[gone_after:])
    assert detector.look(picture(rng), 61.0).anywhere, "leaving is motion, too"


def test_area_is_a_share_of_the_zone() -> None:
    rng = np.random.default_rng(0)
    for area, seen in ((0.015, True), (0.03, False)):  # the square is 1.7 % of a zone
        detector = MotionDetector(MotionSettings(area=area), ZONES)
        detector.look(picture(rng), 0.0)
        assert ("left" in detector.look(picture(rng, square=100), 1.0).zones) is seen


def test_another_size_begins_anew_and_a_reconnect_does_not(detector: MotionDetector) -> None:
    rng = np.random.default_rng(0)
    detector.look(picture(rng), 1000.0)
    detector.restart_time()
    assert not detector.look(picture(rng), 0.1).anywhere
    assert detector.look(picture(rng)[:180], 1.0).first


def test_brightness_is_a_small_plane() -> None:
    assert brightness(np.zeros((1080, 1920, 3), np.uint8)).shape == (90, 160)
    assert brightness(np.zeros((1, 1, 3), np.uint8)).shape == (1, 1)
    red = np.zeros((180, 200, 3), np.uint8)
    red[..., 0] = 255
    assert brightness(red[:, ::-1]).mean() == pytest.approx(0.299 * 255)


def test_motion_is_on_at_once_gathers_zones_and_is_off_after_a_while_without_any() -> None:
    state, nothing = MotionState(), Motion(False, frozenset())
    state.note(Motion(True, frozenset({"left"}), first=True), 0.0)
    assert state.now is None, "there was nothing to compare with"
    state.note(nothing, 1.0)
    assert state.now == Moving(False)
    state.note(Motion(True, frozenset({"left"})), 2.0)
    state.note(Motion(False, frozenset({"right"})), 3.0)
    assert state.now == Moving(True, frozenset({"left", "right"}))
    state.note(nothing, 2.9 + QUIET_S)
    assert state.now.on
    state.note(nothing, 3.0 + QUIET_S)
    assert state.now == Moving(False)
    state.note(Motion(True, frozenset()), 100.0)
    state.restart_time()
    state.note(nothing, QUIET_S - 1.0)
    assert state.now == Moving(True), "zones of before are forgotten; a camera that was opened again begins at 0"
    state.note(nothing, QUIET_S)
    assert not state.now.on
