import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from moedge_runtime.mqtt.payloads import rfc3339
from runtime.mqtt.examples import ANSWER, EXAMPLES
from runtime.mqtt.make_golden import GOLDEN, golden_text

DOCUMENT = Path(__file__).parents[3] / "docs/mqtt.md"


@pytest.mark.parametrize("name", EXAMPLES)
def test_payloads_are_as_golden(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_text()
    assert golden_text(EXAMPLES[name].encode()) == golden
    assert type(EXAMPLES[name]).model_validate(json.loads(golden)) == EXAMPLES[name]


def test_every_golden_file_has_its_example() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_document_shows_the_golden_payload(name: str) -> None:
    assert f"```json\n{(GOLDEN / f'{name}.json').read_text()}```" in DOCUMENT.read_text()


def test_times_are_utc_with_milliseconds() -> None:
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, 6_700, timezone.utc)) == "2026-01-02T03:04:05.006Z"
    with pytest.raises(AssertionError):
        rfc3339(datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1))))


def test_umlauts_travel_as_utf_8() -> None:
    assert "Füllstand".encode() in ANSWER.model_copy(update={"text": "Füllstand"}).encode()
