import numpy as np
import pytest
from fixtures_checkpoint import save_tokenizer
from moedge_runtime.inference.constraint import SchemaCompiler
from moedge_runtime.inference.generation import Generation, TokenChooser
from moedge_runtime.inference.sampling import Sampling
from moedge_runtime.inference.thinking import ThinkingTracker
from moedge_runtime.inference.tokenizer import Tokenizer

VOCABULARY = 424
READING = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Scripted:
    """A model that wants to say a text, wherever it is; counts what was run through it."""

    def __init__(self, folder, text, repeat=False):
        save_tokenizer(folder)
        self.tokenizer = Tokenizer(folder / "tokenizer.json")
        self.schemas = SchemaCompiler(folder / "tokenizer.json", VOCABULARY, self.id("<|im_end|>"))
        self.script = self.tokenizer.encode(text)
        self.repeat = repeat
        self.place = 0
        self.run_tokens: list[int] = []
        self.pieces: list[str] = []
        self.reasoning_pieces: list[str] = []

    def id(self, token):
        return self.tokenizer.encode(token)[0]

    def logits(self):
        logits = np.zeros(VOCABULARY, np.float32)
        if self.place < len(self.script):
            logits[self.script[self.place]] = 9
        else:
            logits[self.script[0] if self.repeat else self.id("<|im_end|>")] = 9
        self.place += 1
        return logits

    def advance(self, tokens):
        self.run_tokens += tokens
        return self.logits()

    def generate(self, *, thinking=False, budget=None, schema=None, most=100, sampling=None, should_stop=None):
        generation = Generation(
            self.tokenizer,
            chooser=TokenChooser(sampling, 0, []),
            tracker=ThinkingTracker(self.id("<think>"), self.id("</think>"), thinking, budget),
            constraint=None if schema is None else self.schemas.compile(schema),
            end_tokens=[self.id("<|im_end|>"), self.id("<|endoftext|>")],
            max_new_tokens=most,
            on_text=self.pieces.append,
            on_reasoning=self.reasoning_pieces.append,
        )
        self.generation = generation
        return generation.run(self.logits(), self.advance, should_stop)


def test_streamed_pieces_are_the_text(tmp_path):
    model = Scripted(tmp_path, "Es sind 21,5 °C 🌡️.")
    result = model.generate()
    assert result.text == "".join(model.pieces) == "Es sind 21,5 °C 🌡️."
    assert result.finish_reason == "stop" and result.reasoning is None
    assert result.answer_tokens == len(model.script) + 1
    assert model.run_tokens == model.script  # the end token is not run


def test_the_length_limit_ends_the_answer(tmp_path):
    result = Scripted(tmp_path, "one two three four").generate(most=3)
    assert result.finish_reason == "length"
    assert result.answer_tokens == 3
    assert "one two three four".startswith(result.text)


def test_reasoning_and_answer_are_told_apart(tmp_path):
    model = Scripted(tmp_path, "\nI see 42.\n</think>\n\nThe reading is 42.")
    result = model.generate(thinking=True)
    assert result.reasoning == "".join(model.reasoning_pieces).rstrip() == "I see 42."
    assert result.text == "".join(model.pieces) == "The reading is 42."
    assert result.reasoning_tokens + result.answer_tokens == len(model.generation.tokens)


def test_reasoning_that_the_model_opens_itself_is_found(tmp_path):
    result = Scripted(tmp_path, "<think>\nhm\n</think>\n\n7").generate(thinking=False)
    assert (result.reasoning, result.text) == ("hm", "7")


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_used_up_budget_closes_the_reasoning_and_the_answer_follows(tmp_path, budget):
    model = Scripted(tmp_path, "on and on ", repeat=True)
    result = model.generate(thinking=True, budget=budget, most=30)
    closing = model.tokenizer.encode("\n</think>\n\n")
    assert model.run_tokens[budget : budget + len(closing)] == closing
    assert result.reasoning_tokens == budget + closing.index(model.id("</think>")) + 1
    assert result.text and result.finish_reason == "length"


def test_a_generous_budget_changes_nothing(tmp_path):
    results = []
    for name, budget in (("a", None), ("b", 1000)):
        (tmp_path / name).mkdir()
        results.append(Scripted(tmp_path / name, "hm\n</think>\n\n7").generate(thinking=True, budget=budget))
    assert results[0] == results[1]


def test_an_end_inside_the_reasoning_only_closes_that(tmp_path):
    model = Scripted(tmp_path, "I stop<|im_end|>12")
    result = model.generate(thinking=True)
    assert (result.reasoning, result.text, result.finish_reason) == ("I stop", "12", "stop")


@pytest.mark.parametrize("spaces", ["", "\n\n", "   "])
def test_a_schema_holds_from_the_end_of_the_reasoning_on(tmp_path, spaces):
    model = Scripted(tmp_path, f"no JSON yet</think>{spaces}" + 'Sure! {"n": 4}', repeat=True)
    result = model.generate(thinking=True, schema=READING, most=60)
    assert result.reasoning == "no JSON yet"
    assert result.text.startswith("{")


def test_a_fulfilled_schema_ends_the_answer(tmp_path):
    model = Scripted(tmp_path, '{"n": 4} and much more text')
    result = model.generate(schema=READING)
    assert (result.text, result.finish_reason, result.valid) == ('{"n": 4}', "stop", True)


def test_a_schema_that_is_cut_off_is_not_valid_but_kept_as_text(tmp_path):
    result = Scripted(tmp_path, '{"n": 123456789}').generate(schema=READING, most=5)
    assert (result.finish_reason, result.valid) == ("length", False)
    assert '{"n": 123456789}'.startswith(result.text) and result.text


def test_a_number_cut_off_by_the_length_is_not_taken_for_the_answer(tmp_path):
    result = Scripted(tmp_path, "123456").generate(schema={"type": "integer"}, most=3)
    assert (result.text, result.valid) == ("123", False)


def test_cancelling_keeps_what_was_said(tmp_path):
    model = Scripted(tmp_path, "one two three four five")
    result = model.generate(should_stop=lambda: len(model.run_tokens) >= 4)
    assert result.finish_reason == "cancelled"
    assert result.text and "one two three four five".startswith(result.text)


def test_a_repetition_penalty_sees_the_answer_so_far(tmp_path):
    model = Scripted(tmp_path, "again ", repeat=True)
    model.generate(sampling=Sampling(temperature=0.01, repetition_penalty=1000.0), most=8)
    assert len(set(model.generation.tokens)) == 8
