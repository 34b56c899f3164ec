"""`moedge verify --against` measures what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from export.conftest import Exporter
from moedge_export.compare import compare_logits, compare_with_transformers


def test_a_float32_bundle_agrees_everywhere(checkpoint: tuple[Path, Any], export: Exporter) -> None:
    figures: Any = compare_with_transformers(export(checkpoint[0], precision="fp32"), str(checkpoint[0]))
    for prompt in ("text", "picture"):
        assert figures[f"{prompt}_relative_difference"] < 1e-4
        assert figures[f"{prompt}_top1_agreement"] == 1.0
        assert figures[f"{prompt}_positions"] > 20


def test_figures_of_known_logits() -> None:
    expected = np.array([[0.0, 10.0], [4.0, 2.0]], np.float32)
    comparison = compare_logits(np.array([[0.0, 9.0], [1.0, 2.0]], np.float32), expected)
    assert (comparison.max_difference, comparison.logit_range) == (3.0, 10.0)
    assert (comparison.relative_difference, comparison.top1_agreement, comparison.positions) == (0.3, 0.5, 2)
