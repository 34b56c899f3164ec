"""On the board: installs an update of the system. RAUC does it, and refuses by itself; this says why, before it begins.

RAUC's handler (`refuse-older`) tells its reason to the journal only. Besides, RAUC would write over the slot that a new
system, which has not been confirmed yet, may have to go back to.
"""

from __future__ import annotations

import configparser
import subprocess
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.daemon.system import STATE
from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.flash import confirm
from moedge_devices.store.rauc import Update, look_at

SYSTEM_CONF = Path("/etc/rauc/system.conf")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Machine:
    """The system that runs.

    Attributes:
        slot: From which it was booted, A or B.
        version: Of it.
        compatible: Which updates the board takes.
        may_go_back: It does not count yet, and there is another one to go back to.
        boot: Of this start of the machine; another one after every start (random(4)).
        state: Where the system notes what lasts.
    """

    slot: str
    version: str
    compatible: str
    may_go_back: bool
    boot: str
    state: Path = STATE

    @classmethod
    def running(cls) -> Machine:
        """This one.

        Raises:
            StorageError: It is no system that `moedge flash build` made.
        """
        slot = confirm.booted_slot(confirm.COMMAND_LINE.read_text())
        release = confirm.assignments(confirm.OS_RELEASE.read_text())
        confirmed = confirm.is_confirmed(slot, release["BUILD_ID"])
        may_go_back = not confirmed and confirm.other_is_good(slot)
        boot = BOOT_ID.read_text().strip()
        return cls(slot, release["IMAGE_VERSION"], board_compatible(), may_go_back, boot)

    @property
    def other_slot(self) -> str:
        """Where an update goes."""
        return "B" if self.slot == "A" else "A"


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


def is_older(version: str, than: str) -> bool:
    """Whether one version comes before another as Debian compares them."""
    return subprocess.run(["dpkg", "--compare-versions", version, "lt", than], check=False).returncode == 0


def check(update: Update, machine: Machine) -> None:
    """Whether an update may be installed.

    Raises:
        ConfigError: It may not.
    """
    if update.compatible != machine.compatible:
        raise ConfigError(
            f"The update is for '{update.compatible}', this board is '{machine.compatible}'. Take the one of its "
            f"recipe.",
            key="flash.incompatible",
        )
    if is_older(update.version, machine.version):
        raise ConfigError(
            f"The update has version {update.version}, which is older than {machine.version}, the system that runs: it "
            f"is refused. To go back, build the old content with a newer version.",
            key="flash.downgrade",
        )
    check_settled(machine)


def check_settled(machine: Machine) -> None:
    """Refuse to write over a system that may be needed.

    Raises:
        ConfigError: The system that runs has not been confirmed yet, and there is another one to go back to.
    """
    if machine.may_go_back:
        raise ConfigError(
            f"System {machine.version} has not been confirmed yet: an update would be written over the one to go back "
            f"to. Wait until it has answered (systemctl status moedge-confirm).",
            key="flash.unconfirmed",
        )


def install(bundle: str, machine: Machine) -> Update:
    """Install a bundle into the other slot, or say why not. What RAUC says goes to the terminal.

    Raises:
        ConfigError: It may not be installed here.
        TrustError: It is not signed by somebody whom the board trusts.
        StorageError: RAUC failed; the system that runs is as it was.
    """
    update = look_at(bundle)
    check(update, machine)
    code = subprocess.run(["rauc", "install", bundle], check=False).returncode
    if code:
        raise StorageError(
            f"RAUC ended with code {code}; what it said is above, and more of it in `journalctl -u rauc`. The system "
            f"that runs is as it was. If the bundle was damaged on its way, copy it anew.",
            key="flash.install",
        )
    return update


def restart() -> None:
    """Start the machine anew.

    Raises:
        StorageError: systemd refuses.
    """
    done = subprocess.run(["systemctl", "reboot"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(
            f"The machine cannot be started anew: {done.stderr.strip()[-300:]}. Start it by hand.", key="flash.reboot"
        )
