"""The parts of the comparison: each measures one thing, judges it against its bound and keeps its figures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expert_core.report import report
from moedge_runtime.bench.bandwidth import flash_bandwidth, memory_bandwidth
from moedge_runtime.bench.limits import Bandwidths, token_bytes
from moedge_runtime.bundle import Bundle

from full_size.curve import different_answers, run_curve
from full_size.duel import Duel, run_duel
from full_size.peers import Peers
from full_size.plots import draw
from full_size.prepare import SKEW, UNIFORM, Artifacts, prepare, set_gguf_skew
from full_size.service import THINKING_BUDGET, endure, start_seconds, think
from full_size.summary import markdown, resident_prefill_s, summary_of_curve, summary_of_duel
from full_size.systems import GIB, Prompts, System, bigmoeonedge, llama_cpp, moedge
from full_size.vision import vision_seconds

CAP_GIB, RESIDENT_CAP_GIB = 8, 20
CURVE_GIB = (4, 6, 8, 12, 20)
PEER_CURVE_DECODE_TOKENS = 8
FLASH_RECORDS, READERS = 300, 4
MIB = 1 << 20

FASTER_DECODE = {SKEW: 30.0, UNIFORM: 6.0}
FASTER_PREFILL = {SKEW: 2.3, UNIFORM: 1.8}
OVER_LIMIT = {SKEW: 1.35, UNIFORM: None}
RESIDENT_DECODE, RESIDENT_PREFILL = 0.95, 0.65
VISION_RATIO = 1.0
START_WARM_S, START_COLD_S = 10.0, 20.0
MOST_GROWTH_MIB = 16.0
"""Of the second half of an endurance run over the first: the noise of Python's heap and of glibc's arenas."""


class Run:
    """What all parts of one run share."""

    def __init__(
        self,
        directory: Path,
        *,
        tokenizer: Path,
        layers: int,
        rounds: int,
        frames: int,
        peers: Peers,
        say: Callable[[str], None],
    ) -> None:
        self.rounds, self.frames, self.peers, self.say = rounds, frames, peers, say
        self.directory, self.tokenizer, self.layers = directory, tokenizer, layers
        self._results = directory / f"results-{layers}"
        self._results.mkdir(parents=True, exist_ok=True)
        self._seed = 0
        self._artifacts: Artifacts | None = None
        for name, known in peers.missing().items():
            say(f"{name} is not installed and is skipped; measured elsewhere: {known}")

    @property
    def artifacts(self) -> Artifacts:
        """Bundles and the GGUF file, made if they are not there."""
        if self._artifacts is None:
            models = self.directory / f"models-{self.layers}"
            self._artifacts = prepare(models, self.tokenizer, self.layers, self.peers.python, self.say)
        return self._artifacts

    @property
    def threads(self) -> int:
        """Of every system."""
        return len(os.sched_getaffinity(0))

    def bandwidths(self) -> Bandwidths:
        """Of memory and flash, now."""
        self._seed += 1
        flash = flash_bandwidth(Bundle.open(self.artifacts.bundle), FLASH_RECORDS, READERS, self._seed)
        return Bandwidths(memory_bandwidth(self.threads), flash)

    def keep(self, name: str, content: Any) -> None:
        """Keep a part's figures for the table, the plots and later runs."""
        (self._results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def kept(self, name: str) -> Any:
        """Figures of a part, of this or an earlier run; None if it never ran."""
        path = self._results / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def duels(self) -> list[dict[str, Any]]:
        """Kept figures of all duels."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self._results.glob("duel-*.json"))]

    def resident_text_s(self) -> float | None:
        """Time of a text's prefill with all experts in memory, if that was measured."""
        resident = self.kept(f"duel-{RESIDENT_CAP_GIB}-skewed-llama")
        return None if resident is None else float(resident["ours"]["prefill_s"])

    def finish(self) -> None:
        """Write the table and the plots of all that is kept."""
        results = {"curve": self.kept("curve"), "duels": self.duels()}
        (self._results / "table.md").write_text(markdown(results), encoding="utf-8")
        paths = [self._results / "table.md", *draw(results, self._results)]
        self.say(f"wrote {', '.join(path.name for path in paths)} to {self._results}")


def export(run: Run) -> bool:
    """`moedge export` itself, killed and resumed too."""
    command = [sys.executable, "-m", "full_size.export", "--out", run.directory / "export", "--kill-whole"]
    sizes = ["--tokenizer", run.tokenizer, "--layers", str(run.layers)]
    return subprocess.run([*command, *sizes], check=False).returncode == 0


def resident(run: Run) -> bool:
    """Everything in memory on both sides: the same shape and bits."""
    cap, peer = RESIDENT_CAP_GIB * GIB, None
    if run.artifacts.gguf is not None and run.peers.python is not None:
        set_gguf_skew(run.peers.python, run.artifacts.gguf, SKEW)
        peer = llama_cpp(run.peers.python, run.artifacts.gguf, cap, run.threads, resident=True)
    duel = _duel(run, run.artifacts.same_bits, peer, routing="skewed", label="llama", cap_bytes=cap, resident=True)
    if peer is None:
        return True
    decode, prefill = ([1 / ratio for ratio in ratios] for ratios in (duel.decode_ratios(), duel.prefill_ratios()))
    ok = report("resident: decode over llama.cpp's", decode, "ratio", RESIDENT_DECODE)
    return ok & report("resident: prefill over llama.cpp's", prefill, "ratio", RESIDENT_PREFILL)


def capped(run: Run) -> bool:
    """A third of the model's memory, routing as measured."""
    return _against_mapped_file(run, run.artifacts.same_bits, SKEW, "skewed")


def uniform(run: Run) -> bool:
    """The same with uniform routing, the worst case of every cache."""
    return _against_mapped_file(run, run.artifacts.uniform, UNIFORM, "uniform")


def curve(run: Run) -> bool:
    """Frames with vision over memory budgets."""
    bundle = run.artifacts.bundle
    budgets = run_curve(bundle, CURVE_GIB, run.rounds, run.bandwidths)
    content = summary_of_curve(budgets, token_bytes(Bundle.open(bundle).manifest), resident_prefill_s(budgets))
    run.keep("curve", content)
    for budget in content:
        for name, frame in budget["frames"].items():
            label = f"{budget['cap_gib']} GiB, {name}"
            report(f"{label}: time to first token", [frame["first_token_s"]], "s", limit=frame["prefill_limit_s"])
            for window in frame["decode"]:
                tokens = f"tokens {window['first']} to {window['last']}, each"
                report(f"{label}: {tokens}", [1e3 * window["seconds"]], "ms", limit=1e3 * window["limit_s"])
        report(f"{budget['cap_gib']} GiB: peak memory", [budget["peak_bytes"] / MIB], "MiB", budget["cap_gib"] * 1024.0)
    return report("answers that differ between budgets", [different_answers(budgets)], "", 0)


def peer_curve(run: Run) -> bool:
    """Texts by moedge and the peers over the other budgets; no bounds."""
    for cap_gib in CURVE_GIB:
        if cap_gib not in (CAP_GIB, RESIDENT_CAP_GIB):
            for label, peer in _peers_from_file(run, cap_gib * GIB).items():
                _duel(
                    *(run, run.artifacts.same_bits, peer),
                    **{"routing": "skewed", "label": label, "cap_bytes": cap_gib * GIB},
                    **{"rounds": 1, "decode": PEER_CURVE_DECODE_TOKENS},
                )
    return True


def start(run: Run) -> bool:
    """From the start of the process to an engine that can answer, bundle checked."""
    bundle, cap = run.artifacts.bundle, CAP_GIB * GIB
    cold, warm = [], []
    for _ in range(run.rounds):
        cold.append(start_seconds(bundle, cap, cold=True))
        warm.append(start_seconds(bundle, cap, cold=False))
    run.keep("start", {"cold_s": cold, "warm_s": warm})
    ok = report("ready to answer, cold cache", cold, "s", START_COLD_S)
    return ok & report("ready to answer, warm cache", warm, "s", START_WARM_S)


def endurance(run: Run) -> bool:
    """Memory over hundreds of frames."""
    result = endure(run.artifacts.bundle, CAP_GIB * GIB, run.frames)
    run.keep("endurance", asdict(result))
    ok = report(f"{run.frames} frames: growth of memory", [result.growth_bytes / MIB], "MiB", MOST_GROWTH_MIB)
    most = max(result.anonymous_bytes) / MIB
    return ok & report(f"{run.frames} frames: most memory without page cache", [most], "MiB", CAP_GIB * 1024.0)


def thinking(run: Run) -> bool:
    """A thinking model keeps its budget, and its reasoning to itself."""
    thought = think(run.artifacts.thinking, CAP_GIB * GIB)
    run.keep("thinking", asdict(thought))
    ok = report(
        "thinking: tokens of reasoning",
        [thought.reasoning_tokens],
        "tokens",
        THINKING_BUDGET + thought.closing_tokens,
        answer_tokens=thought.answer_tokens,
    )
    return ok & report("thinking: reasoning in the published answer", [int(thought.leaked)], "", 0)


def vision(run: Run) -> bool:
    """The vision tower beside the same one under torch."""
    times = vision_seconds(run.artifacts.bundle, run.rounds)
    run.keep("vision", times)
    for name, values in times.items():
        report(f"vision tower, 640×352: {name}", values, "s")
    fastest = min(("torch float32", "torch bfloat16"), key=lambda name: statistics.median(times[name]))
    ratios = [ours / theirs for ours, theirs in zip(times["ours"], times[fastest], strict=True)]
    return report("vision tower: ours over torch's", ratios, "ratio", VISION_RATIO, beside=fastest)


PARTS: dict[str, Callable[[Run], bool]] = {
    "export": export,
    "resident": resident,
    "capped": capped,
    "uniform": uniform,
    "curve": curve,
    "peer-curve": peer_curve,
    "start": start,
    "endurance": endurance,
    "thinking": thinking,
    "vision": vision,
}
"""In the order in which they run: the limits of later ones use what `resident` has measured."""


def _against_mapped_file(run: Run, bundle: Path, skew: float, routing: str) -> bool:
    if run.artifacts.gguf is not None and run.peers.python is not None:
        set_gguf_skew(run.peers.python, run.artifacts.gguf, skew)
    cap, ok = CAP_GIB * GIB, True
    name = f"{CAP_GIB} GiB, {routing}"
    for label, peer in _peers_from_file(run, cap).items():
        duel = _duel(run, bundle, peer, routing=routing, label=label, cap_bytes=cap)
        bounded = label == "llama"
        if peer is not None:
            decode, prefill = (FASTER_DECODE[skew], FASTER_PREFILL[skew]) if bounded else (None, None)
            ok &= report(f"{name}: decode faster than {peer.name}", duel.decode_ratios(), "ratio", decode, "higher")
            ok &= report(f"{name}: prefill faster than {peer.name}", duel.prefill_ratios(), "ratio", prefill, "higher")
        if bounded:
            over = duel.decode_over_limit(token_bytes(Bundle.open(bundle).manifest))
            ok &= report(f"{name}: decode over its limit", over, "ratio", OVER_LIMIT[skew])
            over = duel.prefill_over_limit(run.resident_text_s())
            ok &= report(f"{name}: prefill over its limit", over, "ratio", OVER_LIMIT[skew])
    return ok


def _peers_from_file(run: Run, cap_bytes: int) -> dict[str, System | None]:
    """Peers that read the GGUF file, by label; without llama.cpp its place is taken by nobody."""
    gguf, peers = run.artifacts.gguf, run.peers
    found: dict[str, System | None] = {"llama": None}
    if gguf is not None and peers.python is not None:
        found["llama"] = llama_cpp(peers.python, gguf, cap_bytes, run.threads)
        if peers.bigmoeonedge is not None:
            found["bigmoeonedge"] = bigmoeonedge(peers.bigmoeonedge, gguf, cap_bytes, run.threads)
    return found


def _duel(
    run: Run, bundle: Path, peer: System | None, *, routing: str, label: str, cap_bytes: int, **options: Any
) -> Duel:
    """Run one, keep its figures and report both sides."""
    run.say(f"{routing} routing, {cap_bytes // GIB} GiB: moedge and {peer.name if peer else 'nobody'}")
    options = {"rounds": run.rounds} | options
    ours = moedge(bundle, cap_bytes, "--no-prefix")
    opened = Bundle.open(bundle)
    duel = run_duel(ours, peer, Prompts(opened), bandwidths=run.bandwidths, **options)
    compute_s = None if options.get("resident") else run.resident_text_s()
    content = summary_of_duel(duel, routing, token_bytes(opened.manifest), compute_s)
    run.keep(f"duel-{cap_bytes // GIB}-{routing}-{label}", content)
    name = f"{cap_bytes // GIB} GiB, {routing}"
    for who, frames in [("moedge", duel.ours)] + ([(peer.name, duel.theirs)] if peer else []):
        report(f"{name}: {who}, prefill", [frame.prefill_s for frame in frames], "s")
        report(f"{name}: {who}, a decoded token", [1e3 * frame.token_s for frame in frames], "ms")
        report(f"{name}: {who}, peak memory", [duel.peaks[who] / MIB], "MiB")
    return duel
