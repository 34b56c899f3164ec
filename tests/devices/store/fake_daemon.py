"""`moedge run` whose model is in head.onnx: `python fake_daemon.py CONFIG`.

`broken` cannot be loaded, `mute` fails on every frame, `deadly` kills the process when it is loaded, all else answers.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig, load_config
from moedge_runtime.daemon.process import run_process
from moedge_runtime.errors import BundleError, RequestError
from runtime.daemon.fakes import FakeAnswerer


class Model(FakeAnswerer):
    """What head.onnx says."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    @classmethod
    def open(cls, bundle: Bundle, config: ModelConfig) -> "Model":
        word = bundle.file("head.onnx").read_text().split()[0]
        if word == "broken":
            raise BundleError("This fake does not load.", key="bundle.fake")
        if word == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return cls(word)

    def ask(self, *arguments, **options):  # type: ignore[no-untyped-def]
        if self.word == "mute":
            raise RequestError("This fake does not answer.", key="request.fake")
        return super().ask(*arguments, **options)


if __name__ == "__main__":
    sys.exit(run_process(load_config(sys.argv[1]), Model.open, log_level="info"))
