"""Bundles that differ in one file, a publisher with keys, and a board's store."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moedge_devices.store.choose import Device, choose
from moedge_devices.store.documents import Index, Keys, Release, SystemRelease
from moedge_devices.store.install import Done, install
from moedge_devices.store.publish import SystemFile, Terms, add_keys, make_keys, publish
from moedge_devices.store.source import DirectorySource, Source
from moedge_devices.store.store import Store
from moedge_devices.store.trust import Clock, Memory, read_anchor, read_index
from moedge_runtime.bundle import Bundle
from runtime.bundle.sample import write_sample

DEVICE = Device("gate-01", "orin-nano-8gb", "stable", "0.1.0")


def write_bundle(path: Path, head: str) -> Path:
    """A sample whose head.onnx says `head`; every other file is the same in all samples."""
    write_sample(path)
    (path / "head.onnx").write_text(head)
    manifest = json.loads((path / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == "head.onnx":
            entry |= {"nbytes": len(head), "sha256": hashlib.sha256(head.encode()).hexdigest()}
    content = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(content)
    (path / "manifest.json.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
    Bundle.open(path)
    return path


def make_key(directory: Path, name: str) -> tuple[Path, Path]:
    """Private and public key, as docs/updates.md makes them."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    for command in (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", private],
        ["openssl", "pkey", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return private, public


class Publisher:
    """A published directory, its root and signing key, and what boards are given."""

    def __init__(self, place: Path) -> None:
        self.place, self.directory = place, place / "published"
        place.mkdir(parents=True, exist_ok=True)
        self.root, self.root_pub = make_key(place, "root")
        self.key, self.pub = make_key(place, "signing")
        self.keys_file = place / "update-keys.json"
        self.publish_keys(1, [self.root_pub], [self.pub], [self.root])
        self.keys_file.write_text(
            Keys(version=1, roots=[self.root_pub.read_text()], signers=[self.pub.read_text()]).model_dump_json()
        )

    def publish_keys(self, version: int, roots: list[Path], signers: list[Path], private: list[Path]) -> bytes:
        texts = [[path.read_text() for path in group] for group in (roots, signers)]
        content = make_keys(version, *texts, private)
        add_keys(self.directory, content)
        return content

    def release(self, version: str, head: str | None = None, **options: Any) -> Release:
        """Publish panel@VERSION."""
        path = self.place / f"bundle-{version}"
        if not path.exists():
            write_bundle(path, head or f"head of {version}")
        terms = Terms(**({"channels": ["stable"]} | options))
        done = publish(self.directory, self.key, bundle=Bundle.open(path), name="panel", version=version, terms=terms)
        assert isinstance(done.release, Release)
        return done.release

    def system(self, version: str, compatible: str = "moedge-generic-arm64", **options: Any) -> SystemRelease:
        """Publish a system, a file that says its version."""
        path = self.place / f"{compatible}-{version}.raucb"
        path.write_bytes(f"{compatible} {version}\n".encode() * 10_000)
        terms = Terms(**({"channels": ["stable"]} | options))
        done = publish(self.directory, self.key, system=SystemFile(path, compatible, version), terms=terms)
        assert isinstance(done.release, SystemRelease)
        return done.release

    @property
    def source(self) -> DirectorySource:
        return DirectorySource(self.directory)


class Board:
    """A store and what it trusts."""

    def __init__(self, root: Path, publisher: Publisher) -> None:
        self.store, self.publisher = Store(root), publisher
        self.warnings: list[str] = []

    def memory(self) -> Memory:
        return Memory(self.store.trust, self.warnings.append)

    def index(self, source: Source | None = None, clock: Clock | None = None) -> Index:
        with self.store.locked():
            return read_index(
                source or self.publisher.source,
                read_anchor(self.publisher.keys_file),
                self.memory(),
                clock or Clock.of_machine(),
                self.warnings.append,
            )

    def install(self, version: str | None = None, source: Source | None = None, **options: Any) -> Done:
        source = source or self.publisher.source
        release = choose(self.index(source).releases, "panel", version, DEVICE)
        with self.store.locked():
            return install(self.store, source, release, **options)


class CountedSource:
    """Counts the bytes that travel, and calls `on_bytes` with each piece."""

    def __init__(self, source: Source, on_bytes: Callable[[int], None] = lambda count: None) -> None:
        self._source, self._on_bytes = source, on_bytes
        self.streamed: dict[str, int] = {}
        self.begun_at: list[int] = []

    def __str__(self) -> str:
        return str(self._source)

    def read(self, name: str, max_bytes: int) -> bytes:
        return self._source.read(name, max_bytes)

    def stream(self, name: str, offset: int) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def counted() -> Any:
            with self._source.stream(name, offset) as (begun_at, pieces):
                self.begun_at.append(begun_at)

                def count() -> Any:
                    for piece in pieces:
                        self.streamed[name] = self.streamed.get(name, 0) + len(piece)
                        yield piece

                yield begun_at, count()

        return counted()


def tree(root: Path) -> dict[str, bytes]:
    """All files of a bundle."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
