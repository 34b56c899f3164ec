"""Frames that share a prefill beside the same frames alone, in turn, on a bundle whose experts do not fit into memory.

    python -m full_size.together out/bench-full/bundle --memory 8G
    python -m full_size.together out/four-layers --layers 4 --tokenizer tokenizer.json --experts 400M

A bundle that is not there is made from synthetic weights. Each round asks one question about fresh pictures of noise,
alone and together, the other way round in the next round; the texts of both have to be the same. Prints one JSON object
a line (`name`, `value`, `unit`, `spread`). Exit code 1 if a text differs.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from expert_core.report import report
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.config.values import parse_size
from moedge_runtime.inference import AskRequest, Engine, EngineOptions

from full_size.architecture import model_config, write_files
from full_size.export import synthetic
from full_size.worker import QUESTION

MAX_CONTEXT = 2048


@dataclass(frozen=True)
class Turn:
    """What some frames took, one way or the other.

    Attributes:
        seconds: From the first picture to the last token.
        first_s: To the first token of the first frame.
        prefill_s: Of these, inside prefills.
        read_bytes: Of experts.
        texts: The answers.
    """

    seconds: float
    first_s: float
    prefill_s: float
    read_bytes: int
    texts: list[str]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--memory", type=parse_size, help="for the process; the default is that of the runtime")
    parser.add_argument("--experts", type=parse_size, help="of it for the experts")
    parser.add_argument("--frames", default="2,3,4", help="that share a prefill")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--decode", type=int, default=8, help="tokens of an answer")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--layers", type=int, default=48, help="of a bundle that is made")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json of Qwen3-VL, for a bundle that is made")
    arguments = parser.parse_args()
    if not arguments.bundle.exists():
        make(arguments.bundle, arguments.layers, arguments.tokenizer)
    options = EngineOptions(
        max_context=MAX_CONTEXT,
        memory_bytes=arguments.memory,
        expert_budget_bytes=arguments.experts,
        threads=arguments.threads,
    )
    same = True
    with Engine.open(arguments.bundle, options) as engine:
        assert engine.plan is not None and engine.experts is not None
        print(engine.plan.line(), flush=True)
        alone(engine, pictures(0, 1), arguments.decode)
        for count in map(int, arguments.frames.split(",")):
            same &= compare(engine, count, arguments.rounds, arguments.decode)
    raise SystemExit(0 if same else 1)


def compare(engine: Engine, count: int, rounds: int, decode: int) -> bool:
    """Measure `count` frames; whether every text is the same."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    worth = []
    for index in range(rounds):
        images = pictures(1 + count * (index + 1), count)
        ways = {"alone": alone, "together": together}
        for name in sorted(ways, reverse=bool(index % 2)):
            turns[name].append(ways[name](engine, images, decode))
            worth.append(engine.together)
    single, shared = turns["alone"], turns["together"]
    label = f"{count} frames"
    for name, each in turns.items():
        report(f"{label} {name}: all answered", [turn.seconds for turn in each], "s")
        report(f"{label} {name}: in prefills", [turn.prefill_s for turn in each], "s")
        report(f"{label} {name}: first token", [turn.first_s for turn in each], "s")
        report(f"{label} {name}: read", [turn.read_bytes / 1e9 for turn in each], "GB")
    pairs = list(zip(single, shared, strict=True))
    report(f"{label}: prefills, alone over together", [a.prefill_s / b.prefill_s for a, b in pairs], "ratio")
    report(f"{label}: all answered, alone over together", [a.seconds / b.seconds for a, b in pairs], "ratio")
    report(f"{label}: first token, together over alone", [b.first_s / a.first_s for a, b in pairs], "ratio")
    report(f"{label}: prompts worth a pass", [float(statistics.median(worth))], "prompts")
    return all(a.texts == b.texts for a, b in pairs)


def alone(engine: Engine, images: list[np.ndarray], decode: int) -> Turn:
    """Ask about one picture after the other."""
    return _turn(engine, [[image] for image in images], decode)


def together(engine: Engine, images: list[np.ndarray], decode: int) -> Turn:
    """Begin all questions together."""
    return _turn(engine, [images], decode)


def pictures(seed: int, count: int) -> list[np.ndarray]:
    """Pictures of noise."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (352, 640, 3), dtype=np.uint8) for _ in range(count)]


def _turn(engine: Engine, groups: list[list[np.ndarray]], decode: int) -> Turn:
    assert engine.experts is not None
    before, begin_s = engine.experts.statistics(), perf_counter()
    answers, passes_ms = [], []
    for images in groups:
        asked = engine.begin([AskRequest(QUESTION, images=[image], max_new_tokens=decode) for image in images])
        group = [each.answer() for each in asked]
        passes_ms += [answer.timing.prefill_ms / answer.prefilled_together for answer in group]
        answers += group
    return Turn(
        seconds=perf_counter() - begin_s,
        first_s=answers[0].timing.time_to_first_token_ms / 1e3,
        prefill_s=sum(passes_ms) / 1e3,
        read_bytes=(engine.experts.statistics() - before).read_bytes,
        texts=[answer.text for answer in answers],
    )


def make(bundle: Path, layers: int, tokenizer: Path | None) -> None:
    """Export synthetic weights."""
    if tokenizer is None:
        raise SystemExit(f"There is no bundle '{bundle}'. Say what to make it with: --tokenizer.")
    checkpoint = bundle.with_name(f"{bundle.name}-checkpoint")
    write_files(checkpoint, model_config(layers), tokenizer)
    export_bundle(synthetic(checkpoint), bundle, ExportOptions())


if __name__ == "__main__":
    main()
