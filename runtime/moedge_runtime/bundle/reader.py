"""Opens a bundle for reading: validates the manifest and answers where things are."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from moedge_runtime.bundle.experts import ExpertLayout
from moedge_runtime.bundle.manifest import FORMAT_VERSION, FileEntry, Manifest
from moedge_runtime.errors import BundleError

MANIFEST_NAME = "manifest.json"
CHECKSUM_NAME = "manifest.json.sha256"
"""SHA-256 of manifest.json as `sha256sum` writes it; the manifest holds those of all other files."""


class Bundle:
    """An opened bundle. Opening reads manifest.json and checks every file's size, not its content.

    Attributes:
        path: The bundle's directory.
        manifest: The validated manifest.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open the bundle in directory `path`.

        Raises:
            BundleError: `path` is no bundle, has another format version, or a file is missing or of another size.
        """
        bundle = cls(Path(path), read_manifest(Path(path)))
        for entry in bundle.manifest.files:
            _check_size(bundle, entry)
        experts = bundle.manifest.experts
        if experts is not None and not bundle.expert_layout.matches(experts):
            raise BundleError(
                f"Bundle '{path}' lists expert records of {experts.record_bytes} bytes; its own shape and precision "
                f"give {bundle.expert_layout.record_bytes}. The manifest was changed: copy or export the bundle again.",
                key="bundle.manifest_inconsistent",
            )
        return bundle

    def file(self, relative: str) -> Path:
        """Absolute path of a file of the bundle."""
        return self.path / relative

    def json(self, relative: str) -> dict[str, Any]:
        """A JSON object stored in the bundle, e.g. `preprocessor_config.json`; {} if the bundle has no such file."""
        if not any(entry.path == relative for entry in self.manifest.files):
            return {}
        content = json.loads(self.file(relative).read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    @cached_property
    def expert_layout(self) -> ExpertLayout:
        """Layout of the records in experts.bin."""
        text = self.manifest.model.text
        return ExpertLayout(text.hidden_size, text.moe_intermediate_size, self.manifest.quantization.experts)


def read_manifest(path: Path) -> Manifest:
    """Read and validate `path`/manifest.json.

    Raises:
        BundleError: There is none, it cannot be read or is not as written, it has another format version, or a value
            is out of range.
    """
    try:
        content = (path / MANIFEST_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"'{path}' is no moedge bundle: it has no {MANIFEST_NAME}. Give the directory that `moedge export` wrote.",
            key="bundle.not_found",
        ) from None
    except OSError as error:
        raise unreadable(path, MANIFEST_NAME, error) from error
    _check_manifest(path, content)
    return parse_manifest(path, content)


def parse_manifest(path: Path | str, content: bytes) -> Manifest:
    """Validate the content of a manifest.json; `path` names its bundle in errors.

    Raises:
        BundleError: It has another format version, or a value is out of range.
    """
    try:
        raw = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(
            f"{MANIFEST_NAME} of bundle '{path}' is not valid JSON ({error}). Copy or export the bundle again.",
            key="bundle.manifest_damaged",
        ) from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and not 1 <= version <= FORMAT_VERSION:
        raise BundleError(
            f"Bundle '{path}' has format_version {version}; this runtime reads 1 to {FORMAT_VERSION}. "
            f"Upgrade moedge, or export the bundle again with this version.",
            key="bundle.version_unsupported",
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors())
        raise BundleError(
            f"{MANIFEST_NAME} of bundle '{path}' is not valid: {problems}. Copy or export the bundle again.",
            key="bundle.manifest_invalid",
        ) from error
    for entry in manifest.files:
        relative = PurePosixPath(entry.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise BundleError(
                f"Bundle '{path}' lists the file '{entry.path}', which lies outside of it. Do not use this bundle.",
                key="bundle.manifest_invalid",
            )
    return manifest


def unreadable(path: Path, relative: str, error: OSError) -> BundleError:
    """The error for a file of the bundle at `path` that is there and cannot be read."""
    return BundleError(
        f"File '{relative}' of bundle '{path}' cannot be read ({error.strerror}). Let the user that runs moedge read "
        f"all of the bundle, or copy it again.",
        key="bundle.unreadable",
    )


def checksum_line(content: bytes) -> str:
    """The content of manifest.json.sha256 for a manifest.json of `content`."""
    return f"{hashlib.sha256(content).hexdigest()}  {MANIFEST_NAME}\n"


def _check_manifest(path: Path, content: bytes) -> None:
    try:
        expected = (path / CHECKSUM_NAME).read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"Bundle '{path}' lacks the file '{CHECKSUM_NAME}'. Copy the bundle again.", key="bundle.file_missing"
        ) from None
    except OSError as error:
        raise unreadable(path, CHECKSUM_NAME, error) from error
    if expected != checksum_line(content).encode():
        raise BundleError(
            f"Bundle '{path}' is damaged: '{MANIFEST_NAME}' is not the file that '{CHECKSUM_NAME}' was made of. "
            f"Copy the bundle again.",
            key="bundle.checksum_mismatch",
        )


def _check_size(bundle: Bundle, entry: FileEntry) -> None:
    try:
        nbytes = bundle.file(entry.path).stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"Bundle '{bundle.path}' lacks the file '{entry.path}' ({entry.nbytes:,} bytes). Copy the bundle again.",
            key="bundle.file_missing",
        ) from None
    except OSError as error:
        raise unreadable(bundle.path, entry.path, error) from error
    if nbytes != entry.nbytes:
        raise BundleError(
            f"File '{entry.path}' of bundle '{bundle.path}' has {nbytes:,} bytes; the manifest says {entry.nbytes:,}. "
            f"Copy the bundle again.",
            key="bundle.file_truncated",
        )
