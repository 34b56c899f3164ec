"""Certificates made with openssl, good and expired."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Authority:
    """An authority in a directory: ca.pem, and what it issues as NAME.pem and NAME.key."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed; run: apt-get install openssl")
        directory.mkdir(exist_ok=True)
        self._directory, self._name = directory, name
        self.ca = directory / f"{name}.pem"
        self._openssl(
            "req", "-x509", *self._key(name), "-days", "3650", "-subj", f"/CN=test {name}", "-out", self.ca.name
        )

    def issue(self, name: str, *, common_name: str | None = None, expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key for 127.0.0.1, replacing those of the same name."""
        request, days = f"{name}.csr", "-1" if expired else "30"
        self._openssl("req", "-new", *self._key(name), "-subj", f"/CN={common_name or name}", "-out", request)
        (self._directory / f"{name}.ext").write_text(
            "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\n"
            "authorityKeyIdentifier=keyid\n"
        )
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.ca.name, "-CAkey", f"{self._name}.key", "-CAcreateserial",
            "-days", days, "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip
        return self._directory / f"{name}.pem", self._directory / f"{name}.key"

    def _key(self, name: str) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._directory, check=True, capture_output=True)
