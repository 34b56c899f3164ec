"""On the board: brings the system up to date from the source of update.yaml, as `moedge bundle update` does the model.

The same index, keys, channel, windows and memory of what has failed. Order: fetch, note the attempt, RAUC, note that it
is installed, start anew. Whether the new system counts is for `moedge flash confirm`; the next run finds out from the
attempt and the system that runs what became of it, whatever it was stopped in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moedge_runtime.daemon.updates import UPDATE_LOCK_NAME
from moedge_runtime.durable import write_durably
from moedge_runtime.errors import MoedgeError
from pydantic import BaseModel, ConfigDict, ValidationError

from moedge_devices.flash import confirm
from moedge_devices.flash import install as slots
from moedge_devices.store.choose import choose
from moedge_devices.store.config import UpdateConfig, load_device
from moedge_devices.store.documents import Index, SystemRelease
from moedge_devices.store.download import Progress, fetch
from moedge_devices.store.durable import remove_durably
from moedge_devices.store.errors import RefusedError, UpdateFailedError
from moedge_devices.store.install import check_space
from moedge_devices.store.journal import Journal
from moedge_devices.store.run import Choice, device_of, index_of, not_now
from moedge_devices.store.source import Source
from moedge_devices.store.store import Store
from moedge_devices.store.trust import Clock, Memory
from moedge_devices.store.update import MAX_TRIES, check_not_failed

ATTEMPT_NAME = "update.json"
"""In the machine's state."""


class Attempt(BaseModel):
    """An update of the system under way, from before RAUC writes until it counts or has failed."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    phase: Literal["installing", "installed"]
    release: SystemRelease
    boot: str
    """The boot id of the machine in this phase: with another one it was started anew since."""
    tries: int
    """How often RAUC was begun."""


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        status: current, available (with check), waiting (for a window, or to be confirmed) or restarting.
        name: The board's `compatible`.
        version: Of the system that runs, or is to come.
        text: The same in a sentence.
    """

    status: Literal["current", "available", "waiting", "restarting"]
    name: str
    version: str
    text: str


