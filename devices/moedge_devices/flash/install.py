"""On the board: installs an update of the system. RAUC does it, and refuses by itself; this says why, before it begins.

RAUC's handler (`refuse-older`) tells its reason to the journal only. Besides, RAUC would write over the slot that a new
system, which has not been confirmed yet, may have to go back to.
"""

from __future__ import annotations

import configparser
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.flash.tools import run

SYSTEM_CONF = Path("/etc/rauc/system.conf")


@dataclass(frozen=True)
class Update:
    """What a bundle says of itself, once RAUC has found its signature good."""

    compatible: str
    version: str


def look_at(bundle: str) -> Update:
    """What RAUC says of a bundle.

    Raises:
        StorageError: It is none, or its signature is not that of somebody whom the board trusts; with RAUC's words.
    """
    said = run(["rauc", "info", "--output-format=json", bundle], f"'{bundle}' is no update for this board")
    try:
        value = json.loads(said)
        return Update(str(value["compatible"]), str(value["version"]))
    except (ValueError, LookupError, TypeError) as error:
        raise StorageError(
            f"RAUC describes '{bundle}' in a form that is not known: {said[:200]}", key="flash.rauc"
        ) from (error)


def board_compatible(system_conf: Path = SYSTEM_CONF) -> str:
    """Which updates the board takes.

    Raises:
        StorageError: RAUC's configuration cannot be read.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(system_conf.read_text(encoding="utf-8"))
        return parser["system"]["compatible"]
    except (OSError, configparser.Error, LookupError) as error:
        raise StorageError(
            f"'{system_conf}' does not say what updates this board takes ({error}). This command is for systems that "
            f"`moedge flash build` made.",
            key="flash.rauc",
        ) from error


def check(update: Update, release: Mapping[str, str], compatible: str, *, may_go_back: bool) -> None:
    """Whether an update may be installed.

    Args:
        update: What it says.
        release: os-release of the system that runs.
        compatible: Of the board.
        may_go_back: The system that runs has not been confirmed, and there is another one to go back to.

    Raises:
        ConfigError: It may not.
    """
    running = release["IMAGE_VERSION"]
    if update.compatible != compatible:
        raise ConfigError(
            f"The update is for '{update.compatible}', this board is '{compatible}'. Take the one of its recipe.",
            key="flash.incompatible",
        )
    older = subprocess.run(["dpkg", "--compare-versions", update.version, "lt", running], check=False).returncode == 0
    if older:
        raise ConfigError(
            f"The update has version {update.version}, which is older than {running}, the system that runs: it is "
            f"refused. To go back, build the old content with a newer version.",
            key="flash.downgrade",
        )
    if may_go_back:
        raise ConfigError(
            f"System {running} has not been confirmed yet: an update would be written over the one to go back to. Wait "
            f"until it has answered (systemctl status moedge-confirm).",
            key="flash.unconfirmed",
        )


def install(bundle: str) -> None:
    """Let RAUC install a bundle; what it says goes to the terminal.

    Raises:
        StorageError: It failed; the system that runs is as it was.
    """
    code = subprocess.run(["rauc", "install", bundle], check=False).returncode
    if code:
        raise StorageError(
            f"RAUC ended with code {code}; what it said is above, and more of it in `journalctl -u rauc`. The system "
            f"that runs is as it was.",
            key="flash.install",
        )
