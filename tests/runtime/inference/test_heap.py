import subprocess
import sys

import pytest

PROGRAM = """
import re
from pathlib import Path
import numpy as np
from moedge_runtime.inference.heap import return_large_blocks
MIB = 1 << 20
def own_mib():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
{call}
large = np.ones(30 * MIB, np.uint8)
del large  # from here on glibc would keep blocks of up to 30 MiB
before, blocks, small = own_mib(), [], []
for _ in range(32):
    blocks.append(np.ones(4 * MIB, np.uint8))
    small.append(np.ones(MIB // 16, np.uint8))
del blocks
print(own_mib() - before)
"""


@pytest.mark.parametrize(("call", "least", "most"), [("return_large_blocks()", 0, 16), ("", 100, 200)])
def test_large_blocks_go_back_to_the_system_and_would_not_by_themselves(call, least, most):
    program = [sys.executable, "-c", PROGRAM.format(call=call)]
    kept = float(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    assert least <= kept <= most
