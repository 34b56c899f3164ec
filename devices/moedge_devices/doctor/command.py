"""`moedge doctor`: what is wrong with this board, one line a check, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click
from moedge_runtime.command_line import examples

if TYPE_CHECKING:
    from moedge_runtime.bundle import Bundle
    from moedge_runtime.config import Config

    from moedge_devices.doctor.finding import Finding
    from moedge_devices.doctor.machine import Machine
    from moedge_devices.doctor.measure import Measurement
    from moedge_devices.profile.model import Profile

EXIT_FAILED = 1
"""Exit code if at least one check failed; warnings give 0."""

PROBE_EXPERTS = 128
"""Records that are written to measure with where there is no bundle: 340 MB."""

REPORT_VERSION = 1


@click.command(
    epilog=examples("moedge doctor --config moedge.yaml", "moedge doctor --bundle qwen3-vl-int4 --json > here.json")
)
@click.option("--device", metavar="NAME|FILE", help="Profile to compare with.  [default: as the board names itself]")
@click.option(
    "--config",
    "-c",
    "config_path",
    metavar="FILE",
    help="moedge.yaml: its bundle, cameras and broker are checked, and its bundle is measured with.",
)
@click.option(
    "--bundle", metavar="DIR", help="A paged bundle to measure with; it alone allows to time the dense parts."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="Without a bundle: where 340 MB are written for a moment, on the disk to measure.  [default: here]",
)
@click.option(
    "--measure/--no-measure", default=True, show_default=True, help="Measure; it loads all cores for a minute."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; `moedge plan --device FILE` takes it.")
def doctor(
    *, device: str | None, config_path: str | None, bundle: str | None, directory: Path, measure: bool, as_json: bool
) -> int:
    """Check this board and measure it.

    Every check is one line: ok, warning (moedge runs, worse than it could), failed (it does not) or skipped; what was
    found beside the profile, and what to do. Exits 1 if a check failed.
    """
    from moedge_runtime.config import load_config  # noqa: PLC0415  `moedge --help` stays fast
    from moedge_runtime.inference.expert_core.memory import available_memory, total_memory  # noqa: PLC0415

    from moedge_devices.doctor.identity import recognise, storage_kind  # noqa: PLC0415
    from moedge_devices.doctor.machine import Machine  # noqa: PLC0415
    from moedge_devices.doctor.measured_profile import measured_profile  # noqa: PLC0415
    from moedge_devices.doctor.service import check_broker, check_cameras, check_config_file  # noqa: PLC0415
    from moedge_devices.doctor.speed import check_speeds  # noqa: PLC0415
    from moedge_devices.plan.calibration import calibration  # noqa: PLC0415
    from moedge_devices.profile import find_profile, shipped_profiles  # noqa: PLC0415

    machine = Machine()
    profile = (
        recognise(machine, platform.machine(), shipped_profiles().values()) if device is None else find_profile(device)
    )
    config = load_config(config_path) if config_path else None
    findings: list[Finding] = [check_config_file(config)] if config else []
    opened = _open(bundle, config, findings)
    where = opened.path if opened else directory
    findings += _board(machine, profile, where, opened)
    kind = storage_kind(machine, _numbers(where), profile)
    found: Measurement | None = None
    measured: Profile | None = None
    total, available = total_memory(), available_memory()  # before the measurement takes some
    if measure:
        found = _measure(opened, directory)
        findings += check_speeds(found, profile, kind)
    if found is not None and total is not None and available is not None:
        measured = measured_profile(
            profile,
            found,
            calibration(),
            source=f"moedge doctor {date.today().isoformat()}",
            total_bytes=total,
            available_bytes=available,
            cores=len(os.sched_getaffinity(0)),
            storage=kind,
        )
    if config is not None:
        findings += [*check_cameras(config), *check_broker(config)]
    if as_json:
        click.echo(json.dumps(_report(profile, measured, findings), ensure_ascii=False))
    else:
        click.echo(f"{profile.title} ({profile.name})")
        click.echo("\n".join(finding.line() for finding in findings))
    return EXIT_FAILED if any(finding.status == "failed" for finding in findings) else 0


def _open(bundle: str | None, config: Config | None, findings: list[Finding]) -> Bundle | None:
    """The bundle to measure with; the configuration's is checked, and whether its memory is enough for it."""
    from moedge_runtime.bundle import Bundle  # noqa: PLC0415
    from moedge_runtime.errors import BundleError  # noqa: PLC0415

    from moedge_devices.doctor.finding import Finding  # noqa: PLC0415
    from moedge_devices.doctor.model import check_memory_plan  # noqa: PLC0415

    opened: Bundle | None = None
    if config is not None:
        try:
            opened = Bundle.open(config.model.bundle)
            findings.append(Finding("bundle", "ok", f"'{opened.path}' is complete by the sizes of its files"))
            findings.append(check_memory_plan(opened, config.model))
        except BundleError as error:
            findings.append(Finding("bundle", "failed", str(error)))
    if bundle is not None:
        opened = Bundle.open(bundle)
    return opened if opened is not None and opened.manifest.form == "paged" else None


def _board(machine: Machine, profile: Profile, where: Path, bundle: Bundle | None) -> list[Finding]:
    """What needs neither measuring nor a network."""
    from moedge_runtime.daemon.clock import clock_synced  # noqa: PLC0415

    from moedge_devices.doctor import jetson, raspberry_pi, system  # noqa: PLC0415

    nbytes = sum(entry.nbytes for entry in bundle.manifest.files) if bundle else None
    findings = [
        system.check_clock(clock_synced()),
        system.check_memory(machine, profile),
        system.check_swap(machine),
        system.check_huge_pages(machine),
        system.check_free_space(where.absolute(), shutil.disk_usage(where).free, nbytes),
        system.check_governor(machine),
        system.check_temperature(machine),
    ]
    if profile.family == "jetson":
        findings += [jetson.check_power_mode(machine, profile), jetson.check_rootfs_redundancy(machine)]
    if profile.family == "raspberry-pi":
        findings.append(raspberry_pi.check_throttling(machine))
    return findings


def _measure(bundle: Bundle | None, directory: Path) -> Measurement:
    from moedge_runtime.inference.onnx_session import thread_count  # noqa: PLC0415

    from moedge_devices.doctor.measure import measure  # noqa: PLC0415
    from moedge_devices.doctor.probe import probe_bundle  # noqa: PLC0415

    with ExitStack() as stack:
        if bundle is None:
            click.echo("moedge: writing records to measure with", err=True)
        records = bundle or stack.enter_context(probe_bundle(directory, PROBE_EXPERTS))
        return measure(
            records,
            thread_count(None),
            whole=bundle is not None,
            say=lambda what: click.echo(f"moedge: {what}", err=True),
        )


def _numbers(path: Path) -> tuple[int, int]:
    """Major and minor number of the device that `path` lies on."""
    device = path.stat().st_dev
    return os.major(device), os.minor(device)


def _report(profile: Profile, measured: Profile | None, findings: list[Finding]) -> dict[str, object]:
    return {
        "version": REPORT_VERSION,
        "device": profile.name,
        "failed": sum(finding.status == "failed" for finding in findings),
        "warnings": sum(finding.status == "warning" for finding in findings),
        "checks": [finding.to_json() for finding in findings],
        "profile": None if measured is None else measured.model_dump(mode="json", exclude_none=True),
    }
