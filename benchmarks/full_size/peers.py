"""Which peers are there: what benchmarks/peers/install.sh has made, and what is known of those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PUBLISHED = {
    "llama.cpp": "8 GiB cap, skew 1.7: prefill 24.6 s, 3.5 s a token from its mapped file",
    "BigMoeOnEdge": "8 GiB cap, skew 1.7: prefill 20.1 s, 128 ms a token",
    "ik_llama.cpp": "8 GiB cap, skew 1.7, --prefetch-experts: prefill 18.4 s, 5.4 s a token",
}
"""Measured on 2026-11-23 on 2 cores of an AMD EPYC: no replacement for a run on this machine."""


@dataclass(frozen=True)
class Peers:
    """Where they are; None for one that is not.

    Attributes:
        python: Has llama-cpp-python and gguf.
        bigmoeonedge: bmoe-cli.
    """

    python: Path | None
    bigmoeonedge: Path | None

    def missing(self) -> dict[str, str]:
        """What is known of those that do not run, by name."""
        there = {"llama.cpp": self.python, "BigMoeOnEdge": self.bigmoeonedge, "ik_llama.cpp": None}
        return {name: PUBLISHED[name] for name, path in there.items() if path is None}


def find_peers(directory: Path) -> Peers:
    """Look for them."""
    python, program = directory / "venv" / "bin" / "python", directory / "bin" / "bmoe-cli"
    return Peers(python if python.exists() else None, program if program.exists() else None)
