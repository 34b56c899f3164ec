"""Records of experts to measure with where there is no bundle: a layer of Qwen3-VL-30B-A3B, random weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
import numpy as np
from moedge_runtime.bundle import Bundle, ExpertsInfo
from moedge_runtime.errors import StorageError

from moedge_devices.plan.models import known_models, planned_manifest

MODEL = "qwen3-vl-30b-a3b"
SCALE = 0.02
"""Of every block: weights of a standard deviation near 0.05, as a trained layer of this width has."""


@contextmanager
def probe_bundle(directory: Path, experts: int) -> Iterator[Bundle]:
    """A bundle of `experts` records in a folder of `directory`, removed at the end.

    Args:
        directory: On the disk to measure.
        experts: 8 at least; each has 2.65 MB.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".moedge-doctor-", dir=directory) as folder:
            yield write_probe(Path(folder), experts)
    except OSError as error:
        raise StorageError(
            f"Nothing can be written to '{directory}' to measure its disk ({error.strerror}). Give another directory "
            f"with --directory, or a bundle with --bundle.",
            key="doctor.unwritable",
        ) from error


def write_probe(directory: Path, experts: int) -> Bundle:
    """Write the records and describe them; nothing of the bundle but experts.bin exists."""
    shape = known_models()[MODEL]
    text = shape.text.model_copy(update={"num_hidden_layers": 1, "moe_layers": [0], "num_experts": experts})
    manifest = planned_manifest(shape.model_copy(update={"text": text}), "int4")
    info = manifest.experts
    assert info is not None, "a planned manifest has records"
    bundle = Bundle(directory, manifest)
    random = np.random.default_rng(0)
    record = np.zeros(info.record_bytes, np.uint8)
    checksums = []
    with (directory / info.file).open("wb") as file:
        for _ in range(experts):
            for section in bundle.expert_layout.sections:
                part = record[section.offset : section.offset + section.nbytes]
                if section.name.endswith("scale"):
                    part.view(np.float16)[...] = SCALE
                else:
                    part[...] = random.integers(0, 256, section.nbytes, np.uint8)
            file.write(record.data)
            checksums.append(google_crc32c.value(record.tobytes()))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    written = ExpertsInfo(file=info.file, record_bytes=info.record_bytes, sections=info.sections, crc32c=[checksums])
    return Bundle(directory, manifest.model_copy(update={"experts": written}))
