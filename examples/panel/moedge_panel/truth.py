"""What the demonstration video shows at each frame, and whether an answer from MQTT agrees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class VideoTruth:
    """The lines of truth.jsonl, in order of time."""

    spans: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> VideoTruth:
        """Read truth.jsonl as `moedge_panel.video` writes it."""
        return cls([json.loads(line) for line in path.read_text().splitlines()])

    def expected(self, frame: int, question: str) -> str:
        """The right answer to `question` about frame number `frame`.

        Raises:
            LookupError: The video has no such frame, or the truth no such question.
        """
        for span in self.spans:
            if span["first_frame"] <= frame < span["end_frame"]:
                return str(span["answers"][question])
        raise LookupError(f"The video has no frame {frame}; its last is {self.spans[-1]['end_frame'] - 1}.")

    def is_right(self, answer: dict[str, Any]) -> bool:
        """Whether an answer payload (docs/mqtt.md) is exactly right; JSON is compared by value."""
        if answer["status"] != "ok":
            return False
        expected = self.expected(answer["frame"]["index"], answer["question"])
        if answer["data"] is not None:
            return bool(answer["data"] == json.loads(expected))
        return bool(answer["text"] == expected)
