import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.strict_json import MAX_DEPTH, MAX_INTEGER, check_json, is_text, parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e400", "inf is no JSON number"),
        ('{"a": [NaN]}', "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("9223372036854775808", "an integer is beyond ±9223372036854775807"),
        ('["\\ud800"]', "the text '\\ud800' holds half a character, a lone surrogate"),
        ('{"\\udfff": 1}', "the text '\\udfff' holds half a character, a lone surrogate"),
        ("[" * 66 + "]" * 66, "it is nested deeper than 64 levels"),
        ("[" * 100_000, "it is nested deeper than 64 levels"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [({1: 2}, "the key 1 is no text"), ([b"x"], "b'x' is no JSON value"), (float("inf"), "inf is no JSON number")],
)
def test_what_yaml_has_and_json_has_not_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_json(value)
    assert str(caught.value) == message


def test_the_limits_themselves_are_allowed() -> None:
    deep = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deep)) == deep
    assert parse_json(f'[{MAX_INTEGER}, {-MAX_INTEGER}, true, null, 1.5, "🌡"]')[-1] == "🌡"


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_text_is_what_utf_8_can_write(text: str) -> None:
    text.encode()
    assert is_text(text)
    assert not is_text(text + "\udcff")
