"""`moedge flash`: build and write on a workstation; install on the board; seed and confirm by units of the image."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import click
from moedge_runtime import __version__
from moedge_runtime.command_line import OutputFile, examples
from moedge_runtime.config.suggestion import did_you_mean
from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)

EXIT_WENT_BACK = 3
"""Of `confirm`: the system did not answer, and the other slot is booted. The unit takes other codes for a crash."""


@click.group(short_help="System images: build, write, install on boards.")
def flash() -> None:
    """System images for boards: build one, write it to a disk, update it (docs/flash.md)."""


@flash.command(
    epilog=examples(
        "moedge flash build --profile generic-arm64 --package moedge_arm64.deb --keyring system.pem -o any.img"
    ),
    short_help="Build an image for a device, or for a kind of board.",
)
@click.argument("device", required=False)
@click.option("--profile", metavar="NAME", help="Without DEVICE: for boards of this profile, without a seed.")
@click.option(
    "--file", "-f", "fleet", default="fleet.yaml", show_default=True, metavar="FILE", help="The fleet of DEVICE."
)
@click.option("--out", "-o", required=True, type=OutputFile(), help="*.img, or *.raucb.")
@click.option("--package", required=True, type=_FILE, help="The moedge package for the board, of `make deb`.")
@click.option("--keyring", required=True, type=_FILE, help="PEM certificates of who may sign updates for the board.")
@click.option("--update", is_flag=True, help="Build a signed update bundle instead of an image.")
@click.option("--cert", type=_FILE, help="PEM certificate to sign with; --update needs one.")
@click.option("--key", type=_FILE, help="PEM file of its key.")
@click.option("--version", "system_version", help=f"Version of the system.  [default: {__version__}]")
@click.option("--seed", type=_DIRECTORY, help="More files for the device's /etc/moedge: keys, environment, wifi.conf.")
@click.option(
    "--data", type=_DIRECTORY, help="Laid into /var/lib/moedge, for example store/ of `moedge bundle install`."
)
@click.option("--overlay", type=_DIRECTORY, help="Files laid over the root file system.")
@click.option("--kernel", type=_FILE, help="A package with a kernel for the board, in the place of the recipe's.")
@click.option("--command-line", default="", metavar="TEXT", help="More for the kernel's command line: console=ttyS0.")
@click.option("--mirror", metavar="URL", help="Of Debian; one of snapshot.debian.org gives the same packages later.")
@click.option("--security/--no-security", default=True, show_default=True, help="With Debian's security updates.")
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), help="What builds have in common.  [default: ~/.cache]"
)
def build(*, device: str | None, profile: str | None, fleet: str, out: Path, update: bool, **options: Any) -> None:
    """Build an image for DEVICE of a fleet, or for any board of a profile. Needs root.

    SOURCE_DATE_EPOCH is the time that files get; the same input gives the same root file system.
    """
    from moedge_devices.flash.build import build_image, build_update  # noqa: PLC0415  `moedge flash --help` stays fast
    from moedge_devices.flash.recipe import recipe_for  # noqa: PLC0415
    from moedge_devices.flash.rootfs import MIRROR, SECURITY, Sources  # noqa: PLC0415

    if (device is None) == (profile is None):
        raise ConfigError("Give either DEVICE of a fleet file, or --profile.", key="flash.for_whom")
    named, seed = (None, {}) if device is None else _device(fleet, device)
    seed |= _seed(options["seed"])
    recipe = recipe_for(profile or named or "generic-arm64")
    sources = Sources(
        recipe=recipe,
        package=options["package"],
        keyring=options["keyring"],
        version=options["system_version"] or __version__,
        overlay=options["overlay"],
        command_line=options["command_line"],
        mirror=options["mirror"] or MIRROR,
        security=SECURITY if options["security"] else None,
        epoch=_epoch(),
        kernel=options["kernel"],
    )
    cache = options["cache"] or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moedge" / "image"
    certificate, key = options["cert"], options["key"]
    if (certificate is None) != (key is None):
        raise ConfigError("--cert and --key belong together; give both or neither.", key="flash.signer")
    if not update:
        signer = None if certificate is None else (certificate, key)
        build_image(sources, out, seed=seed, data=options["data"], signer=signer, cache=cache, say=_say)
    elif certificate is None:
        raise ConfigError("An update bundle has to be signed: give --cert and --key.", key="flash.unsigned")
    elif seed or options["data"]:
        raise ConfigError(
            "An update bundle is for every board: leave out DEVICE, --seed and --data.", key="flash.update"
        )
    else:
        build_update(sources, out, certificate=certificate, key=key, cache=cache, say=_say)
    _say(f"{out}: {out.stat().st_size:,} bytes, {recipe.name} {sources.version}, build {sources.build()}.")


@flash.command(
    epilog=examples("moedge flash write any.img /dev/sdb --device gate-02 --seed secrets/gate-02"),
    short_help="Write IMAGE to DISK, and read it back.",
)
@click.argument("image", type=_FILE)
@click.argument("disk", type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME", help="Give the disk the seed of this device.")
@click.option(
    "--file", "-f", "fleet", default="fleet.yaml", show_default=True, metavar="FILE", help="The fleet of --device."
)
@click.option("--seed", type=_DIRECTORY, help="More files for the device's /etc/moedge: keys, environment, wifi.conf.")
@click.option("--keyring", type=_FILE, help="Write only what is signed by one of these PEM certificates.")
@click.option("--dry-run", is_flag=True, help="Print the steps, and write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def write(
    *,
    image: Path,
    disk: Path,
    device: str | None,
    fleet: str,
    seed: Path | None,
    keyring: Path | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Write IMAGE to DISK, a whole one that nobody uses, and read it back."""
    from moedge_devices.flash.write import execute, plan_write  # noqa: PLC0415  `moedge flash --help` stays fast

    files = (_device(fleet, device)[1] if device else {}) | _seed(seed)
    plan = plan_write(image, disk, files, keyring)
    click.echo("\n".join(plan.lines()))
    if dry_run:
        return
    if not yes:
        click.confirm(f"Overwrite {disk}?", abort=True, err=True)
    execute(plan, _say)
    click.echo(f"{disk} holds {image.name} and was read back.")


