"""Reads what is installed and compares it with the manifests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moedge_runtime.bundle import Bundle
from moedge_runtime.bundle.reader import MANIFEST_NAME
from moedge_runtime.bundle.verify import sha256_of
from moedge_runtime.errors import BundleError

from moedge_devices.store.download import Progress
from moedge_devices.store.store import Installed


def check_store(versions: Sequence[Installed], progress_of: Callable[[int], Progress]) -> dict[str, list[str]]:
    """Damaged files of each version, by NAME@VERSION; versions that are well are left out.

    A file that several versions share is read once.
    """
    damaged: dict[str, list[str]] = {}
    bundles: dict[str, Bundle] = {}
    for each in versions:
        manifest = each.path / MANIFEST_NAME
        try:
            bundles[each.release.label] = Bundle.open(each.path)
            if sha256_of(manifest) != each.release.manifest_sha256:
                damaged[each.release.label] = [MANIFEST_NAME]
        except BundleError as error:
            damaged[each.release.label] = [str(error)]
    files = {
        (bundle.file(entry.path).stat().st_ino, entry.sha256): bundle.file(entry.path)
        for bundle in bundles.values()
        for entry in bundle.manifest.files
    }
    progress = progress_of(sum(path.stat().st_size for path in files.values()))
    bad = {key for key, path in files.items() if sha256_of(path, progress) != key[1]}
    for label, bundle in bundles.items():
        names = [
            entry.path
            for entry in bundle.manifest.files
            if (bundle.file(entry.path).stat().st_ino, entry.sha256) in bad
        ]
        if names:
            damaged[label] = damaged.get(label, []) + names
    return damaged
