"""What RAUC says of an update of the system, a file *.raucb that `moedge flash build --update` makes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from moedge_runtime.errors import StorageError

from moedge_devices.store.errors import TrustError


@dataclass(frozen=True)
class Update:
    """What a bundle says of itself, once RAUC has found its signature good."""

    compatible: str
    version: str


def look_at(bundle: str, *options: str) -> Update:
    """What RAUC says of a bundle.

    Args:
        bundle: Its path.
        options: More for RAUC.

    Raises:
        TrustError: It is not signed by somebody who is trusted, or no bundle at all; with RAUC's words.
        StorageError: RAUC fails otherwise.
    """
    command = ["rauc", *options, "info", "--output-format=json", bundle]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        if "signature" in last and "verif" in last:
            raise TrustError(
                f"'{bundle}' is signed by nobody whom this board trusts (RAUC: {last}). Take one that the owner of a "
                f"certificate in the keyring has signed: `moedge flash build --update --cert --key`.",
                key="flash.signature",
            )
        if "Invalid bundle format" in last:
            raise TrustError(
                f"'{bundle}' is no signed update: it has no signature, or was cut short (RAUC: {last}). Copy it anew; "
                f"`moedge flash build --update` makes signed ones.",
                key="flash.unsigned",
            )
        raise StorageError(
            f"RAUC cannot read '{bundle}': {last}. Give the path of a file *.raucb that can be read.", key="flash.rauc"
        )
    try:
        value = json.loads(done.stdout)
        return Update(str(value["compatible"]), str(value["version"]))
    except (ValueError, LookupError, TypeError) as error:
        raise StorageError(
            f"RAUC describes '{bundle}' in a form that is not known: {done.stdout[:200]}", key="flash.rauc"
        ) from error
