from datetime import datetime, timezone

import numpy as np
from moedge_runtime.camera.frame import Frame
from moedge_runtime.camera.picture_check import Finding, PictureCheck


def frame(image: np.ndarray, at_s: float) -> Frame:
    return Frame(image, datetime.now(timezone.utc), 500.0 + at_s, 0, at_s)


def noise(seed: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (480, 640, 3), np.uint8)


def looks(check: PictureCheck, images: list[np.ndarray]) -> list[str | None]:
    findings = [check.look(frame(image, second)) for second, image in enumerate(images)]
    return [finding.kind if finding else None for finding in findings]


def test_the_same_picture_for_long_is_frozen_until_it_changes() -> None:
    still = noise(1)
    check = PictureCheck(3.0, None)
    assert looks(check, [still] * 5 + [noise(2)]) == [None, None, None, "frozen", "frozen", None]
    for second in range(10, 13):
        check.look(frame(still, second))
    assert check.look(frame(still, 14)) == Finding(
        "frozen",
        "The picture has not changed for 4 s (4 frames): all of the 14,400 pixels that are compared are equal. "
        "Restart the camera; if nothing has to change there, set frozen_after: never.",
    )


def test_the_noise_of_a_sensor_is_enough_not_to_be_frozen() -> None:
    scene = noise(1, 60, 190)
    moved = [scene + noise(seed, 0, 2) for seed in range(8)]
    assert looks(PictureCheck(3.0, None), moved) == [None] * 8


def test_black_pictures_for_long_are_black_though_their_noise_moves() -> None:
    dark = [noise(seed, 0, 20) for seed in range(4)]
    check = PictureCheck(60.0, 2.0)
    assert looks(check, [*dark, noise(9)]) == [None, None, "black", "black", None]
    for second in range(10, 12):
        check.look(frame(dark[0], second))
    finding = check.look(frame(dark[1], 13))
    assert finding is not None
    assert finding.text == (
        "The picture has been black for 3 s (3 frames): 100.0% of the pixels are at most 25 of 255, the brightest is "
        "19. Check lens, cover and light; if it may be dark there, set black_after: never."
    )


def test_a_dark_scene_with_one_lamp_is_not_black() -> None:
    lamp = noise(1, 0, 20)
    lamp[100:180, 100:240] = 240
    assert looks(PictureCheck(None, 1.0), [lamp] * 4) == [None] * 4


def test_what_is_switched_off_is_not_reported() -> None:
    assert looks(PictureCheck(None, None), [np.zeros((9, 9, 3), np.uint8)] * 5) == [None] * 5
