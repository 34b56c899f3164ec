from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from moedge_devices.flash import confirm
from moedge_devices.flash.command import EXIT_WENT_BACK, flash
from moedge_devices.flash.confirm import (
    assignments,
    booted_slot,
    is_confirmed,
    mend_variables,
    note_confirmed,
    wait_for_answers,
)
from moedge_devices.store.daemon import Said
from moedge_runtime.errors import StorageError


def said(answers: int, bundle: str | None = "/var/lib/moedge/store/bundles/panel/1") -> Said:
    return Said.model_validate(
        {"pid": 1, "instance": "a", "configured": bundle, "bundle": bundle, "manifest_sha256": None}
        | {"answers": answers, "failures": 0, "reloads": 0, "reload_error": None}
    )


def test_a_system_counts_once_the_daemon_has_answered() -> None:
    answered = threading.Event()
    threading.Timer(0.2, answered.set).start()
    assert wait_for_answers(lambda: said(2 if answered.is_set() else 1), 2, 30.0) is None
    assert answered.is_set()


def test_a_system_does_not_count_without_a_daemon_or_without_answers() -> None:
    assert wait_for_answers(lambda: None, 1, 0.0) == "no daemon ran at the end of the wait of 0 s"
    assert wait_for_answers(lambda: said(0), 1, 0.0) == "the daemon has answered 0 of the 1 frame wanted within 0 s"
    assert wait_for_answers(lambda: said(5, None), 0, 0.0) is not None  # nothing is loaded


@pytest.mark.parametrize("fault", ["no daemon ran", None])
def test_a_system_that_goes_back_says_why_before_it_does_and_one_that_answers_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    (tmp_path / "cmdline").write_text("root=PARTLABEL=root-b rauc.slot=B\n")
    (tmp_path / "os-release").write_text('IMAGE_VERSION="2.0"\nBUILD_ID="b2"\n')
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho systemctl $2 >>'{tmp_path / 'asked'}'\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(confirm, "COMMAND_LINE", tmp_path / "cmdline")
    monkeypatch.setattr(confirm, "OS_RELEASE", tmp_path / "os-release")
    done: list[tuple[object, ...]] = []
    for name, result in (
        *(("mend_variables", False), ("is_confirmed", False), ("other_is_good", True), ("wait_for_answers", fault)),
        *((name, None) for name in ("note_fault", "note_confirmed", "forget_fault")),
    ):
        monkeypatch.setattr(
            confirm, name, lambda *given, name=name, result=result: done.append((name, *given)) or result
        )
    monkeypatch.setattr(confirm, "mark", lambda *, good: done.append(("mark", good)))
    code = CliRunner().invoke(flash, ["confirm"], standalone_mode=False).return_value
    changes = [each for each in done if each[0] in ("note_fault", "note_confirmed", "forget_fault", "mark")]
    if fault:
        assert changes == [("note_fault", "2.0", "update.failed", fault), ("mark", False)]
        assert (code, (tmp_path / "asked").read_text()) == (EXIT_WENT_BACK, "systemctl reboot\n")
    else:
        assert changes == [("note_confirmed", "B", "b2"), ("forget_fault",), ("mark", True)]
        assert code == 0 and not (tmp_path / "asked").exists()


def test_what_was_confirmed_is_this_build_in_this_slot(tmp_path: Path) -> None:
    assert not is_confirmed("A", "one", tmp_path)
    note_confirmed("A", "one", tmp_path)
    note_confirmed("B", "two", tmp_path)
    assert is_confirmed("A", "one", tmp_path) and is_confirmed("B", "two", tmp_path)
    assert not is_confirmed("B", "one", tmp_path) and not is_confirmed("A", "three", tmp_path)
    (tmp_path / "confirmed.json").write_text("damaged")
    assert not is_confirmed("A", "one", tmp_path)


def test_the_slot_is_the_kernels() -> None:
    assert booted_slot("root=PARTLABEL=root-b rauc.slot=B quiet\n") == "B"
    with pytest.raises(StorageError, match="names no slot"):
        booted_slot("root=/dev/vda1")


def test_assignments_of_os_release_and_grubenv() -> None:
    text = '# GRUB Environment Block\nORDER=A B\nIMAGE_VERSION="1.0"\n'
    assert assignments(text) == {"ORDER": "A B", "IMAGE_VERSION": "1.0"}


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="needs grub-common")
def test_variables_that_a_power_cut_emptied_are_those_of_the_last_boot_again(tmp_path: Path) -> None:
    grubenv, last = tmp_path / "grubenv", tmp_path / "grubenv.last"
    for path in (grubenv, last):
        subprocess.run(["grub-editenv", path, "create"], check=True)
        subprocess.run(["grub-editenv", path, "set", "ORDER=B A"], check=True)
    assert not mend_variables(grubenv)
    grubenv.write_bytes(b"")
    assert mend_variables(grubenv)
    subprocess.run(["grub-editenv", grubenv, "set", "B_OK=1"], check=True)
    listed = subprocess.run(["grub-editenv", grubenv, "list"], capture_output=True, text=True, check=True).stdout
    assert assignments(listed) == {"ORDER": "B A", "B_OK": "1"}
