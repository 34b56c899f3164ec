from pathlib import Path

import pytest
from fixtures_checkpoint import save_checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint whose second decoder layer is dense."""
    folder = tmp_path_factory.mktemp("inference") / "checkpoint"
    save_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def paged(checkpoint: Path) -> Path:
    """The checkpoint as a paged bundle in float32."""
    destination = checkpoint.with_name("paged-fp32")
    export_bundle(checkpoint, destination, ExportOptions(precision="fp32", form="paged"))
    return destination


@pytest.fixture(scope="session")
def inline(checkpoint: Path) -> Path:
    """The checkpoint as an inline bundle in float32."""
    destination = checkpoint.with_name("inline-fp32")
    export_bundle(checkpoint, destination, ExportOptions(precision="fp32", form="inline"))
    return destination


@pytest.fixture(scope="session")
def paged_int4(checkpoint: Path) -> Path:
    """The checkpoint as a paged bundle with experts of four bits and zero points."""
    destination = checkpoint.with_name("paged-int4")
    export_bundle(checkpoint, destination, ExportOptions(precision="int4", form="paged", symmetric=False))
    return destination


@pytest.fixture(scope="session")
def inline_int4(checkpoint: Path) -> Path:
    """The same numbers as `paged_int4` as an inline bundle, activations in float32."""
    destination = checkpoint.with_name("inline-int4")
    options = ExportOptions(precision="int4", form="inline", symmetric=False, activations="fp32")
    export_bundle(checkpoint, destination, options)
    return destination
