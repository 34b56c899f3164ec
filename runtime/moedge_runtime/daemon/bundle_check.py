"""Opens a bundle and compares it with its checksums, as the configuration says."""

from __future__ import annotations

import logging
import time

from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.config import ModelConfig

log = logging.getLogger(__name__)


def open_bundle(config: ModelConfig, verify: bool | None = None) -> Bundle:
    """Open the bundle and check it as `verify`, or if that is None the configuration, says: see ModelConfig.verify.

    Raises:
        BundleError: It cannot be used.
    """
    bundle = Bundle.open(config.bundle)
    verify = config.verify if verify is None else verify
    if verify is not False:
        began_s = time.monotonic()
        verify_bundle(bundle, experts=verify is True)
        log.info("Bundle '%s' is as it was written (checked in %.1f s).", bundle.path, time.monotonic() - began_s)
    return bundle
