"""Opens a bundle and compares it with its checksums, as the configuration says."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.bundle.reader import MANIFEST_NAME
from moedge_runtime.config import ModelConfig

log = logging.getLogger(__name__)


def open_bundle(config: ModelConfig, verify: bool | None = None) -> Bundle:
    """Open the bundle and check it as `verify`, or if that is None the configuration, says: see ModelConfig.verify.

    A link is followed here, once: files that are opened later are of the same bundle wherever the link points by then.

    Raises:
        BundleError: It cannot be used.
    """
    bundle = Bundle.open(config.bundle.resolve())
    verify = config.verify if verify is None else verify
    if verify is not False:
        began_s = time.monotonic()
        verify_bundle(bundle, experts=verify is True)
        log.info("Bundle '%s' is as it was written (checked in %.1f s).", bundle.path, time.monotonic() - began_s)
    return bundle


def bundle_names(configured: Path, bundle: Bundle) -> tuple[str, str | None]:
    """Name and version of the bundle that was opened at `configured`: the link's own name, and that of its target.

    Without a link there is no version.
    """
    target = bundle.path.resolve().name
    name = configured.name if configured.name not in ("", "..") else target
    return name, target if target != name else None


def manifest_sha256(bundle: Bundle) -> str:
    """SHA-256 of its manifest.json, which holds those of all other files."""
    return hashlib.sha256(bundle.file(MANIFEST_NAME).read_bytes()).hexdigest()
