"""Keeps a system that was booted for the first time only if its daemon has answered; else goes back to the other.

The notion is that of `moedge bundle update`: answers of the running daemon, within a time, as update.yaml says them.
RAUC keeps which slot is good, for GRUB or the firmware; which system has been confirmed in a slot is noted in
confirmed.json first, so that a later boot without a camera undoes nothing.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from moedge_runtime.counted import counted
from moedge_runtime.daemon.system import CONFIRMED_NAME, FAULT_NAME, STATE, confirmed_builds
from moedge_runtime.durable import write_durably
from moedge_runtime.errors import StorageError
from moedge_runtime.mqtt.payloads import SystemUpdateFault

from moedge_devices.store.daemon import Said
from moedge_devices.store.durable import remove_durably

GRUBENV = Path("/boot/efi/EFI/debian/grubenv")
BACKEND = Path("/usr/lib/moedge-image/tryboot")
"""RAUC's backend for the firmware of a Raspberry Pi; not there with GRUB."""
COMMAND_LINE = Path("/proc/cmdline")
OS_RELEASE = Path("/etc/os-release")
STEP_S = 0.5


def booted_slot(command_line: str) -> str:
    """The slot that the kernel was told.

    Raises:
        StorageError: It was told none.
    """
    for word in command_line.split():
        if word in ("rauc.slot=A", "rauc.slot=B"):
            return word[-1]
    raise StorageError(
        f"The kernel's command line names no slot: '{command_line.strip()[:100]}'. This command is for systems that "
        f"`moedge flash build` made.",
        key="flash.no_slot",
    )


def assignments(text: str) -> dict[str, str]:
    """Lines NAME=VALUE, as os-release and grub-editenv have them."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value.strip('"') for name, _, value in pairs}


def is_confirmed(slot: str, build: str, state: Path = STATE) -> bool:
    """Whether the system `build` has answered in `slot` before."""
    return confirmed_builds(state).get(slot) == build


def note_confirmed(slot: str, build: str, state: Path = STATE) -> None:
    """Note that it has; lasting when this returns."""
    write_durably(state / CONFIRMED_NAME, confirmed_text(confirmed_builds(state) | {slot: build}))


def confirmed_text(builds: Mapping[str, str]) -> bytes:
    """The content of confirmed.json."""
    return json.dumps(dict(sorted(builds.items()))).encode() + b"\n"


def note_fault(version: str | None, key: str, message: str, state: Path = STATE) -> None:
    """Note why an update failed, for the daemon's `info` and the updater."""
    fault = SystemUpdateFault(version=version, key=key, message=message)
    write_durably(state / FAULT_NAME, fault.model_dump_json().encode())


def fault_of(version: str, state: Path = STATE) -> str | None:
    """What was noted of the failed update to a version; None if nothing was."""
    try:
        fault = SystemUpdateFault.model_validate_json((state / FAULT_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return fault.message if fault.version == version else None


def forget_fault(state: Path = STATE) -> None:
    """The last update went well."""
    remove_durably(state / FAULT_NAME)


def wait_for_answers(said: Callable[[], Said | None], answers: int, within_s: float) -> str | None:
    """Why the daemon has not answered enough frames; None once it has."""
    deadline_s = time.monotonic() + within_s
    while True:
        now = said()
        if now is not None and now.bundle is not None and now.answers >= answers:
            return None
        if time.monotonic() >= deadline_s:
            break
        time.sleep(STEP_S)
    if now is None:
        return f"no daemon ran at the end of the wait of {within_s:g} s"
    return f"the daemon has answered {now.answers:,} of the {counted(answers, 'frame')} wanted within {within_s:g} s"


def other_is_good(slot: str, grubenv: Path = GRUBENV, backend: Path = BACKEND) -> bool:
    """Whether there is a system to go back to."""
    other = "B" if slot == "A" else "A"
    if backend.exists():
        asked = subprocess.run([backend, "get-state", other], capture_output=True, text=True, check=False)
        return asked.stdout.strip() == "good"
    listed = subprocess.run(["grub-editenv", str(grubenv), "list"], capture_output=True, text=True, check=False)
    return assignments(listed.stdout).get(f"{other}_OK") == "1"


def mend_variables(grubenv: Path = GRUBENV) -> bool:
    """Put back the variables of the last good boot if a power cut has emptied them: nobody can mark a slot without.

    Returns:
        Whether there was something to mend.
    """
    listed = subprocess.run(["grub-editenv", str(grubenv), "list"], capture_output=True, check=False)
    if listed.returncode == 0:
        return False
    # In place, on a partition that is mounted sync: FAT refuses modes, and a power cut here is mended by the next boot.
    grubenv.write_bytes(grubenv.with_name("grubenv.last").read_bytes())
    return True


def mark(good: bool) -> None:
    """Tell RAUC, and through it GRUB, what became of the booted slot.

    Raises:
        StorageError: It could not be written.
    """
    word = "mark-good" if good else "mark-bad"
    done = subprocess.run(["rauc", "status", word, "booted"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(f"`rauc status {word}` failed: {done.stderr.strip()[-300:]}", key="flash.mark")
