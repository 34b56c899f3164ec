"""`moedge fleet`: check, show, diff, render, acl, status, apply."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from moedge_runtime.command_line import FiniteRange, OutputDirectory, examples
from moedge_runtime.config.suggestion import did_you_mean
from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.address import parse_broker_url
from moedge_runtime.text_output import print_or_write

from moedge_devices.fleet.load import Device, Fleet, load_fleet

PASSWORD_VARIABLE = "MOEDGE_MQTT_PASSWORD"

_Command = TypeVar("_Command", bound=Callable[..., Any])
_file = click.option("--file", "-f", "path", default="fleet.yaml", show_default=True, metavar="FILE", help="The fleet.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _choice(command: _Command) -> _Command:
    """Options that choose devices."""
    for decorate in (
        click.option("--device", "devices", multiple=True, metavar="NAME", help="Only this device; repeatable."),
        click.option("--group", "groups", multiple=True, metavar="SITE/GROUP", help="Only this group; repeatable."),
        click.option("--site", "sites", multiple=True, metavar="SITE", help="Only this site; repeatable."),
    ):
        command = decorate(command)
    return command


def _access(command: _Command) -> _Command:
    """Options that say where and as whom to connect."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for decorate in (
        click.option(
            "--protocol", type=click.Choice(["5", "3.1.1"]), default="5", show_default=True, help="MQTT version."
        ),
        click.option("--key", type=file, help="PEM file of the key of your certificate."),
        click.option("--cert", type=file, help="PEM file of your certificate."),
        click.option("--ca", type=file, help="PEM file of the broker's authorities; default the system's."),
        click.option("--username", help=f"Your user; the password comes from the variable {PASSWORD_VARIABLE}."),
        click.option("--url", help="The broker; default that of each device's configuration."),
    ):
        command = decorate(command)
    return command


@click.group(short_help="All boards in one file: check, render, apply, watch.")
def fleet() -> None:
    """All boards in one file: check it, see what it means for each board, bring it to them, see how they are."""


@fleet.command(epilog=examples("moedge fleet check fleet.yaml"))
@click.argument("path", default="fleet.yaml", metavar="FILE")
@_as_json
def check(path: str, as_json: bool) -> None:
    """Check FILE (fleet.yaml) and every device's configuration.

    Prints everything that is wrong at once. Exits 0 if all is right, 2 if not.
    """
    loaded = load_fleet(path)
    counts = {
        "sites": len({device.site for device in loaded.devices.values()}),
        "groups": len(loaded.groups()),
        "devices": len(loaded.devices),
        "cameras": sum(len(device.config.cameras) for device in loaded.devices.values()),
        "watches": sum(len(device.config.watches) for device in loaded.devices.values()),
    }
    if as_json:
        click.echo(json.dumps({"file": path, "ok": True, **counts}))
    else:
        things = {"sites": "site", "groups": "group", "devices": "device", "cameras": "camera", "watches": "watch"}
        listing = ", ".join(counted(counts[key], thing, key) for key, thing in things.items())
        click.echo(f"{path} is valid: {listing}.")


@fleet.command(
    epilog=examples("moedge fleet show press-01"), short_help="Show what DEVICE is configured to do, and where."
)
@click.argument("device")
@_file
@_as_json
def show(device: str, path: str, as_json: bool) -> None:
    """Show what DEVICE is configured to do, and which layer and line of the fleet file each value comes from."""
    from moedge_devices.fleet.show import show_json, show_text  # noqa: PLC0415  `moedge fleet --help` stays fast

    loaded = load_fleet(path)
    chosen = _chosen(loaded, (), (), (device,))[0]
    click.echo(json.dumps(show_json(loaded, chosen), ensure_ascii=False) if as_json else show_text(loaded, chosen))


@fleet.command(
    epilog=examples("moedge fleet diff before.yaml fleet.yaml"),
    short_help="Say what a change of the file means for each device.",
)
@click.argument("old")
@click.argument("new")
@_as_json
def diff(old: str, new: str, as_json: bool) -> int:
    """Say what the step from the fleet file OLD to NEW means for each device.

    Exits 0 if nothing changes for any device, 1 if something does, 2 if a file is wrong.
    """
    from moedge_devices.fleet.diff import diff_fleets, diff_text  # noqa: PLC0415

    found = diff_fleets(load_fleet(old), load_fleet(new))
    click.echo(json.dumps(found.to_json(), ensure_ascii=False) if as_json else diff_text(found))
    return 0 if found.empty else 1


