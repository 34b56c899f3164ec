import numpy as np
import pytest
from moedge_runtime.frames.polygon import Box, bounds, covered, overlaps, parse_box, parse_polygon, within
from runtime.frames.shapes import random_polygon, touched

SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))


def test_both_ways_of_writing_are_one_polygon() -> None:
    pairs = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]
    assert parse_polygon(pairs) == parse_polygon("0.25,0.25, 0.75,0.25, .75,.75, 0.25,0.75") == SQUARE


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0.1,0.1,0.5,0.5", "a polygon has 3 to 64 corners, this one has 2"),
        ("0.1,0.1,0.5,0.5,0.9", "write corners as"),
        ("a,b,c,d,e,f", "write corners as"),
        ([[0, 0], [1, 0], [0, 1, 1]], "write corners as"),
        ([[0, 0], [True, 0], [0, 1]], "write corners as"),
        (["ab", "cd", "ef"], "write corners as"),
        ({"x": 1}, "write corners as"),
        ([[0, 0], [float("nan"), 0], [0, 1]], "write corners as"),
        (7, "write corners as"),
        ([[0, 0], [1.5, 0], [0, 1]], r"the corner \(1.5, 0\) is outside the picture"),
        ([[0, 0], [0.5, 0.5], [1, 1]], "covers nothing"),
        ([[0, 0], [1, 1], [1, 0], [0, 0.9]], "the sides that begin at corners 1 and 3 meet"),
        ([[0, 0], [1, 0], [1, 1], [1, 0], [0, 1]], "meet"),
        ([[0, 0], [1, 0], [0.5, 0], [0.5, 1]], "meet"),
    ],
)
def test_what_is_no_polygon_is_refused(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_polygon(value)


def test_a_star_that_crosses_itself_is_refused_because_its_middle_would_stay_open() -> None:
    angles = np.arange(5) * 4 * np.pi / 5
    with pytest.raises(ValueError, match="leaves open what is inside"):
        parse_polygon((0.5 + 0.4 * np.stack([np.sin(angles), np.cos(angles)], axis=1)).tolist())


@pytest.mark.parametrize("value", [[0, 0, 1], [0.5, 0, 0.5, 1], [0, 0, 1, 1.1], "0,0,1", None, [0, 0.6, 1, 0.5]])
def test_what_is_no_rectangle_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"write \[left, top, right, bottom\]"):
        parse_box(value)


def test_a_rectangle_covers_one_pixel_at_least() -> None:
    assert parse_box([0.25, 0, 0.75, 0.5]).pixels(100, 200) == (slice(0, 50), slice(50, 150))
    assert Box(0.999, 0.999, 1.0, 1.0).pixels(10, 10) == (slice(9, 10), slice(9, 10))
    assert Box(0.0, 0.0, 1.0, 1.0).pixels(7, 3) == (slice(0, 7), slice(0, 3))


def test_a_polygon_in_a_part_of_the_picture() -> None:
    assert within(SQUARE, Box(0.25, 0.25, 0.75, 0.75)) == ((0, 0), (1, 0), (1, 1), (0, 1))
    assert bounds([SQUARE, ((0.0, 0.5), (0.1, 0.5), (0.1, 0.9))]) == Box(0.0, 0.25, 0.75, 0.9)
    assert overlaps(SQUARE, Box(0.7, 0.7, 1, 1))
    assert not overlaps(SQUARE, Box(0.75, 0, 1, 1))


def test_a_polygon_covers_every_pixel_that_it_touches_and_few_others() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        polygon, (height, width) = random_polygon(rng), rng.integers(8, 120, 2)
        pixels, truth = covered(polygon, int(height), int(width)), touched(polygon, int(height), int(width))
        assert not (truth & ~pixels).any(), (polygon, height, width)
        near = truth.copy()
        for _ in range(2):
            padded = np.pad(near, 1)
            near = np.logical_or.reduce(
                [padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
            )
        assert not (pixels & ~near).any(), (polygon, height, width)