class SystemUpdater:
    """Brings the system of a board up to date; one run, never beside an update of the model.

    Args:
        config: From where.
        choice: What the command line says.
        machine: The system that runs.
        say: Told each step in a sentence.
        clock: For windows.
    """

    def __init__(
        self,
        config: UpdateConfig,
        choice: Choice,
        machine: slots.Machine,
        say: Callable[[str], None],
        clock: Callable[[], Clock] = Clock.of_machine,
    ) -> None:
        self._config, self._choice, self._machine, self._say, self._clock = config, choice, machine, say, clock
        self._store = Store(config.store)
        self._device = load_device(config.device)
        self._wanted = self._version = self._device.system if self._device else None

    def run(self, progress_of: Callable[[int], Progress]) -> Outcome:
        """Fetch, install and start the system that the board should have. Why not is noted for `info`.

        Args:
            progress_of: Given the bytes to come, what is told of those that came.

        Raises:
            UpdateFailedError: The last update was undone.
            MoedgeError: It could not be made; the system that runs is as it was.
        """
        state = self._machine.state
        with self._store.locked(UPDATE_LOCK_NAME):
            self._memory = Memory(self._store.trust, self._say)
            try:
                outcome = self._update(progress_of)
            except MoedgeError as error:
                if not self._choice.check:
                    confirm.note_fault(self._version, error.key, str(error), state)
                raise
            if not self._choice.check:
                confirm.forget_fault(state)
        if outcome.status == "restarting":
            self._say(outcome.text)
            slots.restart()
        return outcome

    def _update(self, progress_of: Callable[[int], Progress]) -> Outcome:
        machine = self._machine
        if machine.may_go_back:
            return self._outcome("waiting", f"System {machine.version} has not been confirmed yet; what comes, waits.")
        attempt = None if self._choice.check else self._finish()
        if attempt is not None and attempt.phase == "installed":
            return self._restarting(attempt.release)
        index, source = index_of(self._config, self._store, self._say, self._memory, self._clock)
        release = self._choose(index, source)
        if isinstance(release, Outcome):
            return release
        if (reason := self._not_now()) is not None:
            return self._outcome("waiting", f"{release.label} waits: {reason}")
        bundle = self._fetch(source, release, progress_of)
        if (reason := self._not_now()) is not None:
            return self._outcome("waiting", f"{release.label} is fetched and waits: {reason}")
        self._install(release, bundle, attempt.tries if attempt and attempt.release == release else 0)
        return self._restarting(release)

    def _choose(self, index: Index, source: Source) -> SystemRelease | Outcome:
        """The system to install, or why there is nothing to do.

        Raises:
            RefusedError: What there is, is not for this board, is older, or has failed here.
        """
        machine = self._machine
        if self._wanted is None and all(each.name != machine.compatible for each in index.systems):
            return self._outcome("current", f"{source} has no systems for '{machine.compatible}'.")
        release = choose(index.systems, machine.compatible, self._wanted, device_of(self._config), "system")
        self._version = release.version
        if release.version == machine.version:
            return self._outcome("current", f"{release.label} runs, and is the newest for this device.")
        if slots.is_older(release.version, machine.version):
            raise RefusedError(
                f"{release.label} is older than {machine.version}, the system that runs: it is refused. To go back, "
                f"publish the old content with a newer version.",
                key="update.downgrade",
            )
        if not self._choice.retry:
            check_not_failed(self._memory, release)
        if self._choice.check:
            return self._outcome("available", f"{release.label} is there for this device; {machine.version} runs.")
        return release

    def _finish(self) -> Attempt | None:
        """What became of an earlier run; what of it is to be gone on with.

        Raises:
            UpdateFailedError: It was undone, or could not be installed again and again.
        """
        attempt, machine = read_attempt(self._machine.state), self._machine
        if attempt is None:
            return None
        release = attempt.release
        self._version = release.version
        if machine.version == release.version:
            self._memory.note(failed=_without(self._memory.seen.failed, release.label))
            self._over()
            self._say(f"{release.label} counts: it has answered.")
            return None
        if attempt.phase == "installed" and attempt.boot != machine.boot:
            reason = (
                confirm.fault_of(release.version, machine.state)
                or "it did not come up, and the other slot was booted again"
            )
            raise self._failed(release, reason)
        if attempt.phase == "installing" and attempt.tries >= MAX_TRIES:
            raise self._failed(release, f"it could not be installed {MAX_TRIES} times")
        return attempt

    def _fetch(self, source: Source, release: SystemRelease, progress_of: Callable[[int], Progress]) -> Path:
        """The file of a release, in the store."""
        with self._store.locked():
            if self._store.lacks(release.sha256, release.bytes):
                check_space(self._store, release, {release.sha256: release.bytes})
                fetch(self._store, source, release.sha256, release.bytes, progress_of(release.bytes))
            return self._store.keep_system(release)

    def _install(self, release: SystemRelease, bundle: Path, tries: int) -> None:
        """Let RAUC write the other slot.

        Raises:
            MoedgeError: It does not.
        """
        self._say(f"Installing {release.label} into slot {self._machine.other_slot}.")
        attempt = Attempt(phase="installing", release=release, boot=self._machine.boot, tries=tries + 1)
        self._note(attempt)
        slots.install(str(bundle), self._machine)
        self._note(attempt.model_copy(update={"phase": "installed"}))
        self._forget_file()

    def _restarting(self, release: SystemRelease) -> Outcome:
        if (reason := self._not_now()) is not None:
            return self._outcome("waiting", f"{release.label} is installed and waits to be started: {reason}")
        return self._outcome("restarting", f"Starting {release.label} from slot {self._machine.other_slot}.")

    def _failed(self, release: SystemRelease, reason: str) -> UpdateFailedError:
        """Note that a release has failed here; the error that says so."""
        self._memory.note(failed=self._memory.seen.failed | {release.label: reason})
        self._over()
        return UpdateFailedError(
            f"The update to {release.label} was undone: {reason}. System {self._machine.version} runs. It is not tried "
            f"again by itself (--retry does)."
        )

    def _note(self, attempt: Attempt) -> None:
        write_durably(self._machine.state / ATTEMPT_NAME, attempt.model_dump_json().encode())

    def _over(self) -> None:
        self._forget_file()
        remove_durably(self._machine.state / ATTEMPT_NAME)

    def _forget_file(self) -> None:
        with self._store.locked():
            self._store.drop_systems()

    def _not_now(self) -> str | None:
        """Why this is not the time; None if it is."""
        pending = Journal(self._store.journal).read()
        if pending is not None:
            return f"the update of the model to {pending.release.label} comes first."
        return None if self._choice.any_time else not_now(self._device, self._clock())

    def _outcome(self, status: Literal["current", "available", "waiting", "restarting"], text: str) -> Outcome:
        return Outcome(status, self._machine.compatible, self._version or self._machine.version, text)


def read_attempt(state: Path) -> Attempt | None:
    """The update under way; None without one. It is written whole: a damaged one is a failing disk."""
    with suppress(FileNotFoundError, ValidationError):
        return Attempt.model_validate_json((state / ATTEMPT_NAME).read_bytes())
    return None


def _without(failed: dict[str, str], label: str) -> dict[str, str]:
    return {other: why for other, why in failed.items() if other != label}
