"""Questions about a chunk of images as packed token sequences with MRoPE positions."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from moedge_panel.network import ROWS, Group
from moedge_panel.questions import SYSTEM_PROMPTS, THINK_OPEN, full_answer, sample_question
from moedge_panel.state import PanelState

THINKING_SHARE = 0.15
IMAGE_FIRST_SHARE = 0.12
SYSTEM_SHARE = 0.08
NO_TARGET = -100
GROUPS = 4
"""Groups of similar length within a batch; more groups pad less and call more."""


@dataclass
class Batch:
    """Tensors for `network.text_logits`; see there.

    Attributes:
        targets: Token ids that follow the wanted places; `NO_TARGET` where a place only pads.
        sequence_of: Sequence of each wanted place.
    """

    ids: Tensor
    positions: Tensor
    groups: list[Group]
    wanted: Tensor
    image_of: Tensor
    targets: Tensor
    sequence_of: Tensor


def _groups(lengths: list[int]) -> list[Group]:
    """Splits sequences (shortest first) into `GROUPS` groups, each padded to its own longest."""
    starts = np.concatenate(([0], np.cumsum(lengths)))
    groups = []
    for members in np.array_split(np.arange(len(lengths)), GROUPS):
        longest = -(-max(lengths[m] for m in members) // 4) * 4
        gather = np.zeros((len(members), longest), dtype=np.int64)
        used = np.zeros((len(members), longest), dtype=bool)
        for row, member in enumerate(members):
            gather[row, : lengths[member]] = np.arange(starts[member], starts[member + 1])
            used[row, : lengths[member]] = True
        back = np.flatnonzero(used.ravel())
        groups.append(Group(torch.from_numpy(gather.ravel()), torch.from_numpy(back), len(members)))
    return groups


class BatchBuilder:
    """Builds batches with one tokenizer.

    Args:
        tokenizer: The model's tokenizer.
        seed: Seed of the choice of questions.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 2])

        @lru_cache(maxsize=50000)
        def encode(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

        self._encode = encode
        self._image_token = tokenizer.encode("<|image_pad|>", add_special_tokens=False).ids[0]

    def _sequence(self, state: PanelState) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Tokens before the image, after it up to the answer, and the answer."""
        rng, encode = self._rng, self._encode
        question = sample_question(state, rng)
        thinking = rng.random() < THINKING_SHARE
        head = "<|im_start|>user\n"
        if rng.random() < SYSTEM_SHARE:
            head = f"<|im_start|>system\n{SYSTEM_PROMPTS[int(rng.integers(len(SYSTEM_PROMPTS)))]}<|im_end|>\n{head}"
        tail = "<|im_end|>\n<|im_start|>assistant\n" + (THINK_OPEN if thinking else "")
        answer = encode(full_answer(state, question.answer, thinking) + "<|im_end|>")
        if rng.random() < IMAGE_FIRST_SHARE:
            return encode(f"{head}<|vision_start|>"), encode(f"<|vision_end|>{question.question}{tail}"), answer
        return encode(f"{head}{question.question}<|vision_start|>"), encode(f"<|vision_end|>{tail}"), answer

    def build(self, states: list[PanelState], grid: tuple[int, int], per_image: int) -> Batch:
        """Asks `per_image` questions about every state.

        Args:
            states: What the images show.
            grid: Rows and columns of merged image tokens.
            per_image: Questions per image.
        """
        rows, columns = grid
        tokens = rows * columns
        rows_at = np.repeat(np.arange(rows), columns)
        columns_at = np.tile(np.arange(columns), rows)
        spread = np.stack((np.zeros(tokens, dtype=np.int64), rows_at, columns_at))
        parts = [(image, *self._sequence(state)) for image, state in enumerate(states) for _ in range(per_image)]
        parts.sort(key=lambda part: len(part[1]) + len(part[2]) + len(part[3]))
        ids, positions, wanted, targets, lengths = [], [], [], [], []
        base = 0
        for _, before, middle, answer in parts:
            start, used = len(before), len(before) + tokens + len(middle) + len(answer) - 1
            ids.append(np.array((*before, *(self._image_token,) * tokens, *middle, *answer[:-1]), dtype=np.int64))
            place = np.empty((3, used), dtype=np.int64)
            place[:, :start] = np.arange(start)
            place[:, start : start + tokens] = start + spread
            place[:, start + tokens :] = start + max(rows, columns) + np.arange(used - start - tokens)
            positions.append(place)
            wanted.append(base + np.arange(used - len(answer), used))
            targets.append(np.array(answer, dtype=np.int64))
            lengths.append(used)
            base += used
        rows_wanted = np.repeat(np.arange(len(parts)), [len(part[3]) for part in parts])
        ids.append(np.zeros(-base % ROWS, dtype=np.int64))
        positions.append(np.zeros((3, -base % ROWS), dtype=np.int64))
        spare = -len(rows_wanted) % ROWS
        wanted.append(np.zeros(spare, dtype=np.int64))
        targets.append(np.full(spare, NO_TARGET, dtype=np.int64))
        return Batch(
            torch.from_numpy(np.concatenate(ids)),
            torch.from_numpy(np.concatenate(positions, axis=1)),
            _groups(lengths),
            torch.from_numpy(np.concatenate(wanted)),
            torch.tensor([part[0] for part in parts]),
            torch.from_numpy(np.concatenate(targets)),
            torch.from_numpy(np.concatenate((rows_wanted, np.zeros(spare, dtype=np.int64)))),
        )
