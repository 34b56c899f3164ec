"""What the test builds from: keys, a store with the demo model, seeds, an overlay with a shell, images and updates."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from board_image.emulator import PROMPT

MOEDGE = [sys.executable, "-m", "moedge_runtime"]
COMMAND_LINE = "console=ttyAMA0 loglevel=4 systemd.show_status=no kpti=off"
"""Page tables apart for kernel and programs cost an emulator a flush of its own tables in every call."""
WITHIN_S = 300
"""For answers of a new system: its time in the emulator."""
HOST = "10.0.2.2"
"""This machine, as one in the emulator sees it."""
CAMERA = "file:/var/lib/moedge/panel.mp4"


def run(*command: object) -> None:
    """Run a program; its output goes to standard error."""
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


@dataclass(frozen=True)
class Signer:
    """A certificate, its key."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path, name: str, *options: object) -> Signer:
        """One that signs itself, as docs/flash.md has it; `options` are openssl's."""
        made = cls(directory / f"{name}.pem", directory / f"{name}.key")
        if not made.key.exists():
            run(
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-days", 3650, "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate),
                *options,
            )
        return made


def overlay(directory: Path) -> Path:
    """A root shell on the serial line, and more patience."""
    unit = directory / "etc/systemd/system/serial-getty@ttyAMA0.service.d/shell.conf"
    unit.parent.mkdir(parents=True, exist_ok=True)
    bash = "/bin/bash --norc --noprofile --noediting -i"
    shell = f"/bin/sh -c 'stty -echo cols 1000; export PS1=\"{PROMPT} \" TERM=dumb; exec {bash}'"
    unit.write_text(
        f"[Service]\nExecStart=\nExecStart=-{shell}\nType=simple\nStandardInput=tty\nStandardOutput=tty\nStandardError=tty\n"
    )
    # An emulator on a busy machine is slower than any board.
    slow = directory / "etc/systemd/system.conf.d/slow.conf"
    slow.parent.mkdir(parents=True, exist_ok=True)
    slow.write_text("[Manager]\nDefaultTimeoutStartSec=900\nDefaultDeviceTimeoutSec=900\nRuntimeWatchdogSec=off\n")
    return directory


def seed(directory: Path, port: int, server: Signer) -> Path:
    """The files of one device whose broker, and whose source of updates, is outside the machine."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "version": 1,
        "device": "bench-01",
        "model": {"bundle": "/var/lib/moedge/store/current/panel", "memory": "300M"},
        "mqtt": {"url": f"mqtt://{HOST}:{port}"},
        "cameras": {"panel": {"source": CAMERA, "loop": True, "fps": 0.5}},
        "watches": [{"name": "reading", "camera": "panel", "question": "What is the reading?", "interval": 10}],
    }
    (directory / "moedge.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (directory / "device.json").write_text('{"device": "bench-01", "profile": "generic-arm64"}\n')
    (directory / "update.yaml").write_text(f"version: 1\nanswers: 1\nwithin: {WITHIN_S}\n")
    (directory / "ca.pem").write_bytes(server.certificate.read_bytes())
    (directory / "update-keys.json").write_bytes((directory.parent / "keys" / "update-keys.json").read_bytes())
    return directory


def data(directory: Path, bundle: Path, video: Path) -> Path:
    """What lies on the data partition: a store with the demo model, and a video for the camera."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "panel.mp4").write_bytes(video.read_bytes())
    store, keys = directory / "store", directory.parent / "keys"
    if store.exists():
        return directory
    keys.mkdir(exist_ok=True)
    for name in ("root", "signing"):
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", keys / f"{name}.key")
        run("openssl", "pkey", "-in", keys / f"{name}.key", "-pubout", "-out", keys / f"{name}.pub")
    trusted, published = keys / "update-keys.json", directory.parent / "published"
    run(
        *(*MOEDGE, "bundle", "keys", "--version", 1, "--root", keys / "root.pub", "--signer", keys / "signing.pub"),
        *("--sign-with", keys / "root.key", "--out", keys / "keys-1.json", "--board-file", trusted),
    )
    signed = ("--key", keys / "signing.key", "--keys", keys / "keys-1.json")
    named = ("--name", "panel", "--version", "1", "--channel", "stable")
    run(*MOEDGE, "bundle", "publish", published, bundle, *signed, *named)
    options = ("--store", store, "--source", published, "--keys", trusted)
    run(*MOEDGE, "bundle", "install", "panel@1", *options)
    run(*MOEDGE, "bundle", "use", "panel@1", "--store", store)
    return directory


def publish(update: Path, signer: Signer) -> Path:
    """The published directory, with a system beside the model."""
    published, keys = update.parent / "published", update.parent / "keys"
    signed = ("--key", keys / "signing.key", "--keyring", signer.certificate)
    run(*MOEDGE, "bundle", "publish", published, update, *signed, "--channel", "stable")
    return published


def build(out: Path, package: Path, signer: Signer, *options: object) -> None:
    """`moedge flash build`."""
    common = ("--package", package, "--keyring", signer.certificate, "--command-line", COMMAND_LINE, "--out", out)
    run(*MOEDGE, "flash", "build", "--profile", "generic-arm64", *common, *options)
