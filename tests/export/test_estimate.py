"""The estimate made before the export is never too small, and close for what is large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from export.conftest import Exporter
from moedge_export.architecture import read_architecture
from moedge_export.checkpoint import open_checkpoint
from moedge_export.estimate import ASSETS_BYTES, GRAPH_BYTES, bundle_bytes, check_room
from moedge_export.options import ExportOptions
from moedge_runtime.errors import StorageError
from transformers import Qwen3VLMoeConfig

HUB_TEXT = {
    "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "vocab_size": 151936,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
}  # fmt: skip


@pytest.mark.parametrize("form", ["paged", "inline"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_estimate_bounds_the_bundle(
    form: Any, precision: Any, checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    options = ExportOptions(precision=precision, form=form, symmetric=False)
    architecture = open_checkpoint(checkpoint[0]).architecture
    estimate = bundle_bytes(architecture, options.quantization(), form)
    bundle = export(checkpoint[0], precision=precision, form=form, symmetric=False)
    written = sum(entry.nbytes for entry in bundle.manifest.files)
    assert written < estimate < written + ASSETS_BYTES + 7 * GRAPH_BYTES + 1_000_000


def test_the_large_model_at_int4_needs_18_gigabytes() -> None:
    config = Qwen3VLMoeConfig(text_config=HUB_TEXT, vision_config={"out_hidden_size": 2048})
    architecture = read_architecture(config)
    estimate = bundle_bytes(architecture, ExportOptions(precision="int4").quantization(), "paged")
    assert 18.0e9 < estimate < 19.0e9


def test_a_disk_that_is_too_small_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"needs up to 1,000,000,000 MB; its disk has [\d,]+ MB free. Free space"):
        check_room(tmp_path / "not" / "there" / "yet", 10**15)
