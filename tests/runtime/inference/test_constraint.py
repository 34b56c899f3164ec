import json

import jsonschema
import numpy as np
import pytest
from fixtures_checkpoint import save_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from moedge_runtime.errors import RequestError
from moedge_runtime.inference.constraint import SchemaCompiler
from moedge_runtime.inference.tokenizer import Tokenizer

PANEL = {
    "type": "object",
    "properties": {
        "reading": {"type": "integer", "minimum": 0, "maximum": 9999},
        "lamps": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
        "gauge": {"enum": ["high", "low", None]},
        "note": {"type": "string", "maxLength": 12},
    },
    "required": ["reading", "lamps", "gauge"],
    "additionalProperties": False,
}
VOCABULARY = 424


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    end = save_tokenizer(folder).token_to_id("<|im_end|>")
    path = folder / "tokenizer.json"
    return SchemaCompiler(path, VOCABULARY, end), Tokenizer(path), end


def random_answer(tools, schema, seed, most=3000):
    """What a model that knows nothing writes; None if it did not come to an end."""
    compiler, tokenizer, end = tools
    constraint, rng, tokens = compiler.compile(schema), np.random.default_rng(seed), []
    while len(tokens) < most:
        logits = constraint.mask(rng.normal(0, 3, VOCABULARY).astype(np.float32))
        token = int(np.argmax(logits))
        if token == end:
            assert constraint.accepting
            return tokenizer.decode(tokens)
        constraint.accept(token)
        tokens.append(token)
        if constraint.complete:
            return tokenizer.decode(tokens)
    return None


def test_what_a_random_model_writes_always_fits_the_schema(tools):
    for seed in range(60):
        text = random_answer(tools, PANEL, seed)
        assert text is not None
        jsonschema.validate(json.loads(text), PANEL)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["boolean", "null", "integer", "number", "string"]))
def test_every_plain_type_is_kept(tools, seed, kind):
    schema = {"type": kind, "maxLength": 20} if kind == "string" else {"type": kind}
    text = random_answer(tools, schema, seed, most=300)
    if text is not None:
        jsonschema.validate(json.loads(text), schema)


def test_an_object_is_complete_at_its_last_brace(tools):
    compiler, tokenizer, _ = tools
    constraint = compiler.compile(PANEL)
    tokens = tokenizer.encode('{"reading": 12, "lamps": [], "gauge": null}')
    for token in tokens[:-1]:
        constraint.accept(token)
        assert not constraint.complete
    constraint.accept(tokens[-1])
    assert constraint.complete


@pytest.mark.parametrize(
    "text, fits",
    [
        ('{"reading": 12, "lamps"', True),
        ('{"reading":12,"lamps"', True),
        ('{\n    "reading": 12,\n    "lamps"', True),
        ('{      "reading"', False),
        ("\n{", False),
        ('{"reading": 12345', False),
    ],
)
def test_white_space_is_as_json_is_usually_written_and_bounded(tools, text, fits):
    compiler, tokenizer, _ = tools
    constraint = compiler.compile(PANEL)
    allowed = True
    for token in tokenizer.encode(text):
        logits = constraint.mask(np.zeros(VOCABULARY, np.float32))
        if not np.isfinite(logits[token]):
            allowed = False
            break
        constraint.accept(token)
    assert allowed == fits


def test_one_answer_does_not_disturb_the_next(tools):
    compiler, tokenizer, _ = tools
    first = compiler.compile(PANEL)
    for token in tokenizer.encode('{"reading": 12'):
        first.accept(token)
    fresh = compiler.compile(PANEL).mask(np.zeros(VOCABULARY, np.float32))
    assert np.isfinite(fresh[tokenizer.encode("{")[0]])
    assert not np.isfinite(fresh[tokenizer.encode("1")[0]])


@pytest.mark.parametrize(
    "schema, reason",
    [
        ({"type": "nonsense"}, "nonsense"),
        ({"type": "object", "properties": 5}, "properties must be an object"),
        ({"$ref": "http://example.org/schema"}, "example.org"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
        ({"type": "string", "format": "blah"}, "format"),
        ({"type": "array", "unevaluatedItems": False}, "unevaluatedItems"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_with_the_reason(tools, schema, reason):
    with pytest.raises(RequestError, match=f"The JSON schema cannot be used: .*{reason}"):
        tools[0].compile(schema)


def test_a_schema_on_which_llguidance_panics_is_refused(tools):
    with pytest.raises(RequestError, match=r"^The JSON schema cannot be used: .*Correct or simplify it\.$") as caught:
        tools[0].compile({"minimum": "é" * 100})
    assert caught.value.key == "request.schema_invalid"
