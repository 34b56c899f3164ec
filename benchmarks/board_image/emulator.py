"""qemu-system-aarch64 with UEFI, a root shell on its serial line, and a switch to cut its power."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

FIRMWARE = Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd")
PROMPT = "board-shell#"
"""What the test overlay makes the shell print when it waits for a command."""
_STEP_S = 2.0


class BoardError(Exception):
    """The machine has not done in time what was wanted of it; with the end of its log."""


class Clock:
    """Seconds in which this process ran: it stands still while everything is stopped, as nothing is late then."""

    def __init__(self) -> None:
        self._seen_s, self._ran_s = time.monotonic(), 0.0

    def now(self) -> float:
        """To be asked at least every two seconds: what is longer counts as a stop."""
        seen_s = time.monotonic()
        self._ran_s += min(seen_s - self._seen_s, _STEP_S)
        self._seen_s = seen_s
        return self._ran_s


class Board:
    """One machine that runs until its power is cut.

    Args:
        disk: qcow2; kept.
        updates: A raw disk that is read only; None for none.
        log: Everything it says, appended.
        clock: For deadlines.
        snapshot: Go on from this state of `disk` instead of booting.
    """

    def __init__(
        self, disk: Path, updates: Path | None, log: Path, clock: Clock, *, snapshot: str | None = None
    ) -> None:
        self._log, self._clock = log, clock
        self._heard = ""
        ours, theirs = socket.socketpair()
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a76", "-accel", "tcg,thread=multi", "-smp", "2"]
        command += ["-m", "1024", "-bios", str(FIRMWARE), "-nographic", "-nodefaults"]
        command += ["-drive", f"file={disk.resolve()},if=none,id=disk,format=qcow2,cache=writeback"]
        command += ["-device", "virtio-blk-pci,drive=disk,bootindex=0", "-device", "virtio-rng-pci"]
        command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        command += ["-chardev", f"socket,id=serial,fd={theirs.fileno()}", "-serial", "chardev:serial"]
        self._control = log.with_suffix(".monitor")
        self._control.unlink(missing_ok=True)
        command += ["-monitor", f"unix:{self._control},server=on,wait=off"]
        if updates:
            command += ["-drive", f"file={updates},if=none,id=updates,format=raw,readonly=on"]
            command += ["-device", "virtio-blk-pci,drive=updates"]
        if snapshot:
            command += ["-loadvm", snapshot]
        self._line = ours
        self._line.settimeout(1.0)
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()

    def wait_for(self, pattern: str, within_s: float) -> re.Match[str]:
        """The first match in what it says from now on; what is before and in the match is used up.

        Raises:
            BoardError: There is none in time, or the machine has ended.
        """
        deadline_s = self._clock.now() + within_s
        while True:
            match = re.search(pattern, self._heard)
            if match:
                self._heard = self._heard[match.end() :]
                return match
            if self._clock.now() > deadline_s or self._process.poll() is not None:
                raise BoardError(f"No '{pattern}' within {within_s:g} s. It said at last:\n{self._heard[-2000:]}")
            self.listen()

    def say(self, command: str, within_s: float = 300.0) -> str:
        """What a command of the shell prints."""
        self.begin(f"{command}; echo \"'end'\"$?")  # the shell does not echo
        deadline_s = self._clock.now() + within_s
        while not (match := re.search(r"'end'\d+", self._heard)):
            if self._clock.now() > deadline_s or self._process.poll() is not None:
                raise BoardError(f"'{command}' has not ended within {within_s:g} s: {self._heard[-2000:]}")
            self.listen()
        text, self._heard = self._heard[: match.start()], self._heard[match.end() :]
        return text.replace("\r", "").strip().removeprefix(PROMPT).strip()

    def has_said(self, pattern: str) -> bool:
        """Whether it has said so since the last command."""
        return re.search(pattern, self._heard) is not None

    def begin(self, command: str) -> None:
        """Type a command and wait for nothing."""
        self._heard = ""
        with self._log.open("a") as file:
            file.write(f"{command}\n")
        self._line.sendall(f"{command}\n".encode())

    def listen(self, within_s: float = 1.0) -> None:
        """Let it go on until it says something, for so long at most."""
        self._line.settimeout(within_s)
        try:
            data = self._line.recv(65536)
        except TimeoutError:
            return
        if not data:
            time.sleep(0.05)
            return
        with self._log.open("ab") as file:
            file.write(data)
        self._heard += data.decode(errors="replace")

    def save(self, name: str) -> None:
        """Keep its state, memory included, in its disk."""
        self._order(f"savevm {name}")

    def write_beside(self, overlay: Path) -> None:
        """From now on its disk is `overlay`, which holds what changes; the one before stays as it is."""
        self._order(f"snapshot_blkdev disk {overlay.resolve()} qcow2")

    def copy_disk(self, disk: Path, copy: Path) -> None:
        """What a power cut in this moment would leave on `disk`: the machine stands still while it is copied."""
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            shutil.copyfile(disk, copy)
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def cut_power(self) -> None:
        """Kill the emulator: what the machine's kernel has not written is lost."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._line.close()
        self._control.unlink(missing_ok=True)

    def _order(self, command: str) -> None:
        """Have the emulator do something; it hears once the machine has said something."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._control))
            control.settimeout(900)
            said = control.recv(4096)
            while b"(qemu) " not in said:
                said += control.recv(4096)
            control.sendall(f"{command}\n".encode())
            said = b""
            while b"(qemu) " not in said.partition(b"\n")[2]:
                said += control.recv(4096)
        answer = said.decode(errors="replace").partition("\n")[2]
        if "rror" in answer:
            raise BoardError(f"The emulator refused '{command}': {answer}")
