"""Ed25519 signatures by the openssl program (3.0 or newer), which ca-certificates brings to every Debian system.

Keys stay in their files: openssl reads them, and asks for a passphrase on the terminal, itself.
Decision: docs/decisions/0013-signatures.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import subprocess
from pathlib import Path

from moedge_runtime.errors import ConfigError

from moedge_devices.store.errors import TrustError

_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
"""DER of a SubjectPublicKeyInfo for Ed25519 before the 32 bytes of the key (RFC 8410, section 4)."""

SIGNATURE_BYTES = 64


def key_id(pem: str) -> str:
    """SHA-256 of the public key's DER, in hexadecimal.

    Raises:
        ValueError: `pem` is no public Ed25519 key.
    """
    lines = [line.strip() for line in pem.strip().splitlines()]
    if len(lines) < 3 or lines[0] != "-----BEGIN PUBLIC KEY-----" or lines[-1] != "-----END PUBLIC KEY-----":
        raise ValueError("write a public key in PEM, as `openssl pkey -pubout` does")
    try:
        der = base64.b64decode("".join(lines[1:-1]), validate=True)
    except binascii.Error as error:
        raise ValueError("the key's base64 is damaged") from error
    if len(der) != len(_ED25519_SPKI) + 32 or not der.startswith(_ED25519_SPKI):
        raise ValueError("the key is no Ed25519 key; make one with `openssl genpkey -algorithm ed25519`")
    return hashlib.sha256(der).hexdigest()


def public_key(private: Path) -> str:
    """The public key in PEM of a private one in a file.

    Raises:
        ConfigError: The file holds no key that openssl can read.
    """
    pem = _openssl(["pkey", "-in", str(private), "-pubout"], f"The key '{private}' cannot be read").decode()
    try:
        key_id(pem)
    except ValueError as error:
        raise ConfigError(f"The key '{private}' cannot sign: {error}.", key="config.key") from error
    return pem


def sign(private: Path, message: bytes) -> bytes:
    """The signature of `message`, 64 bytes.

    Raises:
        ConfigError: The key cannot be used.
    """
    with _in_memory(message) as (path, descriptor):
        return _openssl(
            ["pkeyutl", "-sign", "-inkey", str(private), "-rawin", "-in", path],
            f"Nothing can be signed with the key '{private}'",
            descriptor,
        )


def verifies(pem: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of `message` by the owner of the public key `pem`."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    key_id(pem)
    with (
        _in_memory(message) as (text, of_text),
        _in_memory(signature) as (mark, of_mark),
        _in_memory(pem.encode()) as (key, of_key),
    ):
        command = ["pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", "-in", text, "-sigfile", mark]
        done = _run(command, (of_text, of_mark, of_key))
    if done.returncode not in (0, 1):
        raise TrustError(f"The signature cannot be checked: openssl says: {_last_line(done.stderr)}")
    return done.returncode == 0 and b"Verified Successfully" in done.stdout


class _in_memory:
    """A file in memory that openssl opens by its path; -rawin wants a file whose size is known."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __enter__(self) -> tuple[str, int]:
        self._descriptor = os.memfd_create("moedge")
        with open(self._descriptor, "wb", closefd=False) as file:
            file.write(self._content)
        return f"/proc/self/fd/{self._descriptor}", self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _openssl(arguments: list[str], failure: str, *descriptors: int) -> bytes:
    done = _run(arguments, descriptors)
    if done.returncode:
        raise ConfigError(f"{failure}: openssl says: {_last_line(done.stderr)}", key="config.key")
    return done.stdout


def _run(arguments: list[str], descriptors: tuple[int, ...]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["openssl", *arguments], capture_output=True, pass_fds=descriptors, check=False)
    except OSError as error:
        raise ConfigError(
            f"The program openssl cannot be run ({error.strerror}). Install it: apt-get install openssl",
            key="config.openssl",
        ) from error


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "nothing"
