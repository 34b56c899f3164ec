"""One run of the updater: what to update to, whether now, and then step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from moedge_runtime import __version__
from moedge_runtime.daemon.updates import UPDATE_LOCK_NAME
from moedge_runtime.errors import ConfigError

from moedge_devices.store.choose import Device, check_not_older, choose
from moedge_devices.store.config import DeviceFile, UpdateConfig, load_device
from moedge_devices.store.daemon import RunningDaemon
from moedge_devices.store.documents import Index, Release
from moedge_devices.store.download import Progress
from moedge_devices.store.errors import RefusedError
from moedge_devices.store.install import install
from moedge_devices.store.journal import Journal
from moedge_devices.store.look import Look, noted
from moedge_devices.store.source import Source, open_source
from moedge_devices.store.store import Store
from moedge_devices.store.trust import Clock, Memory, read_anchor, read_index
from moedge_devices.store.update import Proof, Updater, check_not_failed
from moedge_devices.store.windows import is_open

DEFAULT_CHANNEL = "stable"

Result = Literal["current", "updated", "available", "waiting"]


@dataclass(frozen=True)
class Choice:
    """What the command line says beside the configuration.

    Attributes:
        check: Change nothing.
        any_time: Outside the windows, too.
        retry: Releases that failed, too.
        allow_downgrade: Older ones, too.
    """

    check: bool = False
    any_time: bool = False
    retry: bool = False
    allow_downgrade: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        status: current, updated, available (with check) or waiting (for a window).
        name: Of the bundle.
        version: The one that is in use, or to come.
        before: The one that was in use.
        finished: The update of an earlier run, as NAME@VERSION, if that counts now.
        text: The same in a sentence.
    """

    status: Result
    name: str
    version: str
    before: str | None
    finished: str | None
    text: str


def run_update(
    config: UpdateConfig,
    choice: Choice,
    progress_of: Callable[[int], Progress],
    say: Callable[[str], None],
    clock: Callable[[], Clock] = Clock.of_machine,
) -> Outcome:
    """Update the bundle of the running daemon.

    Raises:
        UpdateFailedError: The new version did not answer, and the old one is in its place.
        MoedgeError: It could not be made; nothing has changed but what is fetched.
    """
    store = Store(config.store)
    with store.locked(UPDATE_LOCK_NAME), noted(store.root) as look:
        memory = Memory(store.trust, say)
        proof = Proof(config.answers, config.within, config.keep)
        updater = Updater(store, memory, RunningDaemon(config.runtime_directory), proof, say)
        done = None if choice.check else _finish(updater, store, look)
        finished = done.label if done else None
        device_file = load_device(config.device)
        name, version = _wanted(config, device_file, store)
        index, source = index_of(config, store, say, memory, clock)
        release = choose(index.releases, name, version, device_of(config))
        look.version = release.version
        _check_manifest(release, device_file)
        used = release_in_use(store, name)
        before = used.version if used else None

        def outcome(status: Result, text: str) -> Outcome:
            look.note(status, text)
            return Outcome(status, name, release.version, before, finished, text)

        if used is not None and used.version == release.version:
            return outcome("current", f"{release.label} is in use, and is the newest for this device.")
        if not choice.allow_downgrade:
            check_not_older(release, used)
        if not choice.retry:
            check_not_failed(memory, release)
        if choice.check:
            return outcome("available", f"{release.label} is there for this device; {before or 'none'} is in use.")
        updater.check_daemon(name)
        if not choice.any_time and (reason := not_now(device_file, clock())):
            return outcome("waiting", f"{release.label} waits: {reason}")
        look.note("updating", f"{release.label} is being fetched.")
        with store.locked():
            install(store, source, release, progress_of)
        if not choice.any_time and (reason := not_now(device_file, clock())):
            return outcome("waiting", f"{release.label} is installed and waits: {reason}")
        say(f"Switching from {before or 'nothing'} to {release.version}.")
        look.note("updating", f"{release.label} is to answer.")
        updater.switch(release)
        return outcome("updated", f"{release.label} is in use and has answered.")


def _finish(updater: Updater, store: Store, look: Look) -> Release | None:
    """Finish or undo what an earlier run began; see Updater.finish."""
    pending = Journal(store.journal).read()
    if pending is not None:
        look.version = pending.release.version
        look.note("updating", f"{pending.release.label} is to answer; an earlier run was stopped in that.")
    return updater.finish()


def index_of(
    config: UpdateConfig,
    store: Store,
    say: Callable[[str], None],
    memory: Memory | None = None,
    clock: Callable[[], Clock] = Clock.of_machine,
) -> tuple[Index, Source]:
    """The index of the configured source, if it is to be believed, and the source.

    Raises:
        ConfigError: There is no source, or the keys cannot be read.
        TrustError: It is not to be believed.
        SourceError: It cannot be reached.
    """
    if config.source is None:
        raise ConfigError("There is no source. Write it into update.yaml, or use --source.", key="config.source")
    source = open_source(config.source, ca=config.ca, cert=config.cert, key=config.key)
    memory = memory or Memory(store.trust, say)
    return read_index(source, read_anchor(config.keys), memory, clock(), say), source


def device_of(config: UpdateConfig) -> Device:
    """For whom releases are chosen here."""
    file = load_device(config.device)
    channel = config.channel or (file.update.channel if file else None) or DEFAULT_CHANNEL
    return Device(file.device if file else None, file.profile if file else None, channel, __version__)


def release_in_use(store: Store, name: str) -> Release | None:
    """The release to which current/NAME points; None without one."""
    return next((each.release for each in store.installed(name) if each.current), None)


def _wanted(config: UpdateConfig, device: DeviceFile | None, store: Store) -> tuple[str, str | None]:
    """Name of the bundle to update and, if the fleet says so, its version.

    Raises:
        ConfigError: Nobody says which bundle.
    """
    fleet = device.bundle if device else None
    links = sorted(path.name for path in store.current.iterdir() if path.is_symlink() and not path.name.startswith("."))
    name = config.bundle or (fleet.name if fleet else None) or (links[0] if len(links) == 1 else None)
    if name is None:
        there = f"the store has {', '.join(links)}" if links else "the store has none"
        raise ConfigError(
            f"Which bundle is to be updated? Write `bundle` into update.yaml; {there}.", key="config.bundle"
        )
    return name, fleet.version if fleet and fleet.name == name else None


def _check_manifest(release: Release, device: DeviceFile | None) -> None:
    """Raise RefusedError unless the fleet file means the same content by this version."""
    fleet = device.bundle if device else None
    wanted = fleet.manifest_sha256 if fleet and fleet.name == release.name else None
    if wanted is not None and wanted != release.manifest_sha256:
        raise RefusedError(
            f"{release.label} has the manifest {release.manifest_sha256[:12]}…; the fleet file says {wanted[:12]}…. "
            f"Correct bundle.manifest_sha256 there, or publish that content.",
            key="update.other_manifest",
        )


def not_now(device: DeviceFile | None, clock: Clock) -> str | None:
    """Why a device is not updated at this time; None if it may be."""
    windows = device.update.windows if device else None
    if windows is None:
        return None
    if clock.synced is False:
        return "it has windows, and no time server keeps the clock. `--now` updates anyway."
    return None if is_open(windows, clock.now) else "none of its windows is open. `--now` updates anyway."
