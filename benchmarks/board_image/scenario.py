"""One board's life in the emulator, and what is measured of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

from fleet.figures import report
from moedge_devices.flash.confirm import assignments
from moedge_devices.flash.layout import MIB, ROOT_PARTITIONS
from moedge_devices.flash.write import place_of

from board_image.emulator import PROMPT, Board, BoardError
from board_image.samples import MOEDGE, WITHIN_S
from board_image.works import VERSION, Works, root_of, squashfs_in

BOOT_S = 900.0
"""Longest start in the emulator."""
INSTALL_S = 1200.0
ANSWER_S = 900.0
REFUSED = ("unsigned", "stranger", "tampered", "older")
UPDATES = "/run/updates"


class Scenario:
    """Its parts in their order; each prints its figures.

    Args:
        works: What was built.
        directory: For disks, logs and what the broker heard; made anew.
    """

    def __init__(self, works: Works, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.right: list[bool] = []
        self._works, self._directory = works, directory
        self._disk, self._log, self._heard = directory / "disk.qcow2", directory / "console.log", directory / "heard"
        self._ready = directory / "ready.qcow2"
        self._update_s = 0.0

    def __enter__(self) -> Scenario:
        size = self._works.image.stat().st_size + 512 * MIB
        subprocess.run(
            [
                *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"),
                *("-b", self._works.image.resolve(), self._disk, str(size)),
            ],
            check=True,
        )
        config = self._directory / "mosquitto.conf"
        config.write_text(f"listener {self._works.port} 127.0.0.1\nallow_anonymous true\n")
        self._broker = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
        time.sleep(1)  # mosquitto says nowhere that it listens
        url = f"mqtt://127.0.0.1:{self._works.port}"
        with self._heard.open("w") as file:
            self._client = subprocess.Popen([*MOEDGE, "watch", "--json", "--url", url], stdout=file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._client, self._broker):
            process.kill()
            process.wait()
        if hasattr(self, "_board"):
            self._board.cut_power()

    def first_boot(self) -> None:
        """The seed is taken, answers arrive, the root is read-only, the next boot takes nothing again."""
        started_s = time.monotonic()
        self._start()
        self._figure("first boot to the shell", time.monotonic() - started_s, "s", BOOT_S)
        self._wait_for_answers(1)
        self._figure("first boot to the first answer at the broker", time.monotonic() - started_s, "s", ANSWER_S)
        say = self._board.say
        self._figure("files of the seed in /etc/moedge", len(say("ls /etc/moedge").split()), "files", 3, least=True)
        left = say("tr -d '\\0' </dev/disk/by-partlabel/moedge-seed | wc -c")
        self._figure("bytes left of the seed", int(left), "bytes", 0)
        self._holds("host name is the device's", say("hostname") == "bench-01")
        self._holds("root is read-only", "ro" in say("findmnt -no OPTIONS /").split(","))
        self._holds("journal is volatile", say("ls -d /var/log/journal 2>/dev/null") == "")
        grown = int(say("df -B1 --output=size /var/lib/moedge | tail -n 1"))
        self._figure("data partition on a larger disk", grown / MIB, "MiB", 512, least=True)
        self._restart()
        seed = say_seed = self._board.say("journalctl --no-pager -b -o cat -u moedge-seed | grep Seed:")
        self._holds("the second boot takes no seed", "none to take" in say_seed, seed)
        self._wait_confirmed("A")

    def refusals(self) -> None:
        """Bundles that are not installed; the boot loader's variables stay."""
        self._board.say(f"mkdir {UPDATES}; mount -o ro /dev/vdb {UPDATES}")
        before = self._boot_variables()
        for name in REFUSED:
            said = self._board.say(f"rauc install {UPDATES}/{name}.raucb; echo code=$?", INSTALL_S)
            refused = "code=1" in said
            self._holds(f"{name} bundle is refused", refused and self._boot_variables() == before, said[-300:])
        self._board.save("ready")
        self._board.cut_power()
        shutil.copyfile(self._disk, self._ready)
        self._board = Board(self._disk, self._works.updates, self._log, "ready")

    def undone_update(self) -> None:
        """An update whose daemon answers nothing, here since its model is gone, goes back by itself."""
        said = self._board.say(f"rauc install {UPDATES}/same.raucb; echo code=$?", INSTALL_S)
        self._holds("update without a model is installed", "code=0" in said, said[-300:])
        self._board.say("mv /var/lib/moedge/store/current /var/lib/moedge/store/away; sync")
        self._restart()
        self._holds("update without a model is booted", self._slot() == "B")
        started_s = time.monotonic()
        self._board.wait_for("moedge: slot", WITHIN_S + BOOT_S)  # of the next boot, which nobody here asks for
        self._board.wait_for(PROMPT, BOOT_S)
        self._figure("update without a model to the old system", time.monotonic() - started_s, "s", WITHIN_S + BOOT_S)
        self._settle()
        self._holds("the old slot is booted", self._slot() == "A")
        self._holds("the slot without answers is marked bad", self._boot_variables().get("B_OK") == "0")
        self._board.say("mv /var/lib/moedge/store/away /var/lib/moedge/store/current; systemctl restart moedge")
        self._wait_confirmed("A")

    def kept_update(self) -> None:
        """An update whose daemon answers is kept."""
        self._board.say(f"mkdir -p {UPDATES}; mount -o ro /dev/vdb {UPDATES}")
        started_s = time.monotonic()
        said = self._board.say(f"rauc install {UPDATES}/same.raucb; echo code=$?", INSTALL_S)
        self._figure("installing an update", time.monotonic() - started_s, "s", INSTALL_S)
        self._holds("update is installed", "code=0" in said, said[-300:])
        self._restart()
        self._holds("the other slot is booted", self._slot() == "B")
        self._wait_confirmed("B")
        self._update_s = time.monotonic() - started_s
        self._figure("update to being confirmed by an answer", self._update_s, "s", INSTALL_S + BOOT_S + WITHIN_S)
        self._restart()
        self._holds("the update is kept in the next boot", self._slot() == "B")
        self._board.cut_power()

    def power_cuts(self, count: int) -> None:
        """Cut the power at `count` moments from the start of an update to its first answer."""
        slots, whole, answering = [], 0, 0
        built = hashlib.sha256(root_of(self._works.image)).hexdigest()
        for number in range(count):
            shutil.copyfile(self._ready, self._disk)
            after_s = self._update_s * (number + 0.5) / count
            self._board = Board(self._disk, self._works.updates, self._log, "ready")
            self._board.begin(f"rauc install {UPDATES}/same.raucb && systemctl reboot")
            self._board.listen_for(after_s)
            self._board.cut_power()
            heard = self._answers()
            try:
                self._start()
                slots.append(self._slot())
                self._wait_for_answers(heard + 1)
                answering += 1
            except BoardError as error:
                self._holds(f"boots after a cut at {after_s:.0f} s", False, str(error)[-500:])
                continue
            finally:
                self._board.cut_power()
            whole += self._digest(self._disk, slots[-1]) == built
            print(json.dumps({"cut_s": round(after_s, 1), "slot": slots[-1]}), flush=True)
        self._figure("boots after power cuts", len(slots), "boots", count, least=True)
        self._figure("of them answering", answering, "boots", count, least=True)
        self._figure("of them with a whole root file system", whole, "boots", count, least=True)

    def _start(self) -> None:
        self._board = Board(self._disk, self._works.updates, self._log)
        self._board.wait_for(PROMPT, BOOT_S)
        self._settle()

    def _restart(self) -> None:
        self._board.begin("systemctl reboot")
        self._board.wait_for("BdsDxe|UEFI firmware|moedge: slot", BOOT_S)
        self._board.wait_for(PROMPT, BOOT_S)
        self._settle()

    def _settle(self) -> None:
        self._board.say("dmesg -n 1")

    def _slot(self) -> str:
        return self._board.say("sed 's/.*rauc.slot=\\(.\\).*/\\1/' /proc/cmdline")

    def _boot_variables(self) -> dict[str, str]:
        return assignments(self._board.say("grub-editenv /boot/efi/EFI/debian/grubenv list"))

    def _wait_confirmed(self, slot: str) -> None:
        """Until the unit says that the system counts."""
        deadline_s = time.monotonic() + WITHIN_S + BOOT_S
        wanted = f"System {VERSION} in slot {slot} is confirmed"
        while wanted not in (said := self._board.say("journalctl --no-pager -b -o cat -u moedge-confirm")):
            if time.monotonic() > deadline_s:
                raise BoardError(f"'{wanted}' was not said: {said}")
            time.sleep(2)
        variables = self._boot_variables()
        self._holds(f"slot {slot} is confirmed", (variables[f"{slot}_OK"], variables[f"{slot}_TRY"]) == ("1", "0"))

    def _answers(self) -> int:
        """Good answers that the client of the broker has heard."""
        return sum('"status": "ok"' in line or '"status":"ok"' in line for line in self._heard.read_text().splitlines())

    def _wait_for_answers(self, count: int) -> None:
        deadline_s = time.monotonic() + ANSWER_S
        while self._answers() < count:
            if time.monotonic() > deadline_s:
                raise BoardError(f"{self._answers()} answers were heard of {count} within {ANSWER_S:g} s")
            self._board.listen_for(1)

    def _digest(self, disk: Path, slot: str) -> str:
        """SHA-256 of a slot's file system, as far as it reaches."""
        offset, size = place_of(ROOT_PARTITIONS[slot], self._works.image)
        raw = self._directory / "slot.raw"
        subprocess.run(
            [
                *("qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={MIB}", f"skip={offset // MIB}"),
                *(f"count={(offset + size) // MIB}", f"if={disk}", f"of={raw}"),
            ],
            check=True,
            capture_output=True,
        )
        with raw.open("rb") as file:
            return hashlib.sha256(squashfs_in(file)).hexdigest()

    def _figure(self, name: str, value: float, unit: str, bound: float | None = None, *, least: bool = False) -> None:
        self.right.append(report(name, value, unit, bound, least=least))

    def _holds(self, name: str, holds: bool, said: str = "") -> None:
        if not holds:
            print(json.dumps({"name": name, "said": said}), flush=True)
        self._figure(name, float(holds), "true", 1, least=True)