@fleet.command(epilog=examples("moedge fleet render --out rendered"))
@_file
@click.option("--out", required=True, type=OutputDirectory(), help="Directory for the files.")
@click.option("--force", is_flag=True, help="Overwrite and remove rendered files that were changed since.")
@_as_json
def render(path: str, out: Path, force: bool, as_json: bool) -> None:
    """Write DEVICE/moedge.yaml and DEVICE/device.json for every device.

    The same fleet gives the same bytes. Files that are right are left alone, those of devices that are gone removed.
    """
    from moedge_devices.fleet.render import render as render_files  # noqa: PLC0415

    done = render_files(load_fleet(path), out, force=force)
    if as_json:
        click.echo(json.dumps({"directory": str(out), **asdict(done)}))
        return
    click.echo(
        f"{out}: {counted(done.written, 'file')} written, {done.unchanged:,} unchanged, {done.removed:,} removed."
    )


@fleet.command(
    epilog=examples("moedge fleet acl --operator alice --out moedge.acl"),
    short_help="Write mosquitto's acl_file for the devices.",
)
@_file
@_choice
@click.option("--operator", "operators", multiple=True, metavar="USER", help="May read everything and send requests.")
@click.option("--viewer", "viewers", multiple=True, metavar="USER", help="May read everything.")
@click.option("--home-assistant", metavar="USER", help="The user of Home Assistant.")
@click.option("--all-brokers", is_flag=True, help="Also of devices on several brokers, for one they are bridged to.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a file instead of the terminal.")
def acl(*, path: str, out: Path | None, all_brokers: bool, **options: Any) -> None:
    """Write mosquitto's acl_file for the devices: each may do what it needs, and nothing else.

    As `moedge mqtt acl`, with names and base topics of the fleet file.
    """
    from moedge_devices.fleet.acl import fleet_acl  # noqa: PLC0415

    devices = _chosen(load_fleet(path), options["sites"], options["groups"], options["devices"])
    people = {name: options[name] for name in ("operators", "viewers", "home_assistant")}
    text = fleet_acl(devices, bridged=all_brokers, **people)
    print_or_write(text, out)


@fleet.command(
    epilog=examples("moedge fleet status --watch", "moedge fleet status --site berlin --json"),
    short_help="Show how the devices are, live from the broker.",
)
@_file
@_choice
@_access
@click.option("--wait", "wait_s", type=FiniteRange(0), default=2.0, show_default=True, help="Longest wait for devices.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--interval", "interval_s", type=FiniteRange(0.1), default=2.0, show_default=True, help="With --watch.")
@_as_json
def status(*, path: str, wait_s: float, watch: bool, interval_s: float, as_json: bool, **options: Any) -> int:
    """Show which devices are online, their version, bundle, last answer and health, live from the broker.

    Exits 0 if every device is without problems, 1 if one is not; with --watch 130, after Ctrl-C.
    """
    from moedge_devices.fleet.live import LiveView  # noqa: PLC0415
    from moedge_devices.fleet.status import status_text  # noqa: PLC0415

    devices = _chosen(load_fleet(path), options["sites"], options["groups"], options["devices"])
    with LiveView(devices, _access_of(options)) as live:
        live.settle(wait_s)
        while True:
            rows = live.rows()
            if as_json:
                document = {
                    "live": live.fault is None,
                    "fault": live.fault,
                    "devices": [row.to_json() for row in rows],
                }
                click.echo(json.dumps(document, ensure_ascii=False))
            else:
                if watch:
                    click.clear()
                click.echo(status_text(rows))
                if live.fault:
                    click.echo(f"Not live: {live.fault}")
            if not watch:
                return 0 if all(not row.problems for row in rows) else 1
            sys.stdout.flush()
            time.sleep(interval_s)


