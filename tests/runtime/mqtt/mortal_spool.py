"""A process that spools until it kills itself: `python mortal_spool.py DIRECTORY POINT TIMES`.

POINT is a step of SpoolFiles with before, half or after, TIMES how often it is passed alive. Every message that is kept
or delivered is a line on standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from moedge_runtime.mqtt.spool import Spool
from moedge_runtime.mqtt.spool_files import SpoolFiles

STEPS = ("create", "append", "sync", "sync_directory", "close_segment", "delete", "save_cursor")


class MortalFiles(SpoolFiles):
    def __init__(self, directory: Path, point: str, times: int) -> None:
        super().__init__(directory)
        self._point, self._times = point, times

    def pass_by(self, point: str) -> None:
        if point == self._point:
            self._times -= 1
            if self._times < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def append(self, descriptor: int, content: bytes) -> None:
        half = len(content) // 2
        super().append(descriptor, content[:half])
        self.pass_by("append.half")
        super().append(descriptor, content[half:])


def _watched(step: str) -> Any:
    original = getattr(MortalFiles, step)

    def method(self: MortalFiles, *arguments: Any) -> Any:
        self.pass_by(f"{step}.before")
        result = original(self, *arguments)
        self.pass_by(f"{step}.after")
        return result

    return method


for name in STEPS:
    setattr(MortalFiles, name, _watched(name))


def main(directory: Path, point: str, times: int) -> None:
    spool = Spool(directory, max_bytes=1 << 20, max_age_s=3600, files=MortalFiles(directory, point, times))
    number = 0
    for _ in range(200):
        for count in (1, 5):
            numbers = range(number, number + count)
            spool.append([("t", b"%d" % one + b"." * 2000) for one in numbers])
            number += count
            for one in numbers:
                print("kept", one, flush=True)
        for _ in range(4):
            record = spool.read()
            assert record is not None
            print("delivered", record.payload.partition(b".")[0].decode(), flush=True)
            spool.delivered(record.sequence)
    while (record := spool.read()) is not None:
        print("delivered", record.payload.partition(b".")[0].decode(), flush=True)
        spool.delivered(record.sequence)
    print("survived", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
