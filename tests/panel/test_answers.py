from pathlib import Path

import numpy as np
import pytest
from moedge_panel.questions import final_answer
from moedge_panel.render import draw_panel
from moedge_panel.video import video_states, video_style

pytest.importorskip("transformers")
from moedge_panel.evaluate import Reader

CHECKPOINT = Path(__file__).parents[2] / "examples" / "panel" / "checkpoint"
STATES = video_states(1)[:8]
FRAMES = [np.asarray(draw_panel(state, video_style()).image) for state in STATES]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(CHECKPOINT)


@pytest.mark.parametrize("thinking", [False, True])
def test_the_checkpoint_reads_the_panel(reader: Reader, thinking: bool) -> None:
    for state, frame in zip(STATES[:4], FRAMES, strict=False):
        answer = final_answer(reader.answer(frame, "What is the reading?", thinking))
        assert answer == str(state.reading)


def test_answers_as_json(reader: Reader) -> None:
    expected = '{"reading": %d, "lamps": [%s], "gauge": "%s"}'
    for state, frame in zip(STATES[:3], FRAMES, strict=False):
        lamps = ", ".join(f'"{lamp}"' for lamp in state.lit)
        answer = reader.answer(frame, "Report the panel as JSON.", False)
        assert answer == expected % (state.reading, lamps, state.gauge)


def test_without_deepstack_the_lamps_are_not_seen(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def right() -> int:
        answers = [reader.answer(frame, "Which lamps are lit?", False) for frame in FRAMES]
        return sum(a == (", ".join(s.lit) or "none") for a, s in zip(answers, STATES, strict=True))

    assert right() >= 7
    text = reader.model.model.language_model
    monkeypatch.setattr(text, "_deepstack_process", lambda hidden, mask, features: hidden)
    assert right() <= 4
