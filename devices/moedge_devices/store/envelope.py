"""Signed JSON: DSSE v1 envelopes (github.com/secure-systems-lab/dsse, protocol.md), which need no canonical JSON.

The signature covers the type and the bytes as they are, so that a document of one type is never taken for another.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moedge_devices.store import openssl
from moedge_devices.store.errors import TrustError


class _Signature(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    keyid: str = ""
    sig: str


class Envelope(BaseModel):
    """`payload` in base64, and who signed it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    payloadType: str
    payload: str
    signatures: Annotated[list[_Signature], Field(max_length=16)]


def encoded(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, private_keys: Iterable[Path]) -> bytes:
    """An envelope signed with all of `private_keys`, as JSON.

    Raises:
        ConfigError: A key cannot be used.
    """
    message = encoded(payload_type, payload)
    signatures = [
        {
            "keyid": openssl.key_id(openssl.public_key(path)),
            "sig": base64.b64encode(openssl.sign(path, message)).decode(),
        }
        for path in private_keys
    ]
    envelope = {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": signatures,
    }
    return json.dumps(envelope).encode() + b"\n"


def unseal(content: bytes, payload_type: str, keys: Mapping[str, str], what: str) -> tuple[bytes, set[str]]:
    """The payload of an envelope, and the ids of those of `keys` whose signatures hold.

    Args:
        content: The envelope.
        payload_type: The type that it must have.
        keys: Public keys in PEM by id; other signatures are not looked at.
        what: Names the document in errors.

    Raises:
        TrustError: It is no such envelope, or none of the keys has signed it as it is.
    """
    try:
        envelope = Envelope.model_validate_json(content)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = {mark.keyid: base64.b64decode(mark.sig, validate=True) for mark in envelope.signatures}
    except (ValidationError, binascii.Error) as error:
        raise TrustError(
            f"{what} is not signed, or damaged: it is no envelope of a payload and signatures. Do not use it; fetch "
            f"again, or ask who publishes it.",
            key="update.unsigned",
        ) from error
    if envelope.payloadType != payload_type:
        raise TrustError(
            f"{what} is of the type '{envelope.payloadType[:80]}'; it must be '{payload_type}'. Do not use it.",
            key="update.wrong_type",
        )
    known = {identifier: mark for identifier, mark in signatures.items() if identifier in keys}
    if not known:
        named = ", ".join(sorted(identifier[:12] for identifier in signatures)) or "nobody"
        raise TrustError(
            f"{what} is signed by {named}; trusted here: {', '.join(sorted(key[:12] for key in keys)) or 'nobody'}. "
            f"The key was revoked, or is another publisher's. Do not use it.",
            key="update.unknown_signer",
        )
    message = encoded(payload_type, payload)
    held = {identifier for identifier, mark in known.items() if openssl.verifies(keys[identifier], message, mark)}
    if not held:
        raise TrustError(
            f"{what} was changed after it was signed: no signature fits it. Do not use it; fetch again, and if that "
            f"does not help look who can write to the source.",
            key="update.tampered",
        )
    return payload, held
