"""Questions about a panel and their exact answers: text, JSON and Thinking."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moedge_panel.state import LAMP_COLOURS, PanelState

SYSTEM_PROMPTS = ("You read instrument panels.", "You are a helpful assistant.")
"""System messages seen in training (a minority of samples); a question needs none."""

THINK_OPEN = "<think>\n"
THINK_CLOSE = "\n</think>\n\n"


@dataclass(frozen=True)
class QuestionText:
    """A question as asked and answered.

    Attributes:
        kind: Key of `KINDS`.
        question: The user's text.
        answer: The exact text that follows the generation prompt, without thinking and without the end token.
    """

    kind: str
    question: str
    answer: str


def _lamps_text(state: PanelState) -> str:
    return ", ".join(state.lit) if state.lit else "none"


def _json(**values: object) -> str:
    return json.dumps(values)


Answer = Callable[[PanelState], str]


def _above(state: PanelState) -> str:
    return "yes" if state.gauge == "high" else "no"


def _below(state: PanelState) -> str:
    return "yes" if state.gauge == "low" else "no"


def _lamp_lit(colour: str) -> Answer:
    return lambda state: "yes" if colour in state.lit else "no"


KINDS: dict[str, tuple[tuple[str, Answer], ...]] = {
    "reading": tuple(
        (text, lambda s: str(s.reading))
        for text in ("What is the reading?", "What does the display show?", "Read the display.")
    ),
    "lamps": tuple((text, _lamps_text) for text in ("Which lamps are lit?", "Which lamps are on?")),
    "lamp": tuple(
        (f"Is the {colour} lamp {word}?", _lamp_lit(colour)) for colour in LAMP_COLOURS for word in ("lit", "on")
    ),
    "lamp_count": (("How many lamps are lit?", lambda s: str(len(s.lit))),),
    "gauge": (("Is the gauge above half?", _above), ("Is the gauge below half?", _below)),
    "json": tuple(
        (text, lambda s: _json(reading=s.reading, lamps=list(s.lit), gauge=s.gauge))
        for text in (
            "Answer as JSON with reading, lamps and gauge.",
            "Report the panel as JSON.",
            "What does the panel show? Answer as JSON.",
        )
    ),
    "json_reading": (("What is the reading? Answer as JSON.", lambda s: _json(reading=s.reading)),),
    "json_lamps": (("Which lamps are lit? Answer as JSON.", lambda s: _json(lamps=list(s.lit))),),
    "json_gauge": (("Is the gauge above half? Answer as JSON.", lambda s: _json(gauge=s.gauge)),),
}
"""Every way to ask, by kind: (question text, how to answer it from the state)."""

KIND_WEIGHTS: dict[str, float] = {
    "reading": 0.28,
    "lamps": 0.12,
    "lamp": 0.10,
    "lamp_count": 0.06,
    "gauge": 0.10,
    "json": 0.20,
    "json_reading": 0.06,
    "json_lamps": 0.05,
    "json_gauge": 0.03,
}
"""Share of each kind among random questions."""


def thinking_text(state: PanelState) -> str:
    """The reasoning that a Thinking answer begins with: what is seen, in one line, without the think tags."""
    lamps = " ".join(state.lit) if state.lit else "none"
    return f"display {state.reading}, lamps {lamps}, gauge {state.gauge}"


def full_answer(state: PanelState, answer: str, thinking: bool) -> str:
    """What the model has to write after the generation prompt, which ends with `THINK_OPEN` when thinking."""
    return thinking_text(state) + THINK_CLOSE + answer if thinking else answer


def final_answer(generated: str) -> str:
    """The answer in generated text: what follows the end of the thinking, or all of it, without surrounding space."""
    return generated.rsplit("</think>", maxsplit=1)[-1].strip()


def all_questions(state: PanelState) -> list[QuestionText]:
    """Every question with its answer for one state, in the order of `KINDS`."""
    return [QuestionText(kind, text, answer(state)) for kind, ways in KINDS.items() for text, answer in ways]


def sample_question(state: PanelState, rng: np.random.Generator) -> QuestionText:
    """Draws one question by `KIND_WEIGHTS` and answers it."""
    kinds = list(KIND_WEIGHTS)
    kind = kinds[int(rng.choice(len(kinds), p=np.array(list(KIND_WEIGHTS.values()))))]
    ways = KINDS[kind]
    text, answer = ways[int(rng.integers(len(ways)))]
    return QuestionText(kind, text, answer(state))
