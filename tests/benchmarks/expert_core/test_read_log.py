from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from expert_core.read_log import READ, build_read_log, missed_records

RECORD_BYTES = 100
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def reads(*records: int) -> np.ndarray:
    """Each record in two parts, as the core reads it."""
    parts = [(record * RECORD_BYTES + begin, end - begin) for record in records for begin, end in ((0, 60), (60, 100))]
    return np.array(parts, READ)


def used(*records: int) -> np.ndarray:
    return np.isin(np.arange(10), records)


def test_missed_records_keep_the_order_in_which_they_were_read() -> None:
    assert missed_records(reads(7, 2, 5), RECORD_BYTES, 300, used(2, 5, 7)) == [7, 2, 5]


def test_a_record_that_was_read_twice_was_missed_twice() -> None:
    assert missed_records(reads(3, 3), RECORD_BYTES, 200, used(3)) == [3, 3]


def test_what_was_read_ahead_in_vain_was_not_missed() -> None:
    assert missed_records(reads(1, 2), RECORD_BYTES, 200, used(2, 9)) == [2]


@pytest.mark.parametrize("read_bytes", [100, 300])
def test_reads_that_are_not_what_the_core_says_are_an_error(read_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"the core says that it read {read_bytes} bytes; noted were 200"):
        missed_records(reads(1, 2), RECORD_BYTES, read_bytes, used(1, 2))


def test_a_record_that_was_begun_and_given_up_was_missed_if_it_is_used() -> None:
    assert missed_records(reads(1, 2)[:3], RECORD_BYTES, 160, used(1)) == [1]


def test_the_preloaded_library_notes_what_a_process_reads_and_forgets_what_was_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    script = """
import json, os, sys
from expert_core.read_log import take_reads
file = os.open(sys.argv[1], os.O_RDONLY)
os.pread(file, 10, 5)
take_reads()
os.pread(file, 300, 400), os.pread(file, 200, 900)
print(json.dumps([take_reads().tolist(), take_reads().tolist()]))
"""
    env = os.environ | {"LD_PRELOAD": str(build_read_log(tmp_path)), "PYTHONPATH": str(BENCHMARKS)}
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    noted = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert json.loads(noted) == [[[400, 300], [900, 100]], []]
