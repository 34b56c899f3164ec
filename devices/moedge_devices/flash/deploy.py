"""Puts moedge and a device's files onto a board that has a system already, over SSH: NVIDIA's for Jetson, any Debian's.

A plan that says its commands, then exactly these. What is secret goes through standard input, never onto a command line
or into a file other than those of /etc/moedge. The board's own `moedge doctor` is the check before the daemon starts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.flash.layout import MIB
from moedge_devices.flash.seed import pack
from moedge_devices.flash.tools import need, run

LARGEST_SEED_BYTES = 4 * MIB
"""As the partition for it in an image has room."""

_AS_ROOT = 'S=; [ "$(id -u)" = 0 ] || S="sudo -n"; '
_INSTALL = (
    'D=$(mktemp -d) && cat >"$D/moedge.deb" && '
    '$S env DEBIAN_FRONTEND=noninteractive apt-get install --yes "$D/moedge.deb"; C=$?; rm -r "$D"; exit $C'
)
_DOCTOR = "moedge doctor --config /etc/moedge/moedge.yaml --no-measure"


@dataclass(frozen=True)
class Step:
    """One step: what it is for, the command on the board, and what is given to it."""

    text: str
    command: str
    given: bytes = b""
    file: Path | None = None
    """Given in the place of `given`."""
    shown: bool = False
    """Whether what it prints is for the user."""


@dataclass(frozen=True)
class Plan:
    """What will be done on which board."""

    address: str
    architecture: str
    steps: tuple[Step, ...]

    def lines(self) -> list[str]:
        """The plan for people."""
        return [
            f"ssh {self.address}:",
            *(f"{number}. {step.text}\n     {step.command}" for number, step in enumerate(self.steps, 1)),
        ]


def plan_deploy(address: str, device: str, package: Path, files: Mapping[str, bytes]) -> Plan:
    """What putting a device's files onto a board means.

    Args:
        address: [USER@]HOST as ssh takes it.
        device: Name of the device.
        package: The Debian package.
        files: Of the device's /etc/moedge.

    Raises:
        ConfigError: A program is missing, the address or the package is none, or the files are too large.
        StorageError: The package cannot be read.
    """
    need("ssh", "dpkg-deb")
    if not address or address.startswith("-") or any(character.isspace() for character in address):
        raise ConfigError(f"'{address}' is no address. Write [USER@]HOST.", key="flash.address")
    architecture = run(["dpkg-deb", "--field", package, "Architecture"], f"'{package}' is no Debian package").strip()
    seed = pack(files, LARGEST_SEED_BYTES)
    names = ", ".join(sorted(files))
    steps = (
        Step(
            f"the board must be {architecture} and let this user be root",
            _AS_ROOT + f'$S true && test "$(dpkg --print-architecture)" = {architecture}',
        ),
        Step(f"install {package.name}, given on standard input", _AS_ROOT + _INSTALL, file=package),
        Step(
            f"write {names} of '{device}' to /etc/moedge ({len(seed):,} bytes on standard input)",
            _AS_ROOT + "$S moedge flash seed --from -",
            given=seed,
        ),
        Step("check the board", _AS_ROOT + f"$S {_DOCTOR}", shown=True),
        Step("start the daemon", _AS_ROOT + "$S systemctl restart moedge"),
    )
    return Plan(address, architecture, steps)


def execute(plan: Plan, say: Callable[[str], None], show: Callable[[str], None]) -> None:
    """Do what a plan says, in its order; the first step that fails is the last.

    Args:
        plan: Which.
        say: Told each step.
        show: Told what the board says of itself.

    Raises:
        StorageError: A step failed. The plan can be executed again.
    """
    for number, step in enumerate(plan.steps, 1):
        say(f"{number}. {step.text}")
        done = subprocess.run(
            ["ssh", "-T", plan.address, step.command],
            input=step.file.read_bytes() if step.file else step.given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        text = done.stdout.decode(errors="replace").strip()
        if step.shown and text:
            show(text)
        if done.returncode:
            said = "" if step.shown else "\n" + "\n".join(text.splitlines()[-20:])
            raise StorageError(
                f"Step {number} on {plan.address} ended with code {done.returncode} ({step.text}). Nothing after it "
                f"was done; mend it and run the command again.{said}",
                key="flash.deploy",
            )
