"""Checkpoints and bundles that several tests of the export share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from export.random_checkpoint import SHAPES, save_random_checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bundle import Bundle

Exporter = Callable[..., Bundle]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint of the first shape and its transformers model; do not change either."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    return folder, save_random_checkpoint(folder, next(iter(SHAPES.values())))


@pytest.fixture
def export(tmp_path: Path) -> Exporter:
    """Exports a checkpoint with given `ExportOptions` and opens the bundle."""

    def run(folder: Path, **options: Any) -> Bundle:
        destination = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
        export_bundle(folder, destination, ExportOptions(**options))
        return Bundle.open(destination)

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Rewrite tests/export/golden/.")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden", default=False))
