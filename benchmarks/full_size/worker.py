"""moedge as a measured process: opens a bundle, then answers a line of JSON for every line of JSON that it gets.

`{"do": "text", "tokens": 220, "seed": 1, "decode": 24}` prefills a text of exactly so many tokens and decodes; `frame`
does so with a picture; `think` asks with a thinking budget, as the daemon does; `settle` waits until nothing is read
ahead any more; `status` tells what the process is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from time import monotonic, sleep
from typing import Any

import numpy as np
from moedge_runtime.bench.frame import measure_frame
from moedge_runtime.bench.process import anonymous_bytes, peak_bytes, read_bytes
from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.engine import EngineAnswerer
from moedge_runtime.inference import AskRequest, Engine, EngineOptions
from moedge_runtime.inference.check import RequestChecker
from moedge_runtime.inference.thinking import CLOSING, OPENING

from full_size.prompt import text_of, words_of

QUESTION = "Describe everything that can be seen in this picture, from left to right."
SETTLED_S, SETTLE_DEADLINE_S, SETTLE_STEP_S = 1.0, 120.0, 0.1
MAX_CONTEXT = 1024


class Worker:
    """Carries out what is asked, with one engine."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._engine = engine
        checker = RequestChecker(bundle, MAX_CONTEXT)
        self._count: Callable[[str], int] = lambda text: len(checker.prompts.build(AskRequest(text), []).tokens)
        self._tokenizer, self._vocabulary = checker.tokenizer, bundle.manifest.model.text.vocab_size
        self._words: list[str] = []

    def text(self, tokens: int, seed: int, decode: int) -> dict[str, Any]:
        """A text, its template's tokens counted in `tokens`."""
        self._words = self._words or words_of(self._vocabulary, lambda token: self._tokenizer.decode([token]))
        question = text_of(tokens, self._words, self._count, seed)
        return asdict(measure_frame(self._engine, AskRequest(question, max_new_tokens=decode + 1, ignore_end=True)))

    def frame(self, seed: int, decode: int, width: int = 640, height: int = 352) -> dict[str, Any]:
        """A picture of coloured noise, the same for the same seed."""
        picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return asdict(
            measure_frame(
                self._engine, AskRequest(QUESTION, images=[picture], max_new_tokens=decode + 1, ignore_end=True)
            )
        )

    def think(self, budget: int, decode: int) -> dict[str, Any]:
        """A question with a thinking budget, asked as the daemon does."""
        picture = np.zeros((128, 256, 3), np.uint8)
        question = Question("What is there?", thinking=True, thinking_budget=budget, max_tokens=decode)
        reply = EngineAnswerer(self._engine).ask(question, picture, lambda: False)
        marks = (OPENING.strip(), CLOSING.strip())
        return {
            "reasoning_tokens": reply.reasoning_tokens,
            "closing_tokens": len(self._tokenizer.encode(CLOSING)),
            "answer_tokens": reply.answer_tokens,
            "leaked": any(mark in reply.text for mark in marks) or not reply.reasoning or reply.reasoning in reply.text,
        }

    def settle(self) -> dict[str, Any]:
        """Wait until no byte was read for `SETTLED_S`."""
        since, before, deadline = monotonic(), read_bytes(), monotonic() + SETTLE_DEADLINE_S
        while monotonic() - since < SETTLED_S and monotonic() < deadline:
            sleep(SETTLE_STEP_S)
            if (now := read_bytes()) != before:
                since, before = monotonic(), now
        return self.status()

    def status(self) -> dict[str, Any]:
        """Bytes read, memory, and what the experts hold."""
        assert self._engine.experts is not None
        return {
            "read_bytes": read_bytes(),
            "anonymous_bytes": anonymous_bytes(),
            "peak_bytes": peak_bytes(),
            "experts": asdict(self._engine.experts.statistics()),
        }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--memory", type=int, help="bytes; what is there if it is not given")
    parser.add_argument("--no-prefix", action="store_true", help="compute the text before a picture for every frame")
    parser.add_argument("--verify", action="store_true", help="check the bundle first, as the daemon does")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    if arguments.verify:
        verify_bundle(bundle, experts=False)
    options = EngineOptions(
        max_context=MAX_CONTEXT, reuse_prefix=not arguments.no_prefix, memory_bytes=arguments.memory
    )
    with Engine.open(bundle, options) as engine:
        worker = Worker(bundle, engine)
        for line in sys.stdin:
            wanted = json.loads(line)
            print(json.dumps(getattr(worker, wanted.pop("do"))(**wanted)), flush=True)


if __name__ == "__main__":
    main()
