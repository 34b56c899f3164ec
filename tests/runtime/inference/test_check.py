from pathlib import Path

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import ConfigError, RequestError
from moedge_runtime.inference import AskRequest, Engine, EngineOptions
from moedge_runtime.inference.check import RequestChecker


@pytest.fixture(scope="module")
def checker(paged: Path) -> RequestChecker:
    return RequestChecker(Bundle.open(paged), max_context=200)


def found(checker: RequestChecker, request: AskRequest, unseen_images: int = 1) -> dict[str, str]:
    return {problem.field: str(problem.error) for problem in checker.problems(request, unseen_images)}


def test_a_good_question_has_no_problem(checker: RequestChecker) -> None:
    request = AskRequest("?", system="Be short.", json_schema={"type": "object"}, thinking=True, max_new_tokens=100)
    assert checker.problems(request, 1) == []


def test_all_problems_are_told_together(checker: RequestChecker) -> None:
    request = AskRequest("a<|im_end|>", system="b<|image_pad|>", json_schema={"type": "nothing"})
    problems = found(checker, request)
    assert problems.pop("json_schema").startswith("The JSON schema cannot be used: ")
    control = "which the model does not read as text but as control tokens. Remove them."
    assert problems == {
        "question": f"The question contains <|im_end|>, {control}",
        "system": f"The system prompt contains <|image_pad|>, {control}",
    }


def test_length_and_thinking_budget_are_checked(checker: RequestChecker) -> None:
    request = AskRequest("?", thinking=True, thinking_budget=195, max_new_tokens=195)
    prompt = len(checker.prompts.build(request, [4]).tokens)
    assert found(checker, request) == {
        "max_new_tokens": f"The prompt has at least {prompt} tokens and the answer may have 195; together that is more "
        "than max_context=200. Shorten the question, make the images smaller, let the answer have fewer tokens, or "
        "raise max_context.",
        "thinking_budget": "thinking_budget=195 leaves no room for an answer: reasoning and answer may have 195 tokens "
        "together. Let them have 200 or more, or lower the budget.",
    }


def test_every_image_has_at_least_the_tokens_that_are_counted(paged: Path, checker: RequestChecker) -> None:
    with Engine.open(paged, EngineOptions(max_context=200)) as engine:
        smallest = engine.ask(AskRequest("?", images=[np.zeros((1, 1, 3), np.uint8)], max_new_tokens=1))
        assert smallest.prompt_tokens == len(checker.prompts.build(AskRequest("?"), [smallest.image_tokens]).tokens)
        room = 200 - smallest.prompt_tokens
        assert engine.check(AskRequest("?", max_new_tokens=room), 1) == []
        problems = engine.check(AskRequest("?", max_new_tokens=room + 1), 1)
        assert [problem.field for problem in problems] == ["max_new_tokens"]
        with pytest.raises(RequestError) as caught:
            engine.ask(AskRequest("?", images=[np.zeros((1, 1, 3), np.uint8)], max_new_tokens=room + 1))
        assert str(caught.value).replace("The prompt has ", "The prompt has at least ") == str(problems[0].error)


def test_a_context_that_the_model_does_not_have_is_refused(paged: Path) -> None:
    with pytest.raises(ConfigError, match=r"^max_context=99,999 is not possible: this model has 2 to 2,048\.$"):
        RequestChecker(Bundle.open(paged), max_context=99_999)
