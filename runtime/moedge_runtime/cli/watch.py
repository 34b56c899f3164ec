"""`moedge watch`: answers of one or many devices, live in the terminal. `moedge watch packs`: ready-made watches."""

from __future__ import annotations

import json
import os
import queue
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from moedge_runtime.command_line import examples
from moedge_runtime.errors import BrokerError, ConfigError
from moedge_runtime.mqtt.address import Connection, parse_broker_url
from moedge_runtime.mqtt.line import one_line
from moedge_runtime.mqtt.message import Received
from moedge_runtime.mqtt.session import Session
from moedge_runtime.mqtt.topics import answer_filter
from moedge_runtime.packs import load_pack, pack_names

PASSWORD_VARIABLE = "MOEDGE_MQTT_PASSWORD"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class _Lost:
    reason: str


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "moedge watch --url mqtt://broker:1883 --device gate-01",
        "moedge watch --url mqtt://broker:1883 --json --count 10",
    ),
)
@click.option("--url", default="mqtt://localhost:1883", show_default=True, help="The broker.")
@click.option("--base", default="moedge", show_default=True, help="Base topic.")
@click.option("--device", default="+", help="Only this device.")
@click.option("--camera", default="+", help="Only this camera.")
@click.option("--username", help=f"User; the password comes from the variable {PASSWORD_VARIABLE}.")
@click.option("--ca", type=_FILE, help="PEM file of the broker's authorities; default the system's.")
@click.option("--cert", type=_FILE, help="PEM file of your certificate.")
@click.option("--key", type=_FILE, help="PEM file of its key.")
@click.option("--protocol", type=click.Choice(["5", "3.1.1"]), default="5", show_default=True, help="MQTT version.")
@click.option("--json", "as_json", is_flag=True, help="Print each answer as it came, one a line.")
@click.option("--count", type=click.IntRange(min=1), help="Exit after so many answers.")
@click.pass_context
def watch(
    context: click.Context,
    *,
    url: str,
    base: str,
    device: str,
    camera: str,
    username: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    protocol: str,
    as_json: bool,
    count: int | None,
) -> None:
    """Show answers as they are published, until Ctrl-C or --count.

    Exits 0 after so many answers as --count says, 1 if the broker cannot be used, 130 after Ctrl-C.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        address, answers = parse_broker_url(url), answer_filter(base, device, camera)
    except ValueError as error:
        raise ConfigError(f"The command line is wrong: {error}.") from error
    if (cert is None) != (key is None):
        raise ConfigError("The command line is wrong: --cert and --key belong together; give both or neither.")
    if not address.tls and (ca or cert):
        raise ConfigError("The command line is wrong: --ca, --cert and --key go with a url that begins with mqtts://.")
    received: queue.SimpleQueue[Received | _Lost] = queue.SimpleQueue()
    session = Session(
        Connection(
            address,
            username=username,
            password=os.environ.get(PASSWORD_VARIABLE) if username else None,
            protocol="3.1.1" if protocol == "3.1.1" else "5",
            ca=ca,
            cert=cert,
            key=key,
        ),
        on_message=received.put,
        on_lost=lambda reason: received.put(_Lost(reason)),
    )
    session.open()
    try:
        session.subscribe(answers, retained=True)
        click.echo(f"Watching {answers} on {address}.", err=True)
        shown = 0
        while count is None or shown < count:
            event = received.get()
            if isinstance(event, _Lost):
                raise BrokerError(f"{event.reason} Start `moedge watch` again when the broker is back.")
            shown += 1
            click.echo(event.payload if as_json else line_of(event))
    finally:
        session.close()


@watch.command(epilog=examples("moedge watch packs parking"))
@click.argument("name", required=False)
def packs(name: str | None) -> None:
    """List the ready-made watches, or show all of the one called NAME."""
    try:
        if name is not None:
            click.echo(load_pack(name).text, nl=False)
            return
    except ValueError as error:
        raise ConfigError(f"The command line is wrong: {error}.") from error
    width = max(map(len, pack_names()))
    for pack in map(load_pack, pack_names()):
        click.echo(f"{pack.name:{width}}  {pack.title}")
    click.echo("Use one with `pack: NAME` in a watch of moedge.yaml; `moedge watch packs NAME` shows it.", err=True)


def line_of(message: Received) -> str:
    """One compact line in colour: time, camera and watch, answer, seconds."""
    try:
        answer: dict[str, Any] = json.loads(message.payload)
        time = one_line(str(answer["answered_at"])[11:19])
        name = one_line(f"{answer['camera']}/{answer['watch']}")
        if answer["status"] == "ok":
            value = answer["text"] if answer["data"] is None else json.dumps(answer["data"], ensure_ascii=False)
            text = click.style(one_line(value), fg="green")
            seconds = click.style(f"{answer['timing']['total_s']:.1f} s", dim=True)
            return f"{click.style(time, dim=True)} {click.style(name, fg='cyan')} {text} {seconds}"
        text = click.style(one_line(answer["error"]["message"]), fg="red")
        return f"{click.style(time, dim=True)} {click.style(name, fg='cyan')} {text}"
    except (ValueError, LookupError, TypeError):
        return click.style(f"{one_line(message.topic)}: {message.payload[:200]!r} is no answer of moedge", fg="red")
