"""The recipe of Raspberry Pi 5: partitions, what the firmware reads, and RAUC's backend on files instead of a board."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from devices.flash.samples import DATA_BYTES, EPOCH
from devices.flash.test_build import sources, tree
from moedge_devices.flash import confirm
from moedge_devices.flash.boot import AUTOBOOT, take_boot_files, write_boot_files
from moedge_devices.flash.build import bundle_from, manifest
from moedge_devices.flash.initramfs import loading_order, write_initramfs
from moedge_devices.flash.layout import MIB, fat_config, genimage_config, partitions
from moedge_devices.flash.recipe import Recipe, recipe_directory, recipe_for
from moedge_devices.flash.rootfs import Sources, lay_over
from moedge_runtime.errors import ConfigError

OURS = recipe_directory() / "raspberry-pi-5/root"
SWAPPED = "[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n"


@pytest.fixture
def recipe() -> Recipe:
    """With small partitions; 34 MiB is the least that FAT32 takes."""
    return recipe_for("raspberry-pi-5-8gb").model_copy(
        update={"boot_mib": 40, "kernel_mib": 40, "slot_mib": 4, "seed_mib": 1}
    )


def unpacked(root: Path) -> Path:
    """A tree as after its packages and the initramfs, with a kernel of Debian's form since Linux 7."""
    (root / "boot").mkdir(parents=True)
    (root / "boot/vmlinuz").write_bytes(b"kernel")
    (root / "boot/initrd.img").write_bytes(b"initramfs")
    trees = root / "usr/lib/modules/7.3/dtb/broadcom"
    trees.mkdir(parents=True)
    for name in ("bcm2712-rpi-5-b.dtb", "bcm2712-d-rpi-5-b.dtb", "bcm2711-rpi-4-b.dtb"):
        (trees / name).write_text(name)
    return root


def made(directory: Path, recipe: Recipe) -> Path:
    """An image with made-up file systems and the real files of the FAT partitions."""
    inputs = directory / "input"
    inputs.mkdir()
    (directory / "empty").mkdir()
    taken = take_boot_files(unpacked(directory / "root"), recipe)
    fat_files = write_boot_files(inputs, taken, recipe, "console=ttyAMA10")
    (inputs / "root.squashfs").write_bytes(b"root" * 100_000)
    (inputs / "seed.tar").write_bytes(bytes(512))
    (inputs / "data.ext4").write_bytes(b"data" * 1_000_000)
    (directory / "genimage.cfg").write_text(genimage_config(recipe, DATA_BYTES, fat_files))
    genimage(directory)
    return directory / "output/disk.img"


