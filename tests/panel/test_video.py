import json
from pathlib import Path

import pytest
from moedge_panel.video import FRAMES_PER_SECOND, FRAMES_PER_STATE, SIZE, STATES, truth_lines, video_states

FOLDER = Path(__file__).parents[2] / "examples" / "panel" / "video"


def test_the_truth_is_what_the_code_says() -> None:
    assert (FOLDER / "truth.jsonl").read_text().splitlines() == list(truth_lines(video_states(1)))


def test_the_video_has_the_frames_of_its_truth() -> None:
    av = pytest.importorskip("av")
    truth = [json.loads(line) for line in (FOLDER / "truth.jsonl").read_text().splitlines()]
    with av.open(str(FOLDER / "panel.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", *SIZE)
        assert stream.average_rate == FRAMES_PER_SECOND
        count = sum(1 for _ in container.decode(stream))
    assert count == truth[-1]["end_frame"] == STATES * FRAMES_PER_STATE


def test_states_follow_each_other_without_gap_and_all_differ() -> None:
    truth = [json.loads(line) for line in (FOLDER / "truth.jsonl").read_text().splitlines()]
    assert len(truth) == STATES
    assert [t["first_frame"] for t in truth] == [0, *(t["end_frame"] for t in truth[:-1])]
    assert len({t["reading"] for t in truth}) == STATES
