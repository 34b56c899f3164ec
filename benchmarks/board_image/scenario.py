"""One board's life in the emulator, and what is measured of it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from figures import report
from moedge_devices.flash.confirm import assignments
from moedge_devices.flash.layout import MIB, ROOT_PARTITIONS
from moedge_devices.flash.write import place_of
from paho.mqtt.subscribe import simple

from board_image.emulator import PROMPT, Board, BoardError, Clock
from board_image.samples import HOST, MOEDGE, WITHIN_S
from board_image.web import https_server
from board_image.works import ROOT, VERSIONS, Works, squashfs_in

BOOT_S = 1800.0
"""Longest start in the emulator."""
INSTALL_S = 2400.0
ANSWER_S = 1800.0
PATIENT_S = 3600
"""For answers of an update that is to be kept."""
REFUSED = {
    "unsigned": r"is no signed update: .*Copy it anew",
    "stranger": r"is signed by nobody whom this board trusts .*moedge flash build --update --cert --key",
    "tampered": r"RAUC ended with code 1; .*copy it anew",
    "older": r"version 0\.9, which is older than 1\.0, .*build the old content with a newer version",
}
"""Bundles, and why and what to do `moedge flash install` has to say."""
UPDATES = "/run/updates"
TRUTH = ROOT / "examples" / "panel" / "video" / "truth.jsonl"
GRUBENV = "/boot/efi/EFI/debian/grubenv"


class Scenario:
    """Its parts; each prints its figures. All but the first go on from the machine that the first one kept.

    Args:
        works: What was built.
        directory: For disks, logs and what the broker heard.
        cuts: How many power cuts.
    """

    def __init__(self, works: Works, directory: Path, cuts: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.right: list[bool] = []
        self._works, self._directory, self._cuts = works, directory, cuts
        self._disk, self._ready, self._heard = directory / "disk.qcow2", directory / "ready.qcow2", directory / "heard"
        self._clock = Clock()
        self._board: Board | None = None
        self.parts: dict[str, Callable[[], None]] = {
            "first-boot": self.first_boot,
            "refusals": self.refusals,
            "source": self.update_from_a_source,
            "kept": self.kept_update,
            "cuts": self.power_cuts,
            "undone": self.undone_update,
            "grubenv": self.empty_variables,
            "unreadable": self.unreadable_slot,
            "camera": self.camera_of_the_kernel,
        }

    def __enter__(self) -> Scenario:
        config = self._directory / "mosquitto.conf"
        config.write_text(f"listener {self._works.port} 127.0.0.1\nallow_anonymous true\n")
        self._broker = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
        time.sleep(1)  # mosquitto says nowhere that it listens
        self._heard.write_text("")
        self._client = self._listen_to_broker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._client, self._broker):
            process.kill()
            process.wait()
        self._cut_power()

    def run(self, name: str) -> None:
        """One part."""
        self._log = self._directory / f"{name}.log"
        self._log.unlink(missing_ok=True)
        try:
            self.parts[name]()
        finally:
            self._cut_power()

    def first_boot(self) -> None:
        """The seed is taken, answers arrive, the root is read-only; the machine is kept as it is then."""
        self._disk.unlink(missing_ok=True)
        image = self._works.image
        backing = ("-b", image.resolve(), "-F", "raw")
        size = image.stat().st_size + 512 * MIB
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, self._disk, str(size)], check=True)
        started_s = self._clock.now()
        self._start(self._disk)
        self._figure("first boot to the shell", self._clock.now() - started_s, "s", BOOT_S)
        self._wait_for_answers(1)
        self._figure("first boot to the first answer at the broker", self._clock.now() - started_s, "s", ANSWER_S)
        self._answers_are_right()
        say = self._say
        self._figure("files of the seed in /etc/moedge", len(say("ls /etc/moedge").split()), "files", 3, least=True)
        left = say("tr -d '\\0' </dev/disk/by-partlabel/moedge-seed | wc -c")
        self._figure("bytes left of the seed", int(left), "bytes", 0)
        self._holds("host name is the device's", say("hostname") == "bench-01")
        self._holds("root is read-only", "ro" in say("findmnt -no OPTIONS /").split(","))
        self._holds("journal is volatile", say("ls -d /var/log/journal 2>/dev/null") == "")
        grown = int(say("df -B1 --output=size /var/lib/moedge | tail -n 1"))
        self._figure("data partition on a larger disk", grown / MIB, "MiB", 512, least=True)
        self._wait_confirmed("A")
        say("journalctl --no-pager -b -o short-monotonic -u 'moedge*' -u rauc -u systemd-repart")
        say(f"mkdir {UPDATES}; mount -o ro /dev/vdb {UPDATES}; sync")
        self._machine.save("ready")
        self._cut_power()
        self._disk.replace(self._ready)

    def refusals(self) -> None:
        """Bundles that are not installed; the boot loader's variables stay."""
        self._resume()
        before = self._boot_variables()
        for name, words in REFUSED.items():
            said = self._say(f"moedge flash install {UPDATES}/{name}.raucb; echo code=$?", INSTALL_S)
            refused = re.search(r"code=[12]$", said) and re.search(words, " ".join(said.split()))
            self._holds(f"{name} bundle is refused", bool(refused) and self._boot_variables() == before, said[-600:])
        said = self._say(f"rauc install {UPDATES}/older.raucb; echo code=$?", INSTALL_S)
        refused_by_rauc = "code=1" in said and self._boot_variables() == before
        self._holds("older bundle is refused by RAUC, too", refused_by_rauc, said[-300:])

    def update_from_a_source(self) -> None:
        """The unit of the image finds an update in a directory that is served over HTTPS, and is confirmed."""
        self._resume()
        with https_server(self._works.published, self._works.server) as port:
            lines = (f"source: https://{HOST}:{port}", "ca: /etc/moedge/ca.pem", "device: /etc/moedge/device.json")
            self._say(f"printf '%s\\n' {shlex.join(lines)} >>/etc/moedge/update.yaml; sync")
            self._say(f"sed -i 's/^within: .*/within: {PATIENT_S}/' /etc/moedge/update.yaml; sync")
            started_s = self._clock.now()
            self._machine.begin("systemctl start moedge-system-update; systemctl status moedge-system-update")
            self._machine.wait_for(f"(?s)moedge: slot B.*{PROMPT}", INSTALL_S + BOOT_S)
            self._settle()
            self._holds("a system of the source is booted", self._slot() == "B")
            self._wait_confirmed("B")
            took_s = self._clock.now() - started_s
            self._figure("system of the source to being confirmed", took_s, "s", INSTALL_S + BOOT_S + PATIENT_S)
            # Its timer may have been faster.
            run = "moedge flash update 2>&1; journalctl --no-pager -b -o cat -u moedge-system-update"
            said = self._say(run, ANSWER_S)
            self._holds("a system of the source counts", "counts: it has answered" in said, said[-600:])
        left = self._say("find /var/lib/moedge/store/systems /var/lib/moedge/system/update.json -type f")
        self._holds("nothing of the update is left on the data partition", "raucb" not in left, left)
        self._wait_for_info(lambda system: (system["image_version"], system["confirmed"]) == (VERSIONS["B"], True))
        self._holds("the daemon says that it counts", True)

    def kept_update(self) -> None:
        """An update whose daemon answers is kept. On the way the disk is copied at the moments of power cuts."""
        base, overlay = self._directory / "base.qcow2", self._directory / "update.qcow2"
        self._resume(base)
        self._say(f"sed -i 's/^within: .*/within: {PATIENT_S}/' /etc/moedge/update.yaml; sync")
        self._machine.write_beside(overlay)
        moments = _spread(self._moments(overlay), self._cuts)
        started_s = self._clock.now()
        self._machine.begin(f"moedge flash install {UPDATES}/newer.raucb; echo code=$?; sleep 3; systemctl reboot")
        for name, reached in moments:
            deadline_s = self._clock.now() + INSTALL_S + BOOT_S
            while not reached():
                if self._clock.now() > deadline_s or self._machine.has_said("code=[1-9]"):
                    raise BoardError(f"There was no moment '{name}'; see {self._log}")
                self._machine.listen(0.05)
            self._machine.copy_disk(overlay, self._cut_disk(name))
        self._machine.wait_for(f"(?s)moedge: slot B.*{PROMPT}", INSTALL_S + BOOT_S)
        self._settle()
        self._figure("update to the shell of the new system", self._clock.now() - started_s, "s", INSTALL_S + BOOT_S)
        self._holds("the other slot is booted", self._slot() == "B")
        self._wait_confirmed("B")
        took_s = self._clock.now() - started_s
        self._figure("update to being confirmed by an answer", took_s, "s", INSTALL_S + BOOT_S + PATIENT_S)
        seed = self._say("journalctl --no-pager -b -o cat -u moedge-seed | grep Seed:")
        self._holds("the second boot takes no seed", "none to take" in seed, seed)
        self._restart()
        self._holds("the update is kept in the next boot", self._slot() == "B")
        self._wait_confirmed("B")

    def power_cuts(self) -> None:
        """Start from what a power cut left at each moment of the update that was kept."""
        names = [name for name, _ in _spread(self._moments(self._ready), self._cuts) if self._cut_disk(name).exists()]
        for name in names:
            disk, heard = self._cut_disk(name), self._answers()
            try:
                self._start(disk)
                slot = self._slot()
                good = [each for each in "AB" if self._boot_variables().get(f"{each}_OK") == "1"]
                self._wait_for_answers(heard + 1)
            except BoardError as error:
                self._holds(f"after a cut: {name}", False, str(error)[-500:])
                continue
            finally:
                self._cut_power()
            whole = all(self._digest(disk, each) == self._works.digests[each] for each in {slot, *good})
            self._holds(f"after a cut: {name}", whole, slot=slot, good=good)
            disk.unlink()
        self._figure("power cuts that were started from", len(names), "cuts", self._cuts, least=True)
        self._answers_are_right()

    def empty_variables(self) -> None:
        """GRUB goes on without its variables, as grub-editenv leaves them for a moment."""
        self._resume()
        self._say(f": >{GRUBENV}; sync")
        self._cut_power()
        self._board = Board(self._disk, self._works.updates, self._log, self._clock)
        said = self._machine.wait_for(r"moedge: slot (.*\))", BOOT_S)[1]
        self._machine.wait_for("Exiting boot services", BOOT_S)
        self._holds("an empty grubenv boots the last good slot", said.startswith("A of A B (A_OK=1"), said)

    def undone_update(self) -> None:
        """An update whose daemon answers nothing, here since its model is gone, goes back by itself."""
        self._resume()
        said = self._say(f"rauc install {UPDATES}/newer.raucb; echo code=$?", INSTALL_S)
        self._holds("update without a model is installed", "code=0" in said, said[-300:])
        self._say("mv /var/lib/moedge/store/current /var/lib/moedge/store/away; sync")
        self._restart()
        self._holds("update without a model is booted", self._slot() == "B")
        started_s = self._clock.now()
        longest_s = WITHIN_S + 2 * BOOT_S
        self._machine.wait_for("moedge: slot", longest_s)  # of the next boot, which nobody here asks for
        self._machine.wait_for(PROMPT, longest_s)
        self._figure("update without a model to the old system", self._clock.now() - started_s, "s", longest_s)
        self._settle()
        self._holds("the old slot is booted", self._slot() == "A")
        self._holds("the slot without answers is marked bad", self._boot_variables().get("B_OK") == "0")
        heard = self._answers()
        self._say("mv /var/lib/moedge/store/away /var/lib/moedge/store/current; systemctl restart moedge", BOOT_S)
        self._wait_for_answers(heard + 1)
        self._wait_confirmed("A")
        self._wait_for_info(lambda system: (system["update_fault"] or {}).get("version") == VERSIONS["B"])
        self._holds("the daemon says that the update was undone", True)

    def unreadable_slot(self) -> None:
        """A slot that counts as good and holds nothing is tried three times, then the other one is booted."""
        self._resume()
        self._say(f"grub-editenv {GRUBENV} set 'ORDER=B A' B_OK=1 B_TRY=0; sync")
        self._machine.begin("systemctl reboot")
        tried = [self._machine.wait_for("moedge: slot ([AB]) of", BOOT_S)[1] for _ in range(4)]
        self._holds("an unreadable slot is tried three times", "".join(tried) == "BBBA", str(tried))
        self._machine.wait_for(PROMPT, BOOT_S)
        self._settle()
        self._wait_confirmed("A")

    def camera_of_the_kernel(self) -> None:
        """Frames of the kernel's virtual video device, through video4linux."""
        self._resume()
        self._say("modprobe vivid n_devs=1 node_types=0x1")
        self._holds("the kernel's virtual camera is there", self._say("ls /dev/video0") == "/dev/video0")
        text = self._say("cat /etc/moedge/moedge.yaml")
        config: dict[str, Any] = yaml.safe_load(text)
        config["cameras"]["virtual"] = {"source": "v4l2:/dev/video0", "size": "320x180", "fps": 0.5}
        config["watches"] = [{**config["watches"][0], "name": "virtual", "camera": "virtual"}]
        del config["cameras"]["panel"]
        self._say(f"echo '{json.dumps(config)}' >/etc/moedge/moedge.yaml; systemctl restart moedge", BOOT_S)
        self._wait_for_answers(1, '"camera":"virtual"')
        self._holds("frames of the kernel's virtual camera are answered", True)

    @property
    def _machine(self) -> Board:
        if self._board is None:
            raise BoardError("No machine is running.")
        return self._board

    def _moments(self, overlay: Path) -> list[tuple[str, Callable[[], object]]]:
        """Moments of an update, in their order, and whether each has come."""

        def written(part: float) -> Callable[[], object]:
            return lambda: overlay.stat().st_blocks * 512 > part * self._works.root_bytes

        def said(pattern: str) -> Callable[[], object]:
            return lambda: self._machine.has_said(pattern)

        return [
            ("as writing begins", written(0.002)),
            ("5 % written", written(0.05)),
            ("35 % written", written(0.35)),
            ("65 % written", written(0.65)),
            ("95 % written", written(0.95)),
            ("installed", said("code=0")),
            ("GRUB has counted the try", said("moedge: slot B")),
            ("the kernel starts", said("Exiting boot services")),
            ("the new system starts", said("Seed: none")),
            ("the new system waits for answers", said("is new: it counts")),
        ]

    def _cut_disk(self, name: str) -> Path:
        return self._directory / f"cut-{''.join(c if c.isalnum() else '-' for c in name)}.qcow2"

    def _resume(self, disk: Path | None = None) -> None:
        """Go on with the machine that the first boot left."""
        disk = disk or self._disk
        shutil.copyfile(self._ready, disk)
        self._board = Board(disk, self._works.updates, self._log, self._clock, snapshot="ready")

    def _start(self, disk: Path) -> None:
        self._board = Board(disk, self._works.updates, self._log, self._clock)
        self._machine.wait_for(PROMPT, BOOT_S)
        self._settle()

    def _restart(self) -> None:
        self._machine.begin("systemctl reboot")
        self._machine.wait_for("moedge: slot", BOOT_S)
        self._machine.wait_for(PROMPT, BOOT_S)
        self._settle()

    def _settle(self) -> None:
        self._say("dmesg -n 1")

    def _cut_power(self) -> None:
        if self._board is not None:
            self._board.cut_power()
            self._board = None

    def _say(self, command: str, within_s: float = 300.0) -> str:
        return self._machine.say(command, within_s)

    def _slot(self) -> str:
        return self._say("sed 's/.*rauc.slot=\\(.\\).*/\\1/' /proc/cmdline")

    def _boot_variables(self) -> dict[str, str]:
        return assignments(self._say(f"grub-editenv {GRUBENV} list"))

    def _wait_confirmed(self, slot: str) -> None:
        """Until the unit says that the system counts."""
        wanted = f"System {VERSIONS[slot]} in slot {slot} is confirmed"
        if wanted not in self._say("journalctl --no-pager -b -o cat -u moedge-confirm"):
            self._machine.wait_for(wanted, PATIENT_S)
        variables = self._boot_variables()
        self._holds(f"slot {slot} is confirmed", (variables[f"{slot}_OK"], variables[f"{slot}_TRY"]) == ("1", "0"))

    def _listen_to_broker(self) -> subprocess.Popen[bytes]:
        with self._heard.open("a") as file:
            url = f"mqtt://127.0.0.1:{self._works.port}"
            return subprocess.Popen([*MOEDGE, "watch", "--json", "--url", url], stdout=file)

    def _answers(self, of: str = "") -> int:
        """Good answers that the client of the broker has heard as they were given."""
        if self._client.poll() is not None:  # the broker ends connections that were stopped for long
            self._client = self._listen_to_broker()
        lines = self._heard.read_text().splitlines()
        return sum('"status":"ok"' in line and '"replayed":false' in line and of in line for line in lines)

    def _wait_for_answers(self, count: int, of: str = "") -> None:
        deadline_s = self._clock.now() + ANSWER_S
        while self._answers(of) < count:
            if self._clock.now() > deadline_s:
                raise BoardError(f"{self._answers(of)} answers were heard of {count} within {ANSWER_S:g} s")
            self._machine.listen()

    def _wait_for_info(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Until the retained `info` says so of the system."""
        deadline_s = self._clock.now() + ANSWER_S
        while True:
            message = simple("moedge/bench-01/info", hostname="127.0.0.1", port=self._works.port)
            system = json.loads(message.payload)["system"]
            if holds(system):
                return
            if self._clock.now() > deadline_s:
                raise BoardError(f"The daemon says {system} of its system after {ANSWER_S:g} s")
            self._machine.listen()

    def _answers_are_right(self) -> None:
        """Whether what was read from the frames of the video stands in them."""
        spans = [json.loads(line) for line in TRUTH.read_text().splitlines()]
        length_s = spans[-1]["end_s"]  # of the video, which goes round
        answers = [json.loads(line) for line in self._heard.read_text().splitlines() if '"status":"ok"' in line]
        right = [
            answer["text"] == str(span["reading"])
            for answer in answers
            for span in spans
            if span["start_s"] <= answer["frame"]["pts_s"] % length_s < span["end_s"]
        ]
        self._figure("right answers", sum(right), "answers", len(answers), least=True)

    def _digest(self, disk: Path, slot: str) -> str:
        """SHA-256 of a slot's file system, as far as it reaches."""
        offset, size = place_of(ROOT_PARTITIONS[slot], self._works.image)
        raw = self._directory / "slot.raw"
        blocks = (f"bs={MIB}", f"skip={offset // MIB}", f"count={(offset + size) // MIB}")
        command = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", *blocks, f"if={disk}", f"of={raw}"]
        subprocess.run(command, check=True, capture_output=True)
        with raw.open("rb") as file:
            digest = hashlib.sha256(squashfs_in(file)).hexdigest()
        raw.unlink()
        return digest

    def _figure(
        self, name: str, value: float, unit: str, bound: float | None = None, *, least: bool = False, **more: Any
    ) -> None:
        self.right.append(report(name, value, unit, bound, least=least, **more))

    def _holds(self, name: str, holds: bool, said: str = "", **more: Any) -> None:
        if not holds:
            print(json.dumps({"name": name, "said": said}), flush=True)
        self._figure(name, float(holds), "true", 1, least=True, **more)


def _spread(moments: list[tuple[str, Callable[[], object]]], count: int) -> list[tuple[str, Callable[[], object]]]:
    """`count` of them, evenly."""
    return [moments[index * len(moments) // count] for index in range(count)]
