import numpy as np
import pytest
from fixtures_checkpoint import SPECIAL_TOKENS, THINK_TOKENS, save_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from moedge_runtime.errors import BundleError
from moedge_runtime.inference.tokenizer import StreamDecoder, Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder / "tokenizer.json")


def stream(tokenizer, tokens):
    decoder = StreamDecoder(tokenizer)
    return [decoder.push(token) for token in tokens] + [decoder.finish()]


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_streams_without_broken_characters(tokenizer, text):
    tokens = tokenizer.encode(text)
    pieces = stream(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)
    if "�" not in text:
        assert not any("�" in piece for piece in pieces)


def test_random_tokens_stream_to_what_they_decode_to(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        tokens = rng.integers(0, 420, 30).tolist()
        assert "".join(stream(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_a_character_of_several_tokens_comes_in_one_piece(tokenizer):
    tokens = tokenizer.encode("🚀")
    assert len(tokens) == 3
    assert stream(tokenizer, tokens) == ["", "", "🚀", ""]


def test_a_character_that_stays_incomplete_is_given_out_at_the_end(tokenizer):
    assert stream(tokenizer, tokenizer.encode("a🚀")[:-1])[-1] == "�"


def test_tokens_equal_transformers(tokenizer, folder):
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folder)
    text = "<|im_start|>user\nGrüße 12345<|vision_start|><|image_pad|><|vision_end|> <think>\nx</think><|im_end|>\n"
    tokens = tokenizer.encode(text)
    assert tokens == reference(text).input_ids
    assert tokenizer.decode(tokens) == reference.decode(tokens, skip_special_tokens=True)


def test_control_tokens_are_all_that_are_no_pieces_of_text(tokenizer):
    assert set(tokenizer.control_tokens) == {*SPECIAL_TOKENS, *THINK_TOKENS}


def test_a_damaged_file_is_a_bundle_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BundleError, match="is not a tokenizer that can be read"):
        Tokenizer(tmp_path / "tokenizer.json")
