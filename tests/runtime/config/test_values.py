import pytest
from moedge_runtime.config.environment import substitute
from moedge_runtime.config.values import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("2m", 120), ("2min", 120), ("1.5h", 5400), ("3", 3), (0.25, 0.25)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 s s", "1e3", True, None, [5]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="write seconds as a number"):
        parse_duration(text)


def test_environment_variables_are_put_into_values_at_any_depth() -> None:
    value, problems = substitute({"a": ["${X}-${Y}", {"b": "$${X}"}], "${X}": 1}, {"X": "1", "Y": "{z}"})
    assert value == {"a": ["1-{z}", {"b": "${X}"}], "${X}": 1}
    assert problems == []


def test_unset_and_malformed_variables_are_problems() -> None:
    _, problems = substitute({"a": "${NO}", "b": "${no name}"}, {})
    assert [path for path, _ in problems] == [("a",), ("b",)]
    assert problems[0][1] == "the environment variable NO is not set; set it before moedge starts"