@flash.command(
    epilog=examples("moedge flash deploy press-01 nvidia@10.1.0.21 --package moedge_arm64.deb --dry-run"),
    short_help="Set up a board that has a system, over ssh.",
)
@click.argument("device")
@click.argument("address", metavar="[USER@]HOST")
@click.option("--file", "-f", "fleet", default="fleet.yaml", show_default=True, metavar="FILE", help="The fleet.")
@click.option("--package", required=True, type=_FILE, help="The moedge package for the board, of `make deb`.")
@click.option("--seed", type=_DIRECTORY, help="More files for the device's /etc/moedge: keys, environment.")
@click.option("--dry-run", is_flag=True, help="Print the steps, and connect to nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def deploy(
    *, device: str, address: str, fleet: str, package: Path, seed: Path | None, dry_run: bool, yes: bool
) -> None:
    """Put moedge and the files of DEVICE onto a board that has a system, over ssh: a Jetson with NVIDIA's, any Debian.

    Installs the package, writes /etc/moedge, lets the board check itself with `moedge doctor`, and starts the daemon if
    nothing failed there. May be run again.
    """
    from moedge_devices.flash.deploy import execute, plan_deploy  # noqa: PLC0415  `moedge flash --help` stays fast

    plan = plan_deploy(address, device, package, _device(fleet, device)[1] | _seed(seed))
    click.echo("\n".join(plan.lines()))
    if dry_run:
        return
    if not yes:
        click.confirm(f"Make {address} the device '{device}'?", abort=True, err=True)
    execute(plan, _say, click.echo)
    click.echo(f"{address} is '{device}'.")


@flash.command(epilog=examples("moedge flash seed"), short_help="On the board: take its seed, set its host name.")
@click.option("--from", "archive", type=click.File("rb"), help="A seed as a file, - for standard input: not just once.")
def seed(archive: IO[bytes] | None) -> None:
    """On the board: take this device's seed, once, and set the host name. moedge-seed.service runs it."""
    from moedge_devices.flash.seed import set_host_name, take, take_archive  # noqa: PLC0415  `--help` stays fast

    if archive is not None:
        _say(f"Seed: {', '.join(take_archive(archive.read()))}.")
        return
    try:
        taken = take()
    finally:
        name = set_host_name()
    _say(f"Seed: {', '.join(taken) if taken else 'none to take'}. Host name: {name or 'as it was'}.")


