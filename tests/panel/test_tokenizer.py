from pathlib import Path

import pytest
from moedge_panel.questions import KINDS, all_questions
from moedge_panel.state import PanelState
from moedge_panel.tokenizer import SPECIAL_TOKENS, build_tokenizer
from tokenizers import Tokenizer

CHECKPOINT = Path(__file__).parents[2] / "examples" / "panel" / "checkpoint"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


def test_any_text_comes_back(tokenizer: Tokenizer) -> None:
    texts = [q.answer for q in all_questions(PanelState(907, ("red",), ("red",), 80))]
    texts += [text for ways in KINDS.values() for text, _ in ways]
    texts += ["Größe ≤ 5 µm? 你好 🙂\n\ttabs  and spaces", "<think>\n</think>\n\n"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]


def test_markers_are_one_token(tokenizer: Tokenizer) -> None:
    for text in (*SPECIAL_TOKENS, "<think>", "</think>"):
        assert len(tokenizer.encode(text).ids) == 1


def test_the_committed_tokenizer_is_the_one_the_code_builds(tokenizer: Tokenizer) -> None:
    assert build_tokenizer().get_vocab() == tokenizer.get_vocab()
