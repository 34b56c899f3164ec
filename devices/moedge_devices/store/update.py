"""Switches to a new version and keeps it only if the model has answered with it; else goes back.

Order: journal, link, SIGHUP, answers, then either the journal is cleared and old versions go, or the journal says
"going back", the link is changed back, SIGHUP, and the release is noted as failed. Each step may be the last one before
a power cut: `finish` goes on from the journal and the link alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError

from moedge_devices.store.daemon import RunningDaemon, Said
from moedge_devices.store.documents import Offer, Release
from moedge_devices.store.errors import RefusedError, UpdateFailedError
from moedge_devices.store.journal import Journal, Pending
from moedge_devices.store.store import Store
from moedge_devices.store.trust import Memory

STEP_S = 0.2
GO_BACK_S = 300.0
"""Longest wait until the old model is loaded again."""

MAX_TRIES = 3
"""Runs that may wait for one release to answer; each waits the whole time."""


@dataclass(frozen=True)
class Proof:
    """When an update counts.

    Attributes:
        answers: So many frames must be answered with the new model; 0 if it is enough that it is loaded.
        within_s: So long after the reload, loading included.
        keep: Versions that stay beside the one in use.
    """

    answers: int = 1
    within_s: float = 900.0
    keep: int = 1


class Updater:
    """Updates one store and one daemon. The caller holds the store's lock `update.lock` for all of it.

    Args:
        store: Where bundles are.
        memory: For releases that failed.
        daemon: Who has to answer.
        proof: What counts.
        say: Told each step in a sentence.
    """

    def __init__(
        self, store: Store, memory: Memory, daemon: RunningDaemon, proof: Proof, say: Callable[[str], None]
    ) -> None:
        self._store, self._memory, self._daemon, self._proof, self._say = store, memory, daemon, proof, say
        self._journal = Journal(store.journal)

    def finish(self) -> Release | None:
        """Finish or undo what an earlier run began.

        Returns:
            The release that counts now; None if there was nothing to do.

        Raises:
            UpdateFailedError: It had to go back.
        """
        pending = self._journal.read()
        if pending is None:
            return None
        release = pending.release
        if pending.phase == "going_back":
            self._go_back(pending)
        if self._store.version_in_use(release.name) != release.version:  # stopped before the link was changed
            self._journal.clear()
            return None
        if pending.tries >= MAX_TRIES:
            reason = f"{MAX_TRIES} runs have waited for its answers, and each was stopped before there were any"
            self._go_back(pending.model_copy(update={"phase": "going_back", "reason": reason}))
        self._say(f"Going on with the update to {release.label}, which was stopped.")
        pending = pending.model_copy(update={"tries": pending.tries + 1})
        self._journal.write(pending)
        return self._try(pending)

    def switch(self, release: Release) -> Release:
        """Switch to a version that is in the store.

        Returns:
            The release, which counts now.

        Raises:
            ConfigError: No daemon runs, or it does not use the store's link.
            UpdateFailedError: It did not answer; the one before is in its place.
        """
        self.check_daemon(release.name)
        pending = Pending(phase="trying", release=release, before=self._store.version_in_use(release.name))
        self._journal.write(pending)
        self._store.use(release.name, release.version)
        return self._try(pending)

    def check_daemon(self, name: str) -> None:
        """Make sure that a daemon can answer.

        Raises:
            ConfigError: None runs, or it does not use the store's link.
        """
        said, link = self._daemon.said(), self._store.link(name)
        if said is None:
            raise ConfigError(
                f"No daemon runs that writes to '{self._daemon.directory}', so nobody can say whether the new model "
                f"answers. Start it, or name its runtime directory with --runtime-directory; without a daemon use "
                f"`moedge bundle install` and `moedge bundle use`.",
                key="update.no_daemon",
            )
        if said.configured is not None and not _same_place(Path(said.configured), link):
            raise ConfigError(
                f"The daemon's model.bundle is '{said.configured}'; updates of {name} change the link '{link}'. Write "
                f"that into model.bundle of moedge.yaml.",
                key="update.other_bundle",
            )

    def _try(self, pending: Pending) -> Release:
        """Make the daemon load what the link points to, and wait for its answers."""
        fault = self._wait_for_answers(pending.release)
        if fault is not None:
            self._go_back(pending.model_copy(update={"phase": "going_back", "reason": fault}))
        self._memory.note(
            failed={label: why for label, why in self._memory.seen.failed.items() if label != pending.release.label}
        )
        self._journal.clear()
        with self._store.locked():
            self._store.keep(pending.release.name, self._proof.keep, set())
        return pending.release

    def _wait_for_answers(self, release: Release) -> str | None:
        """Why the release does not count; None if it does."""
        deadline_s = time.monotonic() + self._proof.within_s
        asked: Said | None = None
        said: Said | None = None
        while time.monotonic() < deadline_s:
            said = self._daemon.said()
            if said is not None:
                if self._runs(said, release):
                    if said.answers >= self._proof.answers:
                        self._say(f"{release.label} is loaded and has answered {counted(said.answers, 'frame')}.")
                        return None
                elif asked is None or asked.instance != said.instance:
                    if said.bundle is not None and self._daemon.reload():
                        asked = said
                elif said.reloads > asked.reloads and said.reload_error is not None:
                    return f"the daemon refused it ({said.reload_error.key}): {said.reload_error.message}"
            time.sleep(STEP_S)
        return self._what_is_missing(said, release)

    def _go_back(self, pending: Pending) -> None:
        """Put the version before in its place again. Always raises.

        Raises:
            UpdateFailedError: Saying why.
        """
        release, reason = pending.release, pending.reason or "it did not answer"
        with suppress(OSError):  # a full disk must not keep the old model away
            self._journal.write(pending)
        self._say(f"{release.label} does not count: {reason}. Going back to {pending.before or 'no version'}.")
        if pending.before is None:
            self._store.unlink(release.name)
        else:
            self._store.use(release.name, pending.before)
        back = self._wait_for_old(release)
        failed = self._memory.seen.failed | {release.label: reason}
        self._memory.note(failed=failed)
        self._journal.clear()
        where = f"{release.name}@{pending.before} is in use again" if pending.before else "no version is in use"
        raise UpdateFailedError(
            f"The update to {release.label} was undone: {reason}. {where}{back}. It is not tried again by itself "
            f"(--retry does).",
        )

    def _wait_for_old(self, release: Release) -> str:
        """Make the daemon leave the new version; what there is to say about that."""
        deadline_s = time.monotonic() + GO_BACK_S
        asked: Said | None = None
        while time.monotonic() < deadline_s:
            said = self._daemon.said()
            if said is None and self._daemon.pid() is None:
                return ", and no daemon runs: its next start loads it"
            if said is not None and said.bundle is not None and not self._runs(said, release):
                return ", and the daemon has it loaded"
            if said is not None and said.bundle is not None and (asked is None or asked.instance != said.instance):
                self._daemon.reload()
                asked = said
            time.sleep(STEP_S)
        return f", but the daemon has not loaded it within {GO_BACK_S:.0f} s: look at its log, and restart it"

    def _runs(self, said: Said, release: Release) -> bool:
        """Whether the daemon has loaded a release. The directory counts: two versions may have the same content."""
        return said.bundle == str(self._store.bundle(release.name, release.version).resolve())

    def _what_is_missing(self, said: Said | None, release: Release) -> str:
        proof = self._proof
        if said is None:
            return f"no daemon ran at the end of the wait of {proof.within_s:g} s"
        if not self._runs(said, release):
            return f"the daemon has not loaded it within {proof.within_s:g} s"
        failures = f", and {said.failures:,} failed" if said.failures else ""
        return (
            f"it has answered {said.answers:,} of the {counted(proof.answers, 'frame')} wanted within "
            f"{proof.within_s:g} s{failures}"
        )


def check_not_failed(memory: Memory, release: Offer) -> None:
    """Refuse a release that has failed on this board.

    Raises:
        RefusedError: It has.
    """
    reason = memory.seen.failed.get(release.label)
    if reason is not None:
        raise RefusedError(
            f"{release.label} was tried on this board and undone: {reason}. Publish a new version, or use --retry.",
            key="update.failed_before",
        )


def _same_place(configured: Path, link: Path) -> bool:
    """Whether two paths are the same link, whatever links lead to its directory."""
    return configured.name == link.name and configured.parent.resolve() == link.parent.resolve()
