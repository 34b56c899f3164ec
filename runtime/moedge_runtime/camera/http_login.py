"""The two logins of HTTP: Basic (RFC 7617) and Digest (RFC 7616, and RFC 2617 without qop). Pure."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.request import parse_http_list, parse_keqv_list

from moedge_runtime.camera.credentials import Credentials

_HASHES: dict[str, Callable[[bytes], str]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
}


class Login(Protocol):
    """Answers one challenge of a server, any number of times."""

    def header(self, method: str, target: str) -> str:
        """The value of Authorization for a request of `target`, path and query."""
        ...


def login_for(challenges: Sequence[str], credentials: Credentials) -> Login | None:
    """How to answer the WWW-Authenticate headers of a server: by digest if it can, else basic; None if by neither."""
    by_scheme = {scheme.lower(): rest for scheme, _, rest in (text.strip().partition(" ") for text in challenges)}
    if "digest" in by_scheme:
        asked = {name.lower(): value for name, value in parse_keqv_list(parse_http_list(by_scheme["digest"])).items()}
        if asked.get("algorithm", "MD5").upper().removesuffix("-SESS") in _HASHES and "nonce" in asked:
            return DigestLogin(asked, credentials)
    return BasicLogin(credentials) if "basic" in by_scheme else None


class BasicLogin:
    """User and password as they are; whoever listens to plain HTTP has them."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def header(self, method: str, target: str) -> str:
        """See Login."""
        plain = f"{self._credentials.username}:{self._credentials.password}"
        return "Basic " + base64.b64encode(plain.encode()).decode()


class DigestLogin:
    """Proof of the password, bound to the request.

    Args:
        asked: The parameters of the challenge, names in lower case.
        credentials: User and password.
    """

    def __init__(self, asked: dict[str, str], credentials: Credentials) -> None:
        self._asked, self._credentials = asked, credentials
        self._algorithm = asked.get("algorithm", "MD5").upper()
        self._count = 0

    def header(self, method: str, target: str) -> str:
        """See Login."""
        self._count += 1
        cnonce, count = secrets.token_hex(8), f"{self._count:08x}"
        user, realm, nonce = self._credentials.username, self._asked.get("realm", ""), self._asked["nonce"]
        secret = self._digest(f"{user}:{realm}:{self._credentials.password}")
        if self._algorithm.endswith("-SESS"):
            secret = self._digest(f"{secret}:{nonce}:{cnonce}")
        request = self._digest(f"{method}:{target}")
        fields = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
        plain = {"algorithm": self._asked["algorithm"]} if "algorithm" in self._asked else {}
        if "auth" in [option.strip() for option in self._asked.get("qop", "").split(",")]:
            fields |= {"cnonce": cnonce, "response": self._digest(f"{secret}:{nonce}:{count}:{cnonce}:auth:{request}")}
            plain |= {"qop": "auth", "nc": count}
        else:
            fields["response"] = self._digest(f"{secret}:{nonce}:{request}")
        if "opaque" in self._asked:
            fields["opaque"] = self._asked["opaque"]
        parts = [f'{name}="{_quoted(value)}"' for name, value in fields.items()]
        return "Digest " + ", ".join([*parts, *(f"{name}={value}" for name, value in plain.items())])

    def _digest(self, text: str) -> str:
        return _HASHES[self._algorithm.removesuffix("-SESS")](text.encode())


def _quoted(value: str) -> str:
    """`value` inside of quotes; http.client writes a header as Latin-1, cameras read it as UTF-8."""
    return value.replace("\\", "\\\\").replace('"', '\\"').encode().decode("latin-1")
