import pytest
from moedge_runtime.config.environment import substitute
from moedge_runtime.config.values import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("2m", 120), ("2min", 120), ("1.5h", 5400), ("3", 3), (0.25, 0.25)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 s s", "1e3", True, None, [5]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="write seconds as a number"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value", "nbytes"),
    [
        ("512M", 512 << 20),
        ("5G", 5 << 30),
        ("1.5G", 3 << 29),
        ("4k", 4096),
        (" 7 M ", 7 << 20),
        ("64", 64),
        ("0.1k", 102),
        (0, 0),
    ],
)
def test_sizes(value: object, nbytes: int) -> None:
    assert parse_size(value) == nbytes


@pytest.mark.parametrize("value", ["", "G", "-5G", "5g", "5GB", "1.5", "1e3", "0x10", "9" * 5000, 1.5, True, None, [5]])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match=r"write bytes as a number, .* for example 5G"):
        parse_size(value)


def test_environment_variables_are_put_into_values_at_any_depth() -> None:
    value, problems = substitute({"a": ["${X}-${Y}", {"b": "$${X}"}], "${X}": 1}, {"X": "1", "Y": "{z}"})
    assert value == {"a": ["1-{z}", {"b": "${X}"}], "${X}": 1}
    assert problems == []


def test_unset_and_malformed_variables_are_problems() -> None:
    _, problems = substitute({"a": "${NO}", "b": "${no name}"}, {})
    assert [path for path, _ in problems] == [("a",), ("b",)]
    assert problems[0][1] == "the environment variable NO is not set; set it before moedge starts"
