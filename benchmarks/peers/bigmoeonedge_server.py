"""BigMoeOnEdge as a measured process: keeps `bmoe-cli --session`; a line of JSON answers every line of JSON.

    python bigmoeonedge_server.py bmoe-cli full.gguf --cache-mib 6000 --threads 2

`{"prompt": "…", "tokens": 220, "decode": 24}` prefills the prompt, which has to have so many tokens, and decodes
greedily. The times are those that bmoe-cli reports, the bytes are the kernel's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

LANES = 4
LOG_LINES = 30


def measured(lines: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """What one generation took.

    Args:
        lines: Of bmoe-cli's output from the request on, each with the bytes that its process had read by then.

    Raises:
        SystemExit: bmoe-cli reports an error, or ends.
    """
    at_begin = at_prefill = last = None
    seconds: list[float] = []
    read: list[int] = []
    for line, total in lines:
        kind, _, content = line.partition(" ")
        if kind == "BMOE_BEGIN":
            at_begin = last = total
        elif kind == "BMOE_PROGRESS":
            assert last is not None
            seconds.append(json.loads(content)["wall_ms"] / 1e3)
            read.append(total - last)
            last = total
            at_prefill = total if at_prefill is None else at_prefill
        elif kind == "BMOE_ERROR":
            raise SystemExit(f"bmoe-cli failed: {json.loads(content)['msg']}")
        elif kind == "BMOE_DONE":
            done = json.loads(content)
            assert at_begin is not None
            return {
                "prefill_tokens": done["n_prompt"],
                "prefill_s": done["prefill_s"],
                # Nothing is printed between prefill and first token: that token's few bytes are in here.
                "prefill_read_bytes": (at_prefill or at_begin) - at_begin,
                "decode_s": seconds,
                "decode_read_bytes": [0, *read[1:]] if read else [],
            }
    raise SystemExit("bmoe-cli ended in the middle of an answer.")


def read_bytes(process: int) -> int:
    """Bytes that `process` has made disks read."""
    lines = Path(f"/proc/{process}/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def command(arguments: argparse.Namespace) -> list[str]:
    """The command line of bmoe-cli."""
    return [
        *(arguments.program, "-m", arguments.model, "--session", "--moe-stream", "--no-think"),
        *("--cache-mb", str(arguments.cache_mib), "--io-threads", str(LANES)),
        *("-t", str(arguments.threads), "-c", str(arguments.context), "--ubatch", "512"),
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--cache-mib", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    arguments = parser.parse_args()
    # A model with random weights writes halves of characters; its log, hundreds of lines, is shown if it fails.
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "encoding": "utf-8",
        "errors": "replace",
    }
    with TemporaryFile() as log, subprocess.Popen(command(arguments), stderr=log, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = process.stdout

        def lines() -> Iterator[tuple[str, int]]:
            for line in answers:
                yield line.rstrip("\n"), read_bytes(process.pid)

        try:
            if not next(iter(answers), "").startswith("BMOE_READY"):
                raise SystemExit("bmoe-cli did not start.")
            for line in sys.stdin:
                wanted = json.loads(line)
                request = {"cmd": "generate", "id": 1, "prompt": wanted["prompt"], "n_predict": wanted["decode"]}
                print(json.dumps(request), file=process.stdin, flush=True)
                print(json.dumps(measured(lines())), flush=True)
        except SystemExit:
            log.seek(0)
            sys.stderr.writelines(line.decode("utf-8", "replace") for line in log.readlines()[-LOG_LINES:])
            raise
        process.stdin.close()


if __name__ == "__main__":
    main()