@fleet.command(
    epilog=examples("moedge fleet apply --dry-run", "moedge fleet apply --group berlin/press --canaries 2"),
    short_help="Send the devices their configuration, group by group.",
)
@_file
@_choice
@_access
@click.option(
    "--canaries", type=click.IntRange(0), default=1, show_default=True, help="Devices of each group that go first."
)
@click.option(
    "--max-failures",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the others of a group so many may fail.",
)
@click.option(
    "--timeout", type=FiniteRange(0.1), default=300.0, show_default=True, help="Seconds for an acknowledgement."
)
@click.option(
    "--settle",
    type=FiniteRange(0),
    default=10.0,
    show_default=True,
    help="Seconds after each step in which its devices must stay online.",
)
@click.option(
    "--bundle-within",
    type=FiniteRange(0.1),
    metavar="SECONDS",
    help="Each step waits so long for answers with the bundle of the fleet file; devices without one have failed.",
)
@click.option(
    "--system-within",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Each step waits so long for the system of the fleet file; without it, confirmed, a device has failed.",
)
@click.option(
    "--journal", type=click.Path(dir_okay=False, path_type=Path), help="What was done.  [default: FILE.applied]"
)
@click.option("--again", is_flag=True, help="Also devices that have acknowledged this configuration before.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent to whom, in which steps.")
@_as_json
def apply(*, path: str, dry_run: bool, as_json: bool, again: bool, **options: Any) -> int:
    """Send the devices their configuration over MQTT, group by group, and wait for their acknowledgements.

    Stops when more devices of a group fail than --max-failures, or a canary does. Run it again to go on: devices that
    have acknowledged are left out. Exits 0 if every device has its configuration, 1 if not.
    """
    from moedge_devices.fleet.apply import Applier, ApplyOptions, pending  # noqa: PLC0415
    from moedge_devices.fleet.journal import Journal  # noqa: PLC0415

    devices = _chosen(load_fleet(path), options["sites"], options["groups"], options["devices"])
    access = _access_of(options)
    careful = ApplyOptions(
        canaries=options["canaries"],
        max_failures=options["max_failures"],
        timeout_s=options["timeout"],
        settle_s=options["settle"],
        bundle_within_s=options["bundle_within"],
        system_within_s=options["system_within"],
    )
    journal = Journal(options["journal"] or Path(f"{path}.applied"))
    if dry_run:
        journal.read()
        orders, current = pending(devices, access, journal, again=again)
        _say_plan([order.device for order in orders], current, careful, as_json)
        return 0
    with journal.open():
        orders, current = pending(devices, access, journal, again=again)
        say = (lambda line: click.echo(line, err=True)) if as_json else click.echo
        outcome = Applier(orders, access, journal, careful, say).run(current)
    if as_json:
        click.echo(json.dumps(outcome.to_json(), ensure_ascii=False))
    else:
        counts = ", ".join(
            f"{len(names):,} {what}"
            for what, names in (
                ("applied", outcome.applied),
                ("had it before", outcome.current),
                ("failed", outcome.failed),
                ("not online", outcome.away),
                ("not reached", outcome.waiting),
            )
            if names or what == "applied"
        )
        click.echo(f"{counts}." + (f" {outcome.stopped}." if outcome.stopped else ""))
    return 0 if outcome.complete else 1


def _say_plan(devices: Sequence[Device], current: list[str], options: Any, as_json: bool) -> None:
    from moedge_devices.fleet.stages import stages_of  # noqa: PLC0415

    stages = stages_of(devices, canaries=options.canaries, max_failures=options.max_failures)
    if as_json:
        steps = [
            {
                "stage": stage.name,
                "devices": [device.name for device in stage.devices],
                "max_failures": stage.max_failures,
            }
            for stage in stages
        ]
        click.echo(json.dumps({"current": current, "stages": steps}))
        return
    for stage in stages:
        names = ", ".join(device.name for device in stage.devices)
        click.echo(f"{stage.name} ({len(stage.devices):,}; {stage.max_failures} may fail): {names}")
    click.echo(f"{counted(len(devices), 'device')} would be asked if online; up to date already: {len(current):,}.")


def _chosen(loaded: Fleet, sites: Sequence[str], groups: Sequence[str], names: Sequence[str]) -> list[Device]:
    """The devices that the options name, all of them without options.

    Raises:
        ConfigError: A name stands for nothing.
    """
    devices = list(loaded.devices.values())
    for what, given, known in (
        ("site", sites, {device.site for device in devices}),
        ("group", groups, {f"{device.site}/{device.group}" for device in devices}),
        ("device", names, set(loaded.devices)),
    ):
        for name in given:
            if name not in known:
                close = did_you_mean(name, sorted(known))
                raise ConfigError(f"There is no {what} '{name}' in '{loaded.path}'.{close}", key="fleet.unknown_name")
    if not (sites or groups or names):
        return devices
    return [
        device
        for device in devices
        if device.site in sites or f"{device.site}/{device.group}" in groups or device.name in names
    ]


def _access_of(options: dict[str, Any]) -> Any:
    from moedge_devices.fleet.links import Access  # noqa: PLC0415

    if options["url"] is not None:
        try:
            parse_broker_url(options["url"])
        except ValueError as error:
            raise ConfigError(f"The command line is wrong: {error}.") from error
    if (options["cert"] is None) != (options["key"] is None):
        raise ConfigError("The command line is wrong: --cert and --key belong together; give both or neither.")
    return Access(
        url=options["url"],
        username=options["username"],
        password=os.environ.get(PASSWORD_VARIABLE) if options["username"] else None,
        protocol=options["protocol"],
        ca=options["ca"],
        cert=options["cert"],
        key=options["key"],
    )
