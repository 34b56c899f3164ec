"""The systems that are compared, each a process under a memory cap that answers texts of an exact number of tokens."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from expert_core.capped import CappedProcess
from moedge_runtime.bench.frame import FrameMeasurement, Share
from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.check import RequestChecker

from full_size.prompt import text_of, words_of

PEERS = Path(__file__).parent.parent / "peers"
GIB = 1 << 30

BIGMOE_REST_MIB = 2200
"""What BigMoeOnEdge needs besides its cache of experts; with 6,000 MiB of cache it was at its best under 8 GiB."""
BIGMOE_LEAST_CACHE_MIB, EXPERTS_MIB = 1500, 16300


@dataclass(frozen=True)
class System:
    """Something that can be started under a cap.

    Attributes:
        name: As tables call it.
        command: Starts it; it then answers JSON with JSON, a line each.
        cap_bytes: Of its memory and page cache.
        lead_in: Frames at the start of every turn that are not measured; the measured one follows at once.
    """

    name: str
    command: tuple[str, ...]
    cap_bytes: int
    lead_in: int = 0


@dataclass(frozen=True)
class TextFrame:
    """A text answered, in seconds and bytes.

    Attributes:
        detail: What only moedge tells; None for others.
    """

    prefill_tokens: int
    prefill_s: float
    prefill_read_bytes: int
    decode_s: list[float]
    decode_read_bytes: list[int]
    detail: FrameMeasurement | None = None

    @property
    def token_s(self) -> float:
        """Mean time of a decoded token."""
        return sum(self.decode_s) / len(self.decode_s)


class Running(AbstractContextManager["Running"]):
    """A started system.

    Args:
        system: What to start.
        cold: Drop the page cache first: pages that others have cached are not charged to the group.

    Attributes:
        started: When the process was started, as `time.perf_counter` has it.
    """

    def __init__(self, system: System, *, cold: bool = True) -> None:
        if cold:
            drop_caches()
        self.system = system
        self.started = perf_counter()
        self._process = CappedProcess(system.command, system.cap_bytes, _environment())

    def ask(self, **wanted: Any) -> dict[str, Any]:
        """Send one request; its answer."""
        answer: dict[str, Any] = json.loads(self._process.ask(json.dumps(wanted)))
        return answer

    def anonymous_bytes(self) -> int:
        """Memory of the group without page cache, now."""
        return self._process.anonymous_bytes()

    def peak_bytes(self) -> int:
        """Most memory of the group so far, page cache included."""
        return self._process.peak_bytes()

    def __exit__(self, *error: Any) -> None:
        self._process.__exit__(None, None, None)


class Prompts:
    """Texts of exactly so many tokens, for peers that take text."""

    def __init__(self, bundle: Bundle) -> None:
        tokenizer = RequestChecker(bundle, 1024).tokenizer
        self._count: Callable[[str], int] = lambda text: len(tokenizer.encode(text))
        self._words = words_of(bundle.manifest.model.text.vocab_size, lambda token: tokenizer.decode([token]))

    def text(self, tokens: int, seed: int) -> str:
        """The same for the same seed."""
        return text_of(tokens, self._words, self._count, seed)


def moedge(bundle: Path, cap_bytes: int, *options: str) -> System:
    """Ours, with a memory budget of the whole cap."""
    command = (sys.executable, "-m", "full_size.worker", str(bundle), "--memory", str(cap_bytes), *options)
    return System("moedge", command, cap_bytes, lead_in=1)


def llama_cpp(python: Path, gguf: Path, cap_bytes: int, threads: int, *, resident: bool = False) -> System:
    """llama.cpp from its mapped file, or with its weights repacked in memory."""
    command = (str(python), str(PEERS / "llama_cpp_server.py"), str(gguf), "--threads", str(threads))
    if resident:
        return System("llama.cpp, resident", command, cap_bytes)
    return System("llama.cpp, mapped file", (*command, "--no-repack"), cap_bytes)


def bigmoeonedge(program: Path, gguf: Path, cap_bytes: int, threads: int) -> System:
    """BigMoeOnEdge with a cache of experts that fills the cap."""
    cache_mib = max(BIGMOE_LEAST_CACHE_MIB, min(EXPERTS_MIB, (cap_bytes >> 20) - BIGMOE_REST_MIB))
    server = (sys.executable, str(PEERS / "bigmoeonedge_server.py"), str(program), str(gguf))
    return System("BigMoeOnEdge", (*server, "--cache-mib", str(cache_mib), "--threads", str(threads)), cap_bytes)


def answer_text(running: Running, prompts: Prompts, tokens: int, decode: int, seed: int) -> TextFrame:
    """Let a system prefill a text of `tokens` tokens and decode `decode` more.

    Raises:
        SystemExit: It prefilled another number of tokens.
    """
    if running.system.name == "moedge":
        frame = frame_of(running.ask(do="text", tokens=tokens, seed=seed, decode=decode))
        answer = TextFrame(
            frame.prefill_tokens,
            frame.prefill.seconds,
            frame.prefill.read_bytes or 0,
            [share.seconds for share in frame.decode],
            [share.read_bytes or 0 for share in frame.decode],
            frame,
        )
    else:
        prompt = prompts.text(tokens, seed)
        answer = TextFrame(**running.ask(prompt=prompt, tokens=tokens, seed=seed, decode=decode))
    if answer.prefill_tokens != tokens or not answer.decode_s:
        raise SystemExit(
            f"{running.system.name} prefilled {answer.prefill_tokens} tokens and decoded {len(answer.decode_s)}; "
            f"{tokens} and {decode} were asked for."
        )
    return answer


def ask_frame(running: Running, seed: int, decode: int) -> FrameMeasurement:
    """Let moedge answer about a picture."""
    return frame_of(running.ask(do="frame", seed=seed, decode=decode))


def frame_of(answer: dict[str, Any]) -> FrameMeasurement:
    """A measurement that came as JSON."""
    return FrameMeasurement(
        **answer | {"prefill": Share(**answer["prefill"]), "decode": [Share(**share) for share in answer["decode"]]}
    )


def drop_caches() -> None:
    """Write out and forget the page cache, as root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
