import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.errors import RequestError
from moedge_runtime.mqtt.payloads import Response
from moedge_runtime.mqtt.requests import AskCommand, parse_request, transaction_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_a_question() -> None:
    command = parse_request("ask", b'{"question": "Wie voll?", "camera": "gate", "transaction": 7}')
    assert isinstance(command, AskCommand)
    assert (command.question, command.camera, command.transaction) == ("Wie voll?", "gate", 7)


def test_no_bytes_count_as_an_empty_object() -> None:
    assert parse_request("health", b"").transaction is None


@pytest.mark.parametrize(
    ("payload", "key", "text"),
    [
        (b"{", "request.invalid_json", "The request is not valid JSON: Expecting property name"),
        (b"\xff\xfe{}", "request.invalid_json", "The request is not valid JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[]", "request.invalid_json", "The request is not a JSON object."),
        (b'{"question": NaN}', "request.invalid_json", "The request is not valid JSON: NaN is no JSON number."),
        (b"[" * 60_000, "request.invalid_json", "The request is not valid JSON: "),
        (b'{"question": ' + b"9" * 5000 + b"}", "request.invalid_json", "The request is not valid JSON: "),
        (
            b'{"json_schema": {"const": 1e400}}',
            "request.invalid_json",
            "The request is not valid JSON: inf is no JSON n",
        ),
        (
            b'{"question": -Infinity}',
            "request.invalid_json",
            "The request is not valid JSON: -Infinity is no JSON numb",
        ),
        (
            b'{"transaction": 99999999999999999999}',
            "request.invalid_json",
            "an integer is beyond ±9223372036854775807.",
        ),
        (b'{"question": "\\ud800"}', "request.invalid_json", "the text '\\ud800' holds half a character, a lone surr"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "request.invalid_json", "it is nested deeper than 64 levels."),
        (b" " * 70_000, "request.too_large", "The request has 70,000 bytes; at most 65,536 are read."),
        (b"{}", "request.invalid", "The request 'ask' is not valid: question: is required."),
        (b'{"question": 1}', "request.invalid", "question: Input should be a valid string"),
        (b'{"question": ""}', "request.invalid", "question: String should have at least 1 character"),
        (b'{"question": " \\n\\t"}', "request.invalid", "not valid: question: a question is more than blanks."),
        (b'{"question": "a", "qestion": "b"}', "request.invalid", "qestion: unknown key"),
        (b'{"question": "a", "max_tokens": 1e9}', "request.invalid", "max_tokens: "),
        (b'{"question": "a", "max_tokens": true}', "request.invalid", "max_tokens: "),
        (b'{"question": "a", "deadline": 0}', "request.invalid", "deadline: "),
        (b'{"question": "a", "deadline": "10s"}', "request.invalid", "deadline: "),
        (b'{"question": "a", "deadline": 1e300}', "request.invalid", "deadline: "),
        (b'{"question": "a", "transaction": {}}', "request.invalid", "transaction"),
    ],
)
def test_hostile_payloads_become_errors_with_a_key(payload: bytes, key: str, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request("ask", payload)
    assert caught.value.key == key
    assert text in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_an_unknown_verb_names_the_known_ones() -> None:
    with pytest.raises(RequestError) as caught:
        parse_request("reboot", b"")
    assert str(caught.value) == (
        "There is no request 'reboot'. Known are ask, snapshot, health, info, config, backup, update, reload, "
        "restart, log_level."
    )
    assert caught.value.key == "request.unknown_verb"


def test_the_transaction_of_a_wrong_request_is_found_if_it_can_be_given_back() -> None:
    assert transaction_of(b'{"transaction": "t1", "nonsense": 1}') == "t1"
    for payload in (b"", b"{", b"\xff", b'{"transaction": []}', b'{"transaction": "' + b"x" * 300 + b'"}'):
        assert transaction_of(payload) is None


requests = st.fixed_dictionaries({"question": st.text(min_size=1)}, optional={"json_schema": json_values})


@given(requests.map(json.dumps))
def test_what_is_read_can_be_sent_back(text: str) -> None:
    """A question and its schema go back in the answer, which must be JSON for everybody."""
    try:
        command = parse_request("ask", text.encode())
    except RequestError:
        return
    sent = Response(status="ok", data=command.model_dump(mode="json")).encode()
    assert json.loads(sent, parse_constant=pytest.fail)["data"]["question"] == json.loads(text)["question"]


@given(st.sampled_from(["ask", "health"]), st.binary(max_size=300) | json_values.map(lambda v: repr(v).encode()))
def test_no_bytes_whatever_raise_anything_else(verb: str, payload: bytes) -> None:
    transaction_of(payload)
    try:
        parse_request(verb, payload)
    except RequestError as error:
        assert error.key.startswith("request.")


def test_a_device_file_comes_with_a_configuration_only() -> None:
    with pytest.raises(RequestError, match="device_file goes with config") as caught:
        parse_request("config", b'{"device_file": "{}"}')
    assert caught.value.key == "request.invalid"
    parse_request("config", b'{"config": "version: 1", "device_file": "{}"}')
