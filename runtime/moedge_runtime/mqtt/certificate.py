"""When a certificate ends. Read by hand: nothing that is installed on a board reads X.509 for us."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

_END_OF_PEM = "-----END CERTIFICATE-----"
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_VALIDITY = 3
"""RFC 5280, section 4.1: after the version, which may be missing, come serial number, algorithm, issuer, validity."""


def ends_at(path: Path) -> datetime | None:
    """When the first certificate in the PEM file at `path` ends, in UTC; None if none can be read."""
    try:
        pem, end, _ = path.read_text("ascii", errors="replace").partition(_END_OF_PEM)
        return _end_of(ssl.PEM_cert_to_DER_cert(pem[max(0, pem.find("-----BEGIN CERTIFICATE-----")) :] + end))
    except (OSError, ValueError, LookupError):
        return None


def _end_of(der: bytes) -> datetime:
    ((_, certificate),) = _elements(der)
    (_, body), *_ = _elements(certificate)
    fields = [content for tag, content in _elements(body) if tag != _VERSION]
    _, (tag, end) = _elements(fields[_VALIDITY])
    text = end.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text  # RFC 5280, section 4.1.2.5.1
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"tag {tag} is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of the elements in a row in `der` (X.690, sections 8.1 and 10.1; tags of one byte).

    Raises:
        LookupError: It ends in the middle.
    """
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            digits = size & 0x7F
            size, at = int.from_bytes(der[at : at + digits], "big"), at + digits
        if at + size > len(der):
            raise LookupError("it ends in the middle of an element")
        yield tag, der[at : at + size]
        at += size
