"""The inline form needs nothing of ours: the example that runs it imports ONNX Runtime, numpy, Pillow, tokenizers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from moedge_export.options import ExportOptions, PrecisionName
from moedge_export.pipeline import export_bundle
from moedge_runtime.inference import AskRequest, Engine
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "stock_onnxruntime.py"
QUESTION = "Report the panel as JSON."
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not [name for name in sys.modules if name.startswith("moedge")]
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame of the demo video in a size that the image processor leaves alone."""
    path = tmp_path_factory.mktemp("picture") / "frame.png"
    with av.open(str(ROOT / "examples" / "panel" / "video" / "panel.mp4")) as container:
        next(container.decode(video=0)).to_image().resize((256, 128)).save(path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_stock_onnxruntime_gives_the_answer_that_moedge_gives(
    precision: PrecisionName, picture: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "inline"
    checkpoint = ROOT / "examples" / "panel" / "checkpoint"
    export_bundle(checkpoint, bundle, ExportOptions(precision=precision, form="inline"))
    stock = subprocess.run(
        [sys.executable, "-c", RUN, str(EXAMPLE), str(bundle), str(picture), QUESTION],
        capture_output=True,
        text=True,
        check=True,
    )
    with Engine.open(bundle) as engine:
        ours = engine.ask(AskRequest(QUESTION, [np.asarray(Image.open(picture).convert("RGB"))]))
    assert stock.stdout.strip() == ours.text
    assert ours.finish_reason == "stop"
