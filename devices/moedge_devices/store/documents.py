"""The two signed documents of a source: which keys sign, and which releases there are. Typed and pure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeVar

from moedge_runtime.config.values import Identifier
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from moedge_devices.fleet.model import SystemVersion
from moedge_devices.store import openssl
from moedge_devices.store.errors import TrustError

KEYS_TYPE = "application/vnd.moedge.keys+json"
INDEX_TYPE = "application/vnd.moedge.index+json"

VERSION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"


def _public(pem: str) -> str:
    openssl.key_id(pem)
    return pem


PublicKey = Annotated[str, AfterValidator(_public)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ReleaseName = Annotated[str, Field(pattern=VERSION_PATTERN)]
Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
Dotted = Annotated[str, Field(pattern=r"^\d+(\.\d+){0,3}$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Keys(_Document):
    """Who may sign. Version n + 1 is signed by a root key of version n and by one of its own."""

    format: Literal["moedge-keys"] = "moedge-keys"
    format_version: Literal[1] = 1
    version: Annotated[int, Field(ge=1)]
    """Goes up by 1."""
    roots: Annotated[list[PublicKey], Field(min_length=1, max_length=8)]
    """Keys in PEM that may sign the next version of this document. They stay offline."""
    signers: Annotated[list[PublicKey], Field(max_length=8)]
    """Keys in PEM that may sign the index. One that is not listed any more is revoked."""

    @model_validator(mode="after")
    def _apart(self) -> Keys:
        if self.root_keys().keys() & self.signer_keys().keys():
            raise ValueError("a root key never signs an index: a key is in roots and in signers")
        return self

    def root_keys(self) -> dict[str, str]:
        """Roots by id."""
        return {openssl.key_id(pem): pem for pem in self.roots}

    def signer_keys(self) -> dict[str, str]:
        """Signers by id."""
        return {openssl.key_id(pem): pem for pem in self.signers}


class Offer(_Document):
    """One version of something that boards are given, and for whom it is."""

    name: ReleaseName
    version: Version
    """A word of the publisher's own."""
    number: Annotated[int, Field(ge=1)]
    """Goes up with every release of this name: a lower one is a downgrade, whatever the versions are called."""
    bytes: Annotated[int, Field(ge=1)]
    """Of all files."""
    min_moedge: Dotted | None = None
    """Oldest moedge that runs it; null for any."""
    channels: list[Identifier] = []
    profiles: list[Identifier] = []
    """Kinds of boards that it is for; empty for all."""
    devices: list[Identifier] = []
    """Devices that it is for; empty for all."""

    @property
    def label(self) -> str:
        """NAME@VERSION."""
        return f"{self.name}@{self.version}"


class Release(Offer):
    """One version of a bundle. Its manifest, which counts in `bytes`, lists the other files."""

    manifest_sha256: Digest
    manifest_bytes: Annotated[int, Field(ge=1, le=64 << 20)]


class SystemRelease(Offer):
    """One version of a system, a file that RAUC installs (docs/flash.md). Its name is RAUC's `compatible`."""

    version: SystemVersion
    """The one that it says of itself."""
    sha256: Digest


class Index(_Document):
    """All releases of a source."""

    format: Literal["moedge-index"] = "moedge-index"
    format_version: Literal[1] = 1
    serial: Annotated[int, Field(ge=1)]
    """Goes up with every change: a lower one is an old index."""
    created: AwareDatetime
    expires: AwareDatetime
    """Publish again before that, even if nothing is new."""
    releases: Annotated[list[Release], Field(max_length=10_000)] = []
    systems: Annotated[list[SystemRelease], Field(max_length=10_000)] = []

    @model_validator(mode="after")
    def _unique(self) -> Index:
        offers: list[Offer] = [*self.releases, *self.systems]
        labels = [offer.label for offer in offers]
        numbers = [(offer.name, offer.number) for offer in offers]
        if len(set(labels)) < len(labels) or len(set(numbers)) < len(numbers):
            raise ValueError("two releases have the same name and version, or the same name and number")
        return self


_Kind = TypeVar("_Kind", Keys, Index)


def parse(kind: type[_Kind], content: bytes, what: str) -> _Kind:
    """A document from JSON whose signature, if it has one, was checked before.

    Raises:
        TrustError: It is not of this form.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in error.errors()[:5])
        raise TrustError(
            f"{what} is not valid: {problems}. Upgrade moedge if it is of a newer form; else ask who publishes it.",
            key="update.invalid",
        ) from error


def moment_text(moment: datetime) -> str:
    """UTC to the second, as in 2026-11-26T08:15:30Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
