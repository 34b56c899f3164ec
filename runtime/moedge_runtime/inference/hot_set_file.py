"""Keeps what an engine has learned about its experts in a file from one start to the next."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moedge_runtime.bundle import TextInfo
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.inference.camera_counts import CameraCounts
from moedge_runtime.inference.expert_core import NativeExperts
from moedge_runtime.inference.expert_core.hot_set import HotSet, load_hot_set, save_hot_set

SAVE_EVERY_S = 3600.0
"""A file of 40 kB, and as much for each camera, an hour does not wear flash out."""

log = logging.getLogger(__name__)


class HotSetFile:
    """How often each expert was chosen, in all and by each camera: read once, written at most once an hour and at the
    end.

    Args:
        path: The file; it need not exist yet.
        text: Of the bundle.
        experts: Start from the counts in the file, if there is one.
        cameras: Likewise.
        now_s: A clock that never goes back.

    Raises:
        ConfigError: The file was made for a bundle of another shape or is damaged, or its directory cannot be written.
        StorageError: The file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        text: TextInfo,
        experts: NativeExperts,
        cameras: CameraCounts,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not os.access(path.parent, os.W_OK):
            raise ConfigError(
                f"The hot set '{path}' cannot be kept: its directory is not there, or cannot be written. Make it, or "
                f"choose another with --hot-set (model.hot_set)."
            )
        self._path, self._text, self._experts, self._cameras, self._now_s = path, text, experts, cameras, now_s
        if path.exists():
            hot_set = load_hot_set(path, text)
            experts.set_counts(hot_set.counts)
            cameras.restore(hot_set.cameras)
        self._saved = experts.counts()
        self._saved_at_s = now_s()

    def after_answer(self) -> None:
        """Write the file if an hour has passed. A disk that is full costs a warning, not the answer."""
        if self._now_s() - self._saved_at_s >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the file if there is anything new."""
        self._saved_at_s = self._now_s()
        counts = self._experts.counts()
        if np.array_equal(counts, self._saved):
            return
        try:
            save_hot_set(self._path, HotSet(counts, self._cameras.counts()), self._text)
        except StorageError as error:
            log.warning("%s", error)
        else:
            self._saved = counts