def genimage(directory: Path) -> None:
    command = [
        *("genimage", "--config", directory / "genimage.cfg", "--rootpath", directory / "empty"),
        *("--tmppath", directory / "tmp", "--inputpath", directory / "input", "--outputpath", directory / "output"),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def read(image: Path, start: int, name: str) -> str:
    """A file of a FAT partition."""
    done = subprocess.run(["mcopy", "-i", f"{image}@@{start}", f"::{name}", "-"], capture_output=True, check=True)
    return done.stdout.decode()


@pytest.mark.skipif(shutil.which("genimage") is None, reason="needs genimage")
def test_the_firmware_finds_the_slots_where_autoboot_says(tmp_path: Path, recipe: Recipe) -> None:
    image = made(tmp_path, recipe)
    table = json.loads(subprocess.run(["sfdisk", "--json", image], capture_output=True, check=True).stdout)
    parts = table["partitiontable"]["partitions"]
    planned = [(part.name, part.type_uuid, part.size_bytes) for part in partitions(recipe, DATA_BYTES)]
    assert [(part["name"], part["type"].lower(), part["size"] * 512) for part in parts] == planned
    names = [part["name"] for part in parts]
    # Partitions 1 to 3 of autoboot.txt, one after the other.
    assert names[:3] == ["moedge-boot", "boot-a", "boot-b"]
    autoboot, kernel = (part["start"] * 512 for part in parts[:2])
    assert read(image, autoboot, "autoboot.txt") == AUTOBOOT
    assert len(AUTOBOOT) <= 512
    assert read(image, autoboot, "B.bad") == ""
    config = read(image, kernel, "config.txt")
    assert "\n[boot_partition=2]\ncmdline=cmdline-a.txt\n[boot_partition=3]\ncmdline=cmdline-b.txt\n[all]\n" in config
    for slot in "ab":
        words = read(image, kernel, f"cmdline-{slot}.txt").split()
        assert {f"root=PARTLABEL=root-{slot}", f"rauc.slot={slot.upper()}", "console=ttyAMA10"} <= set(words)
        assert confirm.booted_slot(" ".join(words)) == slot.upper()
    for name, content in (
        ("vmlinuz", "kernel"),
        ("initrd.img", "initramfs"),
        ("bcm2712-rpi-5-b.dtb", "bcm2712-rpi-5-b.dtb"),
        ("bcm2712d0-rpi-5-b.dtb", "bcm2712-d-rpi-5-b.dtb"),
    ):
        assert read(image, kernel, name) == content
    assert not (tmp_path / "root/boot/vmlinuz").exists(), "not twice: the slot is the smaller for it"


def test_a_kernel_without_this_boards_device_tree_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    root = unpacked(tmp_path)
    shutil.rmtree(root / "usr/lib/modules")
    with pytest.raises(ConfigError, match=r"no bcm2712-rpi-5-b\.dtb") as caught:
        take_boot_files(root, recipe)
    assert caught.value.key == "flash.kernel"


def test_another_kernel_is_for_recipes_whose_kernel_is_not_their_debians(tmp_path: Path, recipe: Recipe) -> None:
    given = vars(sources(tmp_path)) | {"kernel": tmp_path / "kernel.deb"}
    Sources(**given | {"recipe": recipe}).check()
    with pytest.raises(ConfigError, match="Leave out --kernel"):
        Sources(**given).check()


def test_a_kernel_as_older_packages_lay_it_is_taken(tmp_path: Path, recipe: Recipe) -> None:
    root = unpacked(tmp_path)
    (root / "usr/lib/linux-image-6.12").mkdir()
    (root / "usr/lib/modules/7.3/dtb/broadcom").rename(root / "usr/lib/linux-image-6.12/broadcom")
    assert "bcm2712-rpi-5-b.dtb" in take_boot_files(root, recipe)


@pytest.mark.skipif(shutil.which("modprobe") is None, reason="needs kmod")
def test_modules_that_may_be_missing_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "lib/modules/1").mkdir(parents=True)
    for name in ("dep", "alias", "symbols", "builtin", "order"):
        (tmp_path / "lib/modules/1" / f"modules.{name}").touch()
    assert loading_order(tmp_path, "1", (), ("rp1_pci",)) == []
    with pytest.raises(ConfigError, match="has no module 'squashfs'"):
        loading_order(tmp_path, "1", ("squashfs",), ("rp1_pci",))


@pytest.mark.skipif(shutil.which("modprobe") is None or shutil.which("cpio") is None, reason="needs kmod and cpio")
def test_a_kernel_beside_its_modules_gets_an_initramfs_with_plain_modules(tmp_path: Path, recipe: Recipe) -> None:
    modules = tmp_path / "usr/lib/modules/7.3"
    (modules / "kernel").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_text("busybox")
    (modules / "vmlinuz").write_text("kernel")
    content = Path("/bin/true").read_bytes()  # any ELF file, for depmod
    (modules / "kernel/squashfs.ko.xz").write_bytes(lzma.compress(content))
    given = recipe.model_copy(update={"modules": ("squashfs",)})
    write_initramfs(tmp_path, given, EPOCH)
    archive = gzip.decompress((tmp_path / "boot/initrd.img").read_bytes())
    subprocess.run(["cpio", "--extract", "--quiet"], input=archive, cwd=tmp_path / "boot", check=True)
    assert (tmp_path / "boot/modules").read_text() == "/lib/modules/7.3/kernel/squashfs.ko\n"
    assert (tmp_path / "boot/lib/modules/7.3/kernel/squashfs.ko").read_bytes() == content
    assert (tmp_path / "boot/vmlinuz").read_text() == "kernel"


