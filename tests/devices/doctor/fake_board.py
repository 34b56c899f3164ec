"""Boards made of files and of what commands print.

What commands print and what files hold is copied from documentation and public issues, named beside each; none of it
comes from hardware that moedge has run on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moedge_devices.doctor.machine import Machine, Output

NVPMODEL_MAXN = "NV Power Mode: MAXN\n0\n"
"""github.com/anduril/jetpack-nixos, pull request 460."""

NVPMODEL_15W = "NV Power Mode: 15W\n2\n"
"""The same form, with another mode."""

NVPMODEL_CONF = """\
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
< PM_CONFIG DEFAULT=1 >
"""
"""The form of /etc/nvpmodel.conf: NVIDIA's skill jetson-customize-nvpmodel (github.com/NVIDIA/skills); modes and
numbers as in github.com/almond-bot/axol, pull request 220, where MAXN_SUPER is number 2."""

EFI_ATTRIBUTES = b"\x07\x00\x00\x00"
"""Non-volatile, boot service and runtime access: Linux, Documentation/filesystems/efivarfs.rst."""

MEMINFO_PI_8 = "MemTotal:        8132800 kB\nMemAvailable:    7706816 kB\n"
"""7,942 MiB, 416 of them used: github.com/geerlingguy/sbc-reviews, issue 21."""

PI_MODEL = b"Raspberry Pi 5 Model B Rev 1.0\0"
"""github.com/geerlingguy/sbc-reviews, issue 21."""


def board(
    root: Path, files: Mapping[str, str | bytes] | None = None, commands: Mapping[str, str] | None = None
) -> Machine:
    """A machine with these files below `root`, on which a command prints what is given for it and no other exists."""
    for name, content in (files or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    outputs = dict(commands or {})

    def run(command: Sequence[str]) -> Output | None:
        text = outputs.get(" ".join(command))
        return None if text is None else Output(0, text)

    return Machine(root, run)