@flash.command(epilog=examples("moedge flash confirm"), short_help="On the board: keep the booted system, or go back.")
def confirm() -> int:
    """On the board: keep the booted system if its daemon answers, else go back. moedge-confirm.service runs it."""
    from moedge_devices.flash import confirm as board  # noqa: PLC0415  `moedge flash --help` stays fast
    from moedge_devices.store.config import load_update_config  # noqa: PLC0415
    from moedge_devices.store.daemon import RunningDaemon  # noqa: PLC0415

    slot = board.booted_slot(board.COMMAND_LINE.read_text())
    release = board.assignments(board.OS_RELEASE.read_text())
    name = f"{release['IMAGE_VERSION']} in slot {slot}"
    if board.mend_variables():
        _say("The boot loader's variables were lost in a power cut; those of the last boot are back.")
    if not board.is_confirmed(slot, release["BUILD_ID"]):
        config = load_update_config(None)
        daemon = RunningDaemon(config.runtime_directory)
        frames = counted(config.answers, "frame")
        _say(f"System {name} is new: it counts once its daemon has answered {frames} within {config.within:g} s.")
        fault = board.wait_for_answers(daemon.said, config.answers, config.within)
        if fault is not None and board.other_is_good(slot):
            _say(f"System {name} does not count: {fault}. Going back to the other slot.")
            with suppress(OSError):  # a full disk must not keep the other system away
                board.note_fault(release["IMAGE_VERSION"], "update.failed", fault)
            board.mark(good=False)
            subprocess.run(["systemctl", "--no-block", "reboot"], check=True)
            return EXIT_WENT_BACK
        if fault is not None:
            _say(f"System {name} stays although {fault}: there is no other to go back to.")
        else:
            board.note_confirmed(slot, release["BUILD_ID"])
            board.forget_fault()
    board.mark(good=True)
    _say(f"System {name} is confirmed.")
    return 0


@flash.command(epilog=examples("moedge flash install 2026.13.raucb --reboot"))
@click.argument("bundle")
@click.option("--reboot", is_flag=True, help="Start the new system at once.")
def install(bundle: str, reboot: bool) -> None:
    """On the board: install the update BUNDLE into the other slot.

    It is refused with its reason if it is not signed by whom the board trusts, is for other boards, is older than the
    system that runs, or if that one has not been confirmed yet.
    """
    from moedge_devices.flash import install as updates  # noqa: PLC0415  `moedge flash --help` stays fast

    machine = updates.Machine.running()
    update = updates.install(bundle, machine)
    where = f"System {update.version} is in slot {machine.other_slot}"
    _say(f"{where}, and counts once it has answered after the next start.")
    if reboot:
        updates.restart()
    else:
        _say("Start it: systemctl reboot")


@flash.command(
    epilog=examples("moedge flash update", "moedge flash update --check"),
    short_help="On the board: bring the system up to date.",
)
@click.option("--config", "-c", "path", type=_FILE, help="update.yaml; default /etc/moedge/update.yaml.")
@click.option("--check", is_flag=True, help="Only say what would be done.")
@click.option("--now", "any_time", is_flag=True, help="Also outside the windows of device.json.")
@click.option("--retry", is_flag=True, help="Also a system that was undone on this board before.")
def update(*, path: Path | None, check: bool, any_time: bool, retry: bool) -> None:
    """On the board: bring the system up to date from the source of update.yaml. A timer of the image runs it.

    Fetches the newest system of the channel, or that of device.json, installs it, and starts the machine anew. First
    says what became of the update before. Exits 0 if all is up to date or it is not the time, 1 if an update was undone
    or could not be made.
    """
    from moedge_devices.flash.install import Machine  # noqa: PLC0415  `moedge flash --help` stays fast
    from moedge_devices.flash.update import SystemUpdater  # noqa: PLC0415
    from moedge_devices.store.config import load_update_config  # noqa: PLC0415
    from moedge_devices.store.progress import progress_bar  # noqa: PLC0415
    from moedge_devices.store.run import Choice  # noqa: PLC0415

    choice = Choice(check, any_time, retry)
    updater = SystemUpdater(load_update_config(path), choice, Machine.running(), _say)
    with progress_bar() as progress_of:
        outcome = updater.run(progress_of)
    if outcome.status != "restarting":
        _say(outcome.text)


def _device(fleet: str, name: str) -> tuple[str | None, dict[str, bytes]]:
    """Profile and rendered files of a device."""
    from moedge_devices.fleet.load import load_fleet  # noqa: PLC0415
    from moedge_devices.fleet.render import ConfigTexts, device_text  # noqa: PLC0415

    devices = load_fleet(fleet).devices
    device = devices.get(name)
    if device is None:
        close = did_you_mean(name, devices)
        raise ConfigError(f"The fleet file '{fleet}' has no device '{name}'.{close}", key="flash.device")
    files = {"moedge.yaml": ConfigTexts().of(device), "device.json": device_text(device)}
    return device.profile, {path: text.encode() for path, text in files.items()}


def _seed(directory: Path | None) -> dict[str, bytes]:
    from moedge_devices.flash.seed import read_directory  # noqa: PLC0415

    return read_directory(directory) if directory else {}


def _epoch() -> int:
    """SOURCE_DATE_EPOCH, or now.

    Raises:
        ConfigError: It is no number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", str(int(time.time())))
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(
            f"SOURCE_DATE_EPOCH is '{text}'; it has to be seconds since 1970.", key="flash.epoch"
        ) from error


def _say(text: str) -> None:
    click.echo(text, err=True)
