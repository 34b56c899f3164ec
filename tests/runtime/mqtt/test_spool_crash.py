"""kill -9 at every step that the spool does on the disk: nothing that was kept is lost, next to nothing comes twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from moedge_runtime.mqtt.spool import Spool

SCRIPT = Path(__file__).with_name("mortal_spool.py")
POINTS = [
    *(f"{step}.{when}" for step in ("create", "append", "sync", "sync_directory") for when in ("before", "after")),
    "append.half",
    *(f"{step}.{when}" for step in ("close_segment", "delete", "save_cursor") for when in ("before", "after")),
]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_nothing_that_was_kept(tmp_path: Path, point: str) -> None:
    times = {"append": 23, "sync": 23, "save_cursor": 31}.get(point.partition(".")[0], 2)
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "spool"), point, str(times)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    said = [line.split() for line in run.stdout.splitlines()]
    kept = {int(number) for word, number in said if word == "kept"}
    delivered = {int(number) for word, number in said if word == "delivered"}
    spool = Spool(tmp_path / "spool", max_bytes=1 << 20, max_age_s=3600)
    served = []
    while (record := spool.read()) is not None:
        served.append(int(record.payload.partition(b".")[0]))
        spool.delivered(record.sequence)
    assert kept - delivered <= set(served), "nothing is lost"
    assert served == sorted(set(served)), "in order, each once"
    assert len(set(served) & delivered) <= 1, "only the one under way comes twice"
    assert spool.messages == 0
    spool.append([("t", b"after the crash")])
    record = spool.read()
    assert record is not None and record.payload == b"after the crash"
    spool.close()
