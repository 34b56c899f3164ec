"""llama.cpp as a measured process: loads a GGUF file, then answers a line of JSON for every line of JSON that it gets.

    python llama_cpp_server.py full.gguf --threads 2 [--no-repack]      # needs llama-cpp-python and numpy

`{"tokens": 220, "seed": 1, "decode": 24}` prefills so many random tokens and decodes random ones. `--no-repack` keeps
the weights in the mapped file; llama.cpp's default copies Q4_0 weights into anonymous memory, which a capped machine
cannot hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

FIRST_TOKEN, LAST_TOKEN = 2, 151000
BATCH_TOKENS = 512


def read_bytes() -> int:
    """Bytes that this process has made disks read."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


class Llama:
    """One model with one context."""

    def __init__(self, path: str, threads: int, context: int, repack: bool) -> None:
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)  # it logs hundreds of lines about a model
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        model.use_extra_bufts = repack
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), model)
        if not self._model:
            raise SystemExit(f"llama.cpp cannot load '{path}'.")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, BATCH_TOKENS, BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)

    def answer(self, tokens: int, seed: int, decode: int) -> dict[str, Any]:
        """Prefill and decode random tokens; seconds and bytes of the prefill and of each decoded token."""
        rng = np.random.default_rng(seed)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        prefill = self._timed(rng.integers(FIRST_TOKEN, LAST_TOKEN, tokens).tolist())
        steps = [self._timed([int(rng.integers(FIRST_TOKEN, LAST_TOKEN))]) for _ in range(decode)]
        return {
            "prefill_tokens": tokens,
            "prefill_s": prefill[0],
            "prefill_read_bytes": prefill[1],
            "decode_s": [seconds for seconds, _ in steps],
            "decode_read_bytes": [read for _, read in steps],
        }

    def _timed(self, tokens: list[int]) -> tuple[float, int]:
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch only points at it
        read, start = read_bytes(), time.perf_counter()
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(ids, len(tokens))) != 0:
            raise SystemExit("llama_decode failed.")
        llama_cpp.llama_synchronize(self._context)
        return time.perf_counter() - start, read_bytes() - read


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--no-repack", action="store_true")
    arguments = parser.parse_args()
    llama = Llama(arguments.model, arguments.threads, arguments.context, not arguments.no_repack)
    for line in sys.stdin:
        wanted = json.loads(line)
        print(json.dumps(llama.answer(wanted["tokens"], wanted["seed"], wanted["decode"])), flush=True)


if __name__ == "__main__":
    main()
