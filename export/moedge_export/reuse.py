"""Takes over parts of a finished bundle whose bytes would come out the same."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.bundle import Bundle, Manifest
from moedge_runtime.bundle.manifest import FileEntry
from moedge_runtime.bundle.verify import sha256_of
from moedge_runtime.errors import BundleError, ConfigError

logger = logging.getLogger(__name__)

NO_LINK_ERRORS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
"""What link(2) answers if the file must be copied: another file system, or one without hard links."""


@dataclass(frozen=True)
class Donor:
    """A finished bundle and those of its parts that the new one can have.

    Attributes:
        bundle: The bundle; never written to.
        parts: Parts of the quantization, at least one.
    """

    bundle: Bundle
    parts: frozenset[str]

    @classmethod
    def open(cls, path: Path, fingerprints: Mapping[str, str]) -> Donor:
        """Open the bundle `path`.

        Args:
            path: The bundle.
            fingerprints: By part, of the bundle that is to be made (`identity.part_fingerprints`).

        Raises:
            BundleError: It cannot be opened.
            ConfigError: Nothing of it fits.
        """
        bundle = Bundle.open(path)
        there = bundle.manifest.parts
        parts = frozenset(name for name, wanted in fingerprints.items() if there.get(name) == wanted)
        if not parts:
            raise ConfigError(
                f"No part of '{path}' can be reused: it was exported from other weights, with other options "
                f"({', '.join(fingerprints)} all differ), or by another version. Leave --reuse out.",
                key="config.reuse",
            )
        return cls(bundle, parts)

    def files(self) -> list[FileEntry]:
        """The files of the parts."""
        names = {name for part in self.parts for name in _part_files(self.bundle.manifest, part)}
        return [entry for entry in self.bundle.manifest.files if entry.path.removesuffix(".data") in names]

    def new_bytes(self, destination: Path) -> int:
        """Bytes that taking over does not write anew: all of them on the same file system, else none."""
        existing = destination.absolute()
        while not existing.exists():
            existing = existing.parent
        shared = existing.stat().st_dev == self.bundle.path.stat().st_dev
        return sum(entry.nbytes for entry in self.files()) if shared else 0

    def take_over(self, directory: Path) -> dict[str, FileEntry]:
        """Link, or copy, the files of the parts into `directory` after checking every byte; their entries by path.

        Raises:
            BundleError: A file is not what the bundle's manifest says.
        """
        logger.info("Checking and reusing %s of '%s'.", ", ".join(sorted(self.parts)), self.bundle.path)
        for entry in self.files():
            source, target = self.bundle.file(entry.path), directory / entry.path
            if sha256_of(source) != entry.sha256:
                raise BundleError(
                    f"Bundle '{self.bundle.path}' is damaged: SHA-256 differs from the manifest for '{entry.path}'. "
                    f"Leave --reuse out, or copy the bundle again.",
                    key="bundle.checksum_mismatch",
                )
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in NO_LINK_ERRORS:
                    raise
                shutil.copyfile(source, target)
        return {entry.path: entry for entry in self.files()}


def _part_files(manifest: Manifest, part: str) -> list[str]:
    """Names of a part's files, without `.data`."""
    graphs = manifest.graphs
    files: dict[str, list[str | None]] = {
        "embedding": [manifest.embedding.file],
        "attention": [*graphs.layers],
        "head": [graphs.head],
        "vision": [graphs.vision],
        "experts": [manifest.experts.file if manifest.experts else None],
    }
    return [name for name in files[part] if name]
