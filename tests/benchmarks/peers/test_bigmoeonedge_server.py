import json

import pytest
from peers.bigmoeonedge_server import measured


def progress(wall_ms: float) -> str:
    return f"BMOE_PROGRESS {json.dumps({'wall_ms': wall_ms})}"


DONE = f"BMOE_DONE {json.dumps({'n_prompt': 220, 'prefill_s': 20.5})}"


def test_times_are_those_of_bmoe_cli_and_bytes_those_between_its_lines() -> None:
    lines = [("BMOE_BEGIN {}", 100), ("BMOE_LOAD {}", 600), (progress(150), 600), (progress(120), 640), (DONE, 640)]
    assert measured(lines) == {
        "prefill_tokens": 220,
        "prefill_s": 20.5,
        "prefill_read_bytes": 500,
        "decode_s": [0.15, 0.12],
        "decode_read_bytes": [0, 40],
    }


def test_an_error_of_bmoe_cli_ends_the_measurement_with_its_message() -> None:
    with pytest.raises(SystemExit, match="out of memory"):
        measured([("BMOE_BEGIN {}", 0), ('BMOE_ERROR {"id":1,"fatal":true,"msg":"out of memory"}', 0)])


def test_an_end_in_the_middle_of_an_answer_is_no_measurement() -> None:
    with pytest.raises(SystemExit, match="in the middle"):
        measured([("BMOE_BEGIN {}", 0), (progress(1), 0)])
