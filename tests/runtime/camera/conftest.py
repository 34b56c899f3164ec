"""Fixtures: a certificate."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    """PEM files: the certificate alone, as a client trusts it, and together with its key, as a server needs it."""

    public: Path
    private: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One for 127.0.0.1, signed by itself as those of cameras are."""
    directory = tmp_path_factory.mktemp("certificate")
    public, key, private = (directory / name for name in ("public.pem", "key.pem", "private.pem"))
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=camera -addext subjectAltName=IP:127.0.0.1"
    outputs = ["-keyout", str(key), "-out", str(public)]
    subprocess.run([*command.split(), *outputs], check=True, capture_output=True)
    private.write_bytes(public.read_bytes() + key.read_bytes())
    return Certificate(public, private)
