"""Updates with a real daemon process: kept when it answers, else undone, wherever the updater was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devices.store.mortal_update import run
from devices.store.samples import Board
from moedge_devices.store.daemon import RunningDaemon
from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.daemon.updates import LOOK_NAME, UPDATE_LOCK_NAME, LastLook
from moedge_runtime.file_lock import holder
from moedge_runtime.mqtt.listening import free_port
from runtime.camera.videos import write_video
from runtime.daemon.fakes import write_config

HERE = Path(__file__).parent
DEADLINE_S = 60.0


class Running:
    """The daemon of a board, in a process of its own; there is no broker, and none is needed."""

    def __init__(self, place: Path, link: Path) -> None:
        self.directory, self.log = place / "run", place / "daemon.log"
        self.directory.mkdir()
        write_video(place / "panel.mp4", frames=40, fps=10)
        self._config = write_config(
            place,
            link,
            free_port(),
            cameras={"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}},
            watches=[{"name": "number", "camera": "panel", "question": "Which frame?", "interval": "50ms"}],
        )

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "fake_daemon.py", self._config],
                stdout=log,
                stderr=log,
                env=os.environ | {"RUNTIME_DIRECTORY": str(self.directory)},
            )

    def wait(self) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while (said := RunningDaemon(self.directory).said()) is None or not said.answers:
            assert time.monotonic() < deadline_s and self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def version(self) -> str:
        said = RunningDaemon(self.directory).said()
        assert said is not None and said.bundle is not None, self.log.read_text()
        return Path(said.bundle).name

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def daemon(place: Path, board: Board) -> Iterator[Running]:
    """It runs panel@1."""
    board.publisher.release("1")
    board.install()
    with board.store.locked():
        board.store.use("panel", "1")
    running = Running(place, board.store.link("panel"))
    running.start()
    running.wait()
    yield running
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(30)


class Updates:
    """Runs `moedge bundle update` in a process of its own."""

    def __init__(self, board: Board, daemon: Running) -> None:
        self._output = daemon.directory.with_name("update.json")
        self._options = [
            *("--store", board.store.root, "--source", board.publisher.directory),
            *("--keys", board.publisher.keys_file, "--runtime-directory", daemon.directory, "--json"),
        ]

    def __call__(self, *arguments: str, point: str = "never", within: str = "30s") -> tuple[int, dict[str, Any]]:
        options = [str(option) for option in self._options]
        code = run(point, ["update", "--within", within, *options, *arguments], self._output)
        text = self._output.read_text()
        assert code in (0, 1, 2, -signal.SIGKILL), text
        return code, json.loads(text) if code >= 0 else {}


@pytest.fixture
def update(board: Board, daemon: Running) -> Updates:
    return Updates(board, daemon)


def noted(board: Board) -> tuple[str, str | None, str | None]:
    """What the daemon is told of the last run: status, version, key of the error."""
    look = LastLook.model_validate_json((board.store.root / LOOK_NAME).read_bytes())
    assert look.text
    return look.status, look.version, look.error.key if look.error else None


def test_a_version_that_answers_is_kept_and_old_ones_go(board: Board, daemon: Running, update: Updates) -> None:
    assert update()[1]["status"] == noted(board)[0] == "current"
    for version in ("2", "3"):
        board.publisher.release(version)
        assert update("--check")[1]["status"] == "available" and daemon.version() != version
        assert noted(board) == ("available", version, None)
        code, said = update()
        assert (code, said["status"], said["version"]) == (0, "updated", version)
        assert noted(board) == ("updated", version, None)
        assert daemon.version() == board.store.version_in_use("panel") == version
    assert [each.release.version for each in board.store.installed()] == ["3", "2"], "one older version stays"
    assert not board.store.journal.exists()
    assert daemon.process.poll() is None


def test_a_version_that_cannot_be_loaded_or_does_not_answer_is_undone_and_not_tried_again(
    board: Board, daemon: Running, update: Updates
) -> None:
    board.publisher.release("2", head="broken head")
    code, said = update()
    assert (code, said["error"]["key"]) == (1, "update.failed")
    assert "the daemon refused it (bundle.fake): This fake does not load." in said["error"]["message"]
    assert "panel@1 is in use again, and the daemon has it loaded" in said["error"]["message"]
    assert daemon.version() == board.store.version_in_use("panel") == "1"
    assert noted(board) == ("failed", "2", "update.failed")
    assert update()[1]["error"]["key"] == "update.failed_before"
    assert noted(board) == ("failed", "2", "update.failed_before")
    assert update("--retry")[1]["error"]["key"] == "update.failed"
    board.publisher.release("3", head="mute head")
    code, said = update(within="3s")
    assert (code, said["error"]["key"]) == (1, "update.failed")
    assert "it has answered 0 of the 1 frame wanted within 3 s, and" in said["error"]["message"]
    assert daemon.version() == board.store.version_in_use("panel") == "1"
    board.publisher.release("4")
    assert update()[1]["status"] == "updated"


@pytest.mark.slow
def test_a_version_that_kills_the_daemon_is_undone_for_its_next_start(
    board: Board, daemon: Running, update: Updates
) -> None:
    board.publisher.release("2", head="deadly head")
    code, said = update(within="3s")
    assert (code, said["error"]["key"]) == (1, "update.failed")
    assert "no daemon runs: its next start loads it" in said["error"]["message"]
    assert board.store.version_in_use("panel") == "1"
    assert daemon.process.wait(10) == -signal.SIGKILL
    daemon.start()
    daemon.wait()
    assert daemon.version() == "1"


GOOD_POINTS = [
    "install.fetch:after",
    "Store.assemble:before",
    "Store.assemble:after",
    "Journal.write:before",
    "Journal.write:after",
    "Store.use:before",
    "Store.use:after",
    "Daemon.reload:before",
    "Daemon.reload:after",
    "Memory.note:before",
    "Memory.note:after",
    "Journal.clear:before",
    "Journal.clear:after",
    "Store.keep:after",
]


@pytest.mark.slow
def test_an_updater_killed_at_any_point_is_finished_by_the_next_run(
    board: Board, daemon: Running, update: Updates
) -> None:
    for number, point in enumerate(GOOD_POINTS, start=2):
        version = str(number)
        board.publisher.release(version)
        code, _ = update(point=point)
        assert code == -signal.SIGKILL, point
        for each in board.store.installed():
            verify_bundle(Bundle.open(each.path))
        Bundle.open(board.store.link("panel"))
        code, said = update()
        assert (code, said["status"]) in ((0, "updated"), (0, "current")), (point, said)
        assert daemon.version() == board.store.version_in_use("panel") == version, point
        assert not board.store.journal.exists()
        assert list(board.store.partial.iterdir()) == [], point


def test_others_see_that_an_update_is_made_and_do_not_hinder_it(board: Board) -> None:
    board.publisher.release("1")
    board.install()
    ask = "import pathlib, sys, moedge_runtime.file_lock as lock; print(lock.holder(pathlib.Path(sys.argv[1])))"
    with board.store.locked(UPDATE_LOCK_NAME):
        for _ in range(2):
            seen = subprocess.run(
                [sys.executable, "-c", ask, board.store.root / UPDATE_LOCK_NAME],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            assert seen == f"{os.getpid()}\n"
    assert holder(board.store.root / UPDATE_LOCK_NAME) is None
    assert holder(board.store.root / "none") is None
    with board.store.locked(UPDATE_LOCK_NAME):
        pass


BAD_POINTS = [
    "Store.use:after:1",
    "Updater._go_back:before",
    "Journal.write:after:2",
    "Store.use:after:2",
    "Memory.note:after:2",
    "Journal.clear:before",
]


def test_an_updater_killed_while_it_goes_back_still_goes_back(board: Board, daemon: Running, update: Updates) -> None:
    for number, point in enumerate(BAD_POINTS, start=2):
        board.publisher.release(str(number), head=f"broken head {number}")
        assert update(point=point)[0] == -signal.SIGKILL, point
        code, said = update()
        assert code == 1 and said["error"]["key"] in ("update.failed", "update.failed_before"), (point, said)
        assert daemon.version() == board.store.version_in_use("panel") == "1", point
        assert not board.store.journal.exists()
        assert update()[1]["error"]["key"] == "update.failed_before", point


@pytest.mark.slow
def test_a_reboot_in_the_middle_ends_with_a_version_that_answers(
    board: Board, daemon: Running, update: Updates
) -> None:
    board.publisher.release("2")
    assert update(point="Store.use:after")[0] == -signal.SIGKILL
    assert noted(board) == ("updating", "2", None)
    daemon.kill()
    daemon.start()
    assert update()[1]["finished"] == "panel@2"
    board.publisher.release("3", head="deadly head")
    assert update(point="Store.use:after")[0] == -signal.SIGKILL
    daemon.kill()
    daemon.start()
    daemon.process.wait(60)
    code, said = update(within="1s")
    assert (code, said["error"]["key"]) == (1, "update.failed")
    daemon.start()
    daemon.wait()
    assert daemon.version() == "2"


def test_a_board_that_reboots_again_and_again_goes_back_in_the_end(
    board: Board, daemon: Running, update: Updates
) -> None:
    board.publisher.release("2", head="mute head")
    for _ in range(3):
        assert update(point="Daemon.said:before:4")[0] == -signal.SIGKILL
    code, said = update()
    assert code == 1 and "3 runs have waited for its answers" in said["error"]["message"]
    assert daemon.version() == "1"


def test_without_a_daemon_or_with_another_link_nothing_is_switched(
    board: Board, daemon: Running, update: Updates, place: Path
) -> None:
    board.publisher.release("2")
    daemon.kill()
    assert update()[1]["error"]["key"] == "update.no_daemon"
    (place / "other").symlink_to(board.store.bundle("panel", "1"))
    text = (place / "moedge.yaml").read_text()
    (place / "moedge.yaml").write_text(text.replace(str(board.store.link("panel")), str(place / "other")))
    daemon.start()
    daemon.wait()
    assert update()[1]["error"]["key"] == "update.other_bundle"
    assert board.store.version_in_use("panel") == "1"


def test_downgrades_and_releases_for_others_are_refused(board: Board, daemon: Running, update: Updates) -> None:
    from moedge_devices.store.publish import publish

    board.publisher.release("2")
    assert update()[1]["status"] == "updated"
    publish(board.publisher.directory, board.publisher.key, withdraw=["panel@2"])
    assert update()[1]["error"]["key"] == "update.downgrade"
    board.publisher.release("3", channels=["beta"])
    board.publisher.release("4", profiles=["raspberry-pi-5-8gb"])
    board.publisher.release("5", devices=["another"])
    board.publisher.release("6", min_moedge="99.0")
    assert update()[1]["error"]["key"] == "update.downgrade", "none of them is for this device"
    assert update("--channel", "beta")[1]["version"] == "3"
    assert daemon.version() == "3"
    code, said = update("--allow-downgrade")
    assert (code, said["status"], said["version"], daemon.version()) == (0, "updated", "1", "1")
