"""Which records the core has read, in order: a preloaded library (reads.c) notes every read of the process."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

MOST_READS = 1 << 16
READ = np.dtype([("offset", np.uint64), ("bytes", np.int64)])
"""As in reads.c."""


def build_read_log(directory: Path) -> Path:
    """Compile the library; it is to be in LD_PRELOAD of the process that calls `take_reads`.

    Raises:
        SystemExit: There is no C compiler.
    """
    library = directory.resolve() / "reads.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("reads.c"))]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"The core's reads cannot be noted without a C compiler: {error}. Install gcc.") from error
    return library


def take_reads() -> npt.NDArray[np.void]:
    """Every read since the last call, in the order in which they began: [reads] of `READ`."""
    reads = np.empty(MOST_READS, READ)
    count: int = ctypes.CDLL(None).take_reads(ctypes.c_void_p(reads.ctypes.data), MOST_READS)
    if count > MOST_READS:
        raise OverflowError(f"{count:,} reads are more than the {MOST_READS:,} that can be noted")
    return np.array(reads[:count])


def missed_records(
    reads: npt.NDArray[np.void], record_bytes: int, read_bytes: int, used: npt.NDArray[np.bool_]
) -> list[int]:
    """The records that were read and then used, in the order of their reading.

    Args:
        reads: What `take_reads` gave.
        record_bytes: Of each record; it is read in parts, the first of which begins at its first byte. One that was
            begun and is no longer wanted has no second part.
        read_bytes: What the core says it has read in the same time.
        used: bool [records], whether a token has chosen it.

    Raises:
        ValueError: The core says something else than its reads do.
    """
    noted = int(reads["bytes"].sum())
    records = (reads["offset"][reads["offset"] % record_bytes == 0] // record_bytes).astype(np.int64)
    if noted != read_bytes:
        raise ValueError(f"the core says that it read {read_bytes:,} bytes; noted were {noted:,}")
    return [int(record) for record in records[used[records]]]
