"""Exact answers of the demo model by precision and bundle form; writes docs/quality.md. Run through `make quality`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from machine import machine
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_panel.heldout import Question, held_out_questions, is_right
from moedge_runtime.inference import AskRequest, Engine

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "examples" / "panel" / "checkpoint"
PRECISIONS = ("fp32", "int8", "int4")
FORMS = ("paged", "inline")
MOST_POINTS_LOST = {"fp32": 0.0, "int8": 0.3, "int4": 1.0}


@dataclass
class Result:
    """What one bundle answered."""

    right: Counter[str] = field(default_factory=Counter)
    """Right answers by kind of question."""
    generated: list[str] = field(default_factory=list)
    """Reasoning and answer, question by question."""
    nbytes: int = 0
    """Size of the bundle."""

    @property
    def accuracy(self) -> float:
        """Share of right answers in percent."""
        return 100 * self.right.total() / len(self.generated)


def measure(bundle: Path, questions: list[Question]) -> Result:
    """Ask every question, greedily."""
    result = Result(nbytes=sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()))
    with Engine.open(bundle) as engine:
        for question in questions:
            answer = engine.ask(
                AskRequest(question.question, [question.image], thinking=question.thinking, max_new_tokens=96)
            )
            result.generated.append(f"{answer.reasoning}\n{answer.text}")
            result.right[question.kind] += is_right(question, answer.text)
    return result


def table(results: dict[str, Result], questions: list[Question]) -> list[str]:
    """The Markdown table: a row a kind, a column a bundle."""
    asked = Counter(question.kind for question in questions)
    names = list(results)
    rows = [
        "| question | asked | " + " | ".join(names) + " |",
        "|---|---" + "|---" * len(names) + "|",
        "| **all** | "
        + " | ".join([str(len(questions)), *(f"**{result.accuracy:.1f} %**" for result in results.values())])
        + " |",
    ]
    for kind, count in asked.most_common():
        shares = (f"{100 * result.right[kind] / count:.1f} %" for result in results.values())
        rows.append("| " + " | ".join([kind.replace("_", " "), str(count), *shares]) + " |")
    rows.append("| size | | " + " | ".join(f"{result.nbytes / 1e6:.2f} MB" for result in results.values()) + " |")
    return rows


def report(results: dict[str, Result], questions: list[Question]) -> str:
    """docs/quality.md."""
    lines = [
        "# Quality of the quantized demo model",
        "",
        "Exact answers of the demo model ([examples/panel](../examples/panel/README.md)) on held-out questions: unseen",
        "states, looks and, for two fifths of them, typefaces that training never saw. Decoding is greedy; a quarter",
        "of the questions is asked with thinking. INT4 is what `moedge export --precision int4` writes by default:",
        "experts in 4 bits, everything else that is quantized in 8.",
        "",
        *table(results, questions),
        "",
    ]
    for precision in PRECISIONS:
        paged, inline = (results[f"{precision} {form}"] for form in FORMS)
        same = sum(a == b for a, b in zip(paged.generated, inline.generated, strict=True))
        lines.append(f"- {precision}: paged and inline wrote the same text for {same} of {len(questions)} questions.")
    lines += [
        "",
        f"Measured on {date.today().isoformat()} with `make quality`, on {machine()}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Entry point; exits 1 if a precision loses more than its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "quality.md")
    arguments = parser.parse_args()
    questions = list(held_out_questions(arguments.count))
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as directory:
        for precision in PRECISIONS:
            for form in FORMS:
                bundle = Path(directory) / f"{precision}-{form}"
                export_bundle(str(arguments.checkpoint), bundle, ExportOptions(precision=precision, form=form))
                results[f"{precision} {form}"] = measure(bundle, questions)
    arguments.out.write_text(report(results, questions))
    failed = False
    for name, result in results.items():
        lost = results[f"fp32 {name.split()[1]}"].accuracy - result.accuracy
        bound = MOST_POINTS_LOST[name.split()[0]]
        ok = lost <= bound
        failed |= not ok
        line = {"name": f"{name} points lost", "value": round(lost, 2), "unit": "points", "bound": bound, "ok": ok}
        print(json.dumps(line | {"accuracy_percent": round(result.accuracy, 2)}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
