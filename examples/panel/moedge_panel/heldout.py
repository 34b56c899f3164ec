"""The held-out questions: pictures and typefaces that training never saw, and how answers are scored.

Needs numpy and pillow only, so that any engine can be asked the same questions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from moedge_panel.camera import photograph
from moedge_panel.questions import final_answer, sample_question
from moedge_panel.render import draw_panel
from moedge_panel.state import PanelState, sample_state
from moedge_panel.style import sample_frame_size, sample_style

HELD_OUT_SEED = 20_261_123
"""First entropy word of held-out pictures; training uses other words (`dataset.render_chunk`)."""

THINKING_SHARE = 0.25
HELD_OUT_FONT_SHARE = 0.4


@dataclass(frozen=True)
class Question:
    """One held-out question.

    Attributes:
        index: Position in the set.
        image: uint8 RGB [height, width, 3], a camera frame before any resize.
        question: The user's text; it goes before the image.
        thinking: The generation prompt ends with `<think>` and a newline.
        kind: Key of `questions.KINDS`.
        answer: Exact expected answer, after any thinking.
        state: What the panel shows.
        font: File name of the typeface, or `seven-segment`.
        held_out_font: The typeface was never used in training.
    """

    index: int
    image: np.ndarray
    question: str
    thinking: bool
    kind: str
    answer: str
    state: PanelState
    font: str
    held_out_font: bool


def held_out_questions(count: int = 1000, seed: int = 0) -> Iterator[Question]:
    """Yields `count` questions; question `i` of a seed is always the same, whatever the count."""
    for index in range(count):
        rng = np.random.default_rng([HELD_OUT_SEED, seed, index])
        state = sample_state(rng)
        unseen = bool(rng.random() < HELD_OUT_FONT_SHARE)
        style = sample_style(rng, len(str(state.reading)), sample_frame_size(rng), held_out=unseen)
        image = np.asarray(photograph(draw_panel(state, style), rng).image)
        asked = sample_question(state, rng)
        thinking = bool(rng.random() < THINKING_SHARE)
        yield Question(
            index, image, asked.question, thinking, asked.kind, asked.answer, state, style.face.file, unseen
        )  # fmt: skip


@dataclass(frozen=True)
class Score:
    """Right answers among those asked."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.right / self.asked if self.asked else 0.0


def is_right(question: Question, generated: str) -> bool:
    """Whether generated text (special tokens removed) ends in exactly the expected answer."""
    return final_answer(generated) == question.answer


def score(results: Iterable[tuple[Question, bool]]) -> dict[str, dict[str, Score]]:
    """Scores by all, kind, form (text or JSON), style of prompt and typeface.

    Args:
        results: Each question and whether its answer was right.
    """
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for question, right in results:
        groups = {
            "all": "all",
            "kind": question.kind,
            "form": "JSON" if question.kind.startswith("json") else "text",
            "prompt": "Thinking" if question.thinking else "Instruct",
            "typeface": "held-out" if question.held_out_font else "seen in training",
        }
        for group, value in groups.items():
            cell = counts[group][value]
            cell[0] += right
            cell[1] += 1
    return {
        group: {value: Score(right, asked) for value, (right, asked) in sorted(cells.items())}
        for group, cells in counts.items()
    }


def table(scores: dict[str, dict[str, Score]]) -> str:
    """Scores as a markdown table."""
    lines = ["| by | value | right | asked | exact |", "|---|---|---|---|---|"]
    for group, cells in scores.items():
        for value, cell in cells.items():
            lines.append(f"| {group} | {value} | {cell.right} | {cell.asked} | {100 * cell.accuracy:.1f} % |")
    return "\n".join(lines) + "\n"
