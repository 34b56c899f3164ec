"""`moedge run` with the fake answerer: `python fake_daemon.py CONFIG [--exit-when-done] [--patient]`.

Prints what it imported. A patient daemon waits for an hour for an answer under way when it is told to stop.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from moedge_runtime.config import load_config
from moedge_runtime.daemon import service
from moedge_runtime.daemon.process import run_process
from runtime.daemon.fakes import FakeAnswerer

if __name__ == "__main__":
    if "--patient" in sys.argv:
        service.FINISH_S = 3600.0
    code = run_process(
        load_config(sys.argv[1]), FakeAnswerer.open, exit_when_done="--exit-when-done" in sys.argv, log_level="info"
    )
    print("modules:", *sorted({name.partition(".")[0] for name in sys.modules}))
    sys.exit(code)
