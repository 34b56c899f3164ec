import numpy as np
import pytest
from moedge_panel.fonts import HELD_OUT, SEGMENTS, TRAINING_SANS, TRAINING_SERIF
from moedge_panel.heldout import held_out_questions
from moedge_panel.render import draw_panel
from moedge_panel.state import PanelState
from moedge_panel.style import FRAME_SIZES
from moedge_panel.video import video_style

try:
    for face in (*HELD_OUT, *TRAINING_SANS, *TRAINING_SERIF):
        face.path()
    FONTS = True
except FileNotFoundError:
    FONTS = False
needs_fonts = pytest.mark.skipif(not FONTS, reason="the fonts of examples/panel/requirements-train.txt are missing")


def test_drawing_is_deterministic_and_shows_the_state() -> None:
    style = video_style()
    dark = PanelState(1234, ("red", "green"), (), 30)
    first = np.asarray(draw_panel(dark, style).image)
    assert np.array_equal(first, np.asarray(draw_panel(dark, style).image))
    for other in (
        PanelState(1235, ("red", "green"), (), 30),
        PanelState(1234, ("red", "green"), ("red",), 30),
        PanelState(1234, ("red", "green"), (), 70),
    ):
        assert not np.array_equal(first, np.asarray(draw_panel(other, style).image))


def test_digits_stand_left_to_right_inside_the_display() -> None:
    style = video_style()
    boxes = draw_panel(PanelState(1234, ("red", "green"), (), 30), style).digits
    assert len(boxes) == 4
    assert [b[0] for b in boxes] == sorted(b[0] for b in boxes)
    assert all(style.display[0] / style.size[0] <= b[0] and b[2] <= style.display[2] / style.size[0] for b in boxes)


def test_held_out_faces_are_no_training_faces() -> None:
    packages = {face.package for face in (*TRAINING_SANS, *TRAINING_SERIF)}
    assert packages.isdisjoint(face.package for face in HELD_OUT)
    assert SEGMENTS not in HELD_OUT


@needs_fonts
def test_held_out_questions_do_not_depend_on_the_count() -> None:
    few, more = list(held_out_questions(4, seed=3)), list(held_out_questions(6, seed=3))
    for a, b in zip(few, more, strict=False):
        assert np.array_equal(a.image, b.image)
        assert (a.question, a.answer, a.thinking) == (b.question, b.answer, b.thinking)


@needs_fonts
def test_training_chunks_are_deterministic_and_label_every_digit() -> None:
    dataset = pytest.importorskip("moedge_panel.dataset")
    a, b = dataset.render_chunk(7, 3, 0.0, 4), dataset.render_chunk(7, 3, 0.0, 4)
    assert np.array_equal(a.images, b.images)
    assert (a.images.shape[2], a.images.shape[1]) in FRAME_SIZES
    for labels, state in zip(a.labels, a.states, strict=True):
        places, digits = labels[..., 1].ravel(), labels[..., 0].ravel()
        for number, digit in enumerate(str(state.reading)):
            assert set(digits[places == number + 1]) == {int(digit) + 1}