@pytest.mark.skipif(shutil.which("rauc") is None or shutil.which("genimage") is None, reason="needs rauc and genimage")
def test_an_update_holds_kernel_and_root_and_the_board_reads_its_configuration(tmp_path: Path, recipe: Recipe) -> None:
    given = Sources(**{**vars(sources(tmp_path)), "recipe": recipe})
    certificate, key = tmp_path / "keyring.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=test", "-days", "7300", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    inputs, content = tmp_path / "input", tmp_path / "content"
    for directory in (inputs, content, tmp_path / "empty"):
        directory.mkdir()
    taken = take_boot_files(unpacked(tmp_path / "root"), recipe)
    fat_files = write_boot_files(inputs, taken, recipe, "")
    (tmp_path / "genimage.cfg").write_text(fat_config(recipe, {"kernel": fat_files["kernel"]}))
    genimage(tmp_path)
    (tmp_path / "output/kernel.vfat").rename(content / "kernel.img")
    (content / "root.img").write_bytes(os.urandom(100_000))
    (content / "version").write_text("1.0\n")
    (content / "manifest.raucm").write_text(manifest(given))
    bundle_from(content, certificate, key, tmp_path / "update.raucb", certificate)
    root = tree(tmp_path / "board")
    lay_over(root, given)
    system = root / "etc/rauc/system.conf"
    system.write_text(system.read_text().replace("/etc/rauc/keyring.pem", str(certificate)))
    # RAUC reads all of system.conf for it, and refuses what it does not know.
    command = ["rauc", "--conf", system, "--output-format=json", "info", tmp_path / "update.raucb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    images = {name: image for each in json.loads(done.stdout)["images"] for name, image in each.items()}
    assert images["boot"]["size"] == 40 * MIB and set(images) == {"boot", "rootfs"}
    assert "compatible=moedge-raspberry-pi-5\n" in system.read_text()
    backend = root / "usr/lib/moedge-image/tryboot"
    assert f"bootloader-custom-backend=/{backend.relative_to(root)}\n" in system.read_text()
    assert os.access(backend, os.X_OK) and os.access(backend.with_name("refuse-older"), os.X_OK)


@dataclass
class Board:
    """Files in the place of a board's, and what its firmware would do."""

    place: Path

    def __post_init__(self) -> None:
        (self.place / "boot").mkdir()
        (self.place / "boot/autoboot.txt").write_text(AUTOBOOT)
        (self.place / "boot/B.bad").touch()
        (self.place / "vcio").touch()
        text = (OURS / "usr/lib/moedge-image/tryboot").read_text()
        for name, path in (
            ("/boot/efi", "boot"),
            ("/run/systemd/reboot-param", "parameter"),
            ("/dev/vcio", "vcio"),
            ("/proc/cmdline", "cmdline"),
        ):
            assert name in text
            text = text.replace(name, str(self.place / path))
        self.backend.write_text(text)
        self.backend.chmod(0o755)
        self.reboot()

    @property
    def backend(self) -> Path:
        return self.place / "backend"

    @property
    def autoboot(self) -> str:
        return (self.place / "boot/autoboot.txt").read_text()

    @property
    def slot(self) -> str:
        return confirm.booted_slot((self.place / "cmdline").read_text())

    def reboot(self) -> str:
        """Start as the firmware does; the slot. The flag is for one start."""
        parameter = self.place / "parameter"
        section = "[tryboot]" if parameter.exists() and "tryboot" in parameter.read_text() else "[all]"
        parameter.unlink(missing_ok=True)
        number = self.autoboot.partition(f"{section}\n")[2].partition("boot_partition=")[2][0]
        slot = {"2": "A", "3": "B"}[number]
        (self.place / "cmdline").write_text(f"ro rauc.slot={slot} quiet\n")
        return slot

    def try_to(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.backend, *words], capture_output=True, text=True, check=False)

    def do(self, *words: str) -> str:
        done = self.try_to(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def install(self) -> None:
        """What RAUC asks for while it installs into B."""
        self.do("set-state", "B", "bad")
        self.do("set-primary", "B")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_a_new_board_starts_a_and_has_nothing_to_go_back_to(board: Board) -> None:
    assert (board.slot, board.do("get-primary")) == ("A", "A")
    assert (board.do("get-state", "A"), board.do("get-state", "B")) == ("good", "bad")
    assert not confirm.other_is_good("A", backend=board.backend)


def test_an_update_is_tried_once_and_kept_when_it_is_marked_good(board: Board) -> None:
    board.install()
    assert (board.do("get-primary"), board.do("get-state", "B"), board.autoboot) == ("B", "bad", AUTOBOOT)
    assert (board.place / "parameter").read_text() == "0 tryboot\n"
    assert board.reboot() == "B"
    assert board.do("get-primary") == "A", "until it is marked good"
    assert confirm.other_is_good("B", backend=board.backend)
    board.do("set-state", "B", "good")
    assert (board.do("get-primary"), board.autoboot) == ("B", SWAPPED)
    assert (board.reboot(), board.do("get-state", "A"), board.do("get-state", "B")) == ("B", "good", "good")


@pytest.mark.parametrize("how", ["without a word", "marked bad"])
def test_an_update_that_fails_is_never_started_again(board: Board, how: str) -> None:
    board.install()
    assert board.reboot() == "B"
    if how == "marked bad":
        board.do("set-state", "B", "bad")
    assert board.reboot() == "A"
    assert (board.do("get-primary"), board.do("get-state", "B"), board.reboot()) == ("A", "bad", "A")


def test_the_next_update_goes_back_to_slot_a(board: Board) -> None:
    board.install()
    board.reboot()
    board.do("set-state", "B", "good")
    board.reboot()
    board.do("set-state", "A", "bad")
    board.do("set-primary", "A")
    assert board.reboot() == "A"
    board.do("set-state", "A", "good")
    assert (board.autoboot, board.reboot()) == (AUTOBOOT, "A")


def test_a_system_that_was_good_and_is_marked_bad_gives_way_to_the_other(board: Board) -> None:
    board.install()
    board.reboot()
    board.do("set-state", "B", "good")
    board.reboot()
    board.do("set-state", "B", "bad")
    assert (board.autoboot, board.reboot()) == (AUTOBOOT, "A")


def test_the_only_good_slot_is_not_given_away(board: Board) -> None:
    board.install()
    board.reboot()
    done = board.try_to("set-state", "A", "bad")  # an update during a trial would overwrite the slot to go back to
    assert done.returncode == 1 and "slot A is the only good one" in done.stderr
    assert board.reboot() == "A"


def test_choosing_the_running_slot_again_takes_the_trial_back(board: Board) -> None:
    board.install()
    board.do("set-primary", "A")
    assert board.reboot() == "A"


def test_without_a_kernel_that_can_ask_for_a_trial_nothing_is_taken(board: Board) -> None:
    (board.place / "vcio").unlink()
    for words in (("can-try",), ("set-primary", "B")):
        done = board.try_to(*words)
        assert done.returncode == 1 and "this kernel cannot ask the firmware" in done.stderr
    assert board.reboot() == "A"
    # RAUC's handler before it writes.
    handler = (OURS / "usr/lib/moedge-image/refuse-untried").read_text()
    handler = handler.replace("/usr/lib/moedge-image/tryboot", str(board.backend))
    handler = handler.replace("/usr/lib/moedge-image/refuse-older", "echo older")
    for there, said in ((False, ""), (True, "older\n")):
        if there:
            (board.place / "vcio").touch()
        done = subprocess.run(["sh", "-c", handler], capture_output=True, text=True, check=False)
        assert (done.returncode == 0, done.stdout) == (there, said)


@pytest.mark.parametrize("words", [("set-primary", "C"), ("get-state", "../A"), ("get-current",)])
def test_what_is_no_command_is_refused(board: Board, words: tuple[str, ...]) -> None:
    assert board.try_to(*words).returncode == 1


def test_a_damaged_autoboot_is_an_error(board: Board) -> None:
    (board.place / "boot/autoboot.txt").write_text("[all]\nboot_partition=7\n[tryboot]\n")
    done = board.try_to("get-primary")
    assert done.returncode == 1 and "names partition '7'" in done.stderr
