"""A fake answerer that says it is one, and configurations for tests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from moedge_runtime.bundle import Bundle
from moedge_runtime.config import Config, ModelConfig, load_config
from moedge_runtime.daemon.answerer import Question, QuestionProblem, Reply, ShouldStop
from moedge_runtime.errors import RequestError
from runtime.camera.videos import number_of

log = logging.getLogger(__name__)


class Panic(BaseException):
    """As pyo3's PanicException, no Exception."""


class FakeAnswerer:
    """Reads the frame's number from its brightness instead of running a model, and says so.

    Questions that begin with a word in capitals make it misbehave: FAIL, CRASH and PANIC raise, HANG waits until
    cancelled, GATE waits until `gate` is set, DEAF never returns.
    """

    together = 1

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        """Questions that were begun together."""
        self.asked: list[tuple[str, int]] = []
        self.cameras: set[str] = set()
        """Those that it was told to keep."""
        self.asked_of: set[str | None] = set()
        """Cameras of questions."""
        self.closed = False
        self.gate = threading.Event()
        self.held = threading.Event()
        """Set once a question with GATE or HANG is under way."""

    @classmethod
    def open(cls, bundle: Bundle, config: ModelConfig) -> FakeAnswerer:
        return cls()

    def keep_cameras(self, cameras: Collection[str]) -> None:
        self.cameras = set(cameras)

    def check(self, question: Question) -> list[QuestionProblem]:
        """Refuses what begins with REFUSED."""
        if question.text.startswith("REFUSED"):
            return [QuestionProblem("question", RequestError("This fake refuses the question.", key="request.fake"))]
        return []

    def close(self) -> None:
        self.closed = True

    def ask(self, question: Question, image: np.ndarray, should_stop: Callable[[], bool]) -> Reply:
        number = number_of(image)
        self.asked.append((question.text, number))
        self.asked_of.add(question.camera)
        word = question.text.split()[0]
        if word == "FAIL":
            raise RequestError("This fake refuses the question.", key="request.fake")
        if word == "CRASH":
            raise ZeroDivisionError("this fake has a fault")
        if word == "PANIC":
            raise Panic("this fake has a fault in Rust")
        if word == "GATE":
            self.held.set()
            assert self.gate.wait(60)
        if word == "DEAF":
            log.info("Nothing is heard from now on.")
            threading.Event().wait()
        if word == "HANG":
            self.held.set()
            tick = threading.Event()
            while not should_stop():
                tick.wait(0.01)
            return reply("half an ans", "cancelled")
        return reply(f"fake answer: frame {number}", "stop", {"frame": number} if question.json_schema else None)

    def begin(
        self, questions: Sequence[tuple[Question, np.ndarray]], should_stop: ShouldStop, enough: Callable[[], bool]
    ) -> list[Callable[[ShouldStop], Reply]]:
        self.begun.append([question.text for question, _ in questions])
        return [partial(self.ask, question, image) for question, image in questions]


def reply(text: str, finish_reason: Any, data: Any = None) -> Reply:
    return Reply(
        text=text,
        reasoning="fake reasoning",
        data=data,
        finish_reason=finish_reason,
        vision_s=0.001,
        prefill_s=0.002,
        decode_s=0.003,
        decode_tok_s=10.0,
        prompt_tokens=20,
        image_tokens=12,
        cached_tokens=4,
        answer_tokens=5,
        reasoning_tokens=0,
    )


def write_config(directory: Path, bundle: Path, port: int, **changes: Any) -> Path:
    """A moedge.yaml for device d with the broker at `port`; `changes` replace whole sections."""
    sections: dict[str, Any] = {
        "version": 1,
        "device": "d",
        "model": {"bundle": str(bundle)},
        "mqtt": {"url": f"mqtt://127.0.0.1:{port}", "base_topic": "t"},
        "cameras": {"panel": {"source": "file:panel.mp4"}},
        "watches": [{"name": "number", "camera": "panel", "question": "Which frame?", "interval": 1}],
        "metrics": False,  # many daemons run here at once
    }
    path = directory / "moedge.yaml"
    path.write_text(yaml.safe_dump(sections | changes, sort_keys=False))
    return path


def config_for(directory: Path, bundle: Path, port: int, **changes: Any) -> Config:
    return load_config(write_config(directory, bundle, port, **changes))
