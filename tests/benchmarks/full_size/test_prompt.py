import pytest
from full_size.prompt import text_of, words_of

WORDS = [" alpha", " beta", " gamma"]


def test_words_are_those_that_survive_being_written_in_a_row() -> None:
    texts = [" word", "word", " wo", " Word", " größe", "\n", " other"]
    assert words_of(len(texts), texts.__getitem__) == [" word", " other"]


@pytest.mark.parametrize("tokens", [1, 7, 220])
def test_a_text_has_exactly_so_many_tokens_whatever_surrounds_it(tokens: int) -> None:
    def count(text: str) -> int:
        return text.count(" ") + (1 if tokens > 1 else 0)  # a template's token

    assert count(text_of(tokens, WORDS, count, seed=3)) == tokens


def test_words_that_count_double_in_a_row_are_cut_away_again() -> None:
    def count(text: str) -> int:
        return text.count(" ") + text.count(" gamma")

    assert count(text_of(50, WORDS, count, seed=1)) == 50


def test_the_same_seed_gives_the_same_text_and_another_one_another() -> None:
    def count(text: str) -> int:
        return text.count(" ")

    assert text_of(30, WORDS, count, seed=1) == text_of(30, WORDS, count, seed=1)
    assert text_of(30, WORDS, count, seed=1) != text_of(30, WORDS, count, seed=2)
