"""Who made an image: a detached CMS signature of its block map, whose checksums stand for all of it."""

from __future__ import annotations

from pathlib import Path

from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.flash.tools import run


def signature_of(block_map: Path) -> Path:
    """Where the signature of a block map is."""
    return block_map.with_name(block_map.name + ".p7s")


def sign(block_map: Path, certificate: Path, key: Path, keyring: Path) -> None:
    """Sign a block map, and make sure that the signature is good.

    Args:
        block_map: Signed beside itself.
        certificate: PEM of who signs.
        key: PEM of its key.
        keyring: PEM of who may.

    Raises:
        ConfigError: The keyring does not know the certificate.
        StorageError: openssl fails, for example because certificate and key do not belong together.
    """
    out = signature_of(block_map)
    what = ("-binary", "-md", "sha256", "-outform", "DER", "-in", block_map, "-out", out)
    run(["openssl", "cms", "-sign", *what, "-signer", certificate, "-inkey", key], "The image could not be signed")
    try:
        check(block_map, keyring)
    except ConfigError:
        out.unlink()
        raise


def check(block_map: Path, keyring: Path) -> None:
    """Make sure that somebody of a keyring has signed a block map as it is.

    Raises:
        ConfigError: Nobody has.
    """
    signature = signature_of(block_map)
    if not signature.is_file():
        raise ConfigError(
            f"The image is not signed: there is no '{signature.name}' beside its block map. Copy that as well, or "
            f"build the image with --cert and --key.",
            key="flash.image_unsigned",
        )
    what = (
        "-binary",
        "-purpose",
        "any",
        "-inform",
        "DER",
        "-in",
        signature,
        "-content",
        block_map,
        "-out",
        "/dev/null",
    )
    try:
        run(["openssl", "cms", "-verify", *what, "-CAfile", keyring, "-no-CApath"], "It is not good")
    except StorageError as error:
        raise ConfigError(
            f"The signature '{signature.name}' of the image is not good for '{keyring}': the block map was changed "
            f"after it was signed, or a stranger has signed it. Do not write it. ({str(error).splitlines()[-1]})",
            key="flash.image_signature",
        ) from error
