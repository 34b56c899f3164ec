"""`moedge mqtt`: what a broker needs to know about devices."""

from __future__ import annotations

from pathlib import Path

import click

from moedge_runtime.command_line import examples
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.acl import Access, acl_text
from moedge_runtime.text_output import print_or_write


@click.group()
def mqtt() -> None:
    """Set up a broker for devices."""


@mqtt.command(
    epilog=examples("moedge mqtt acl --device gate-01 --operator alice --home-assistant ha --out moedge.acl"),
    short_help="Write an acl_file for mosquitto.",
)
@click.option(
    "--device", "devices", multiple=True, required=True, help="A device, and its user name. More than one is fine."
)
@click.option("--base", default="moedge", show_default=True, help="Base topic of the devices.")
@click.option("--operator", "operators", multiple=True, metavar="USER", help="May read everything and send requests.")
@click.option("--viewer", "viewers", multiple=True, metavar="USER", help="May read everything.")
@click.option("--inbox", "inboxes", multiple=True, metavar="TOPIC", help="Devices may respond below this topic too.")
@click.option("--home-assistant", metavar="USER", help="The user of Home Assistant.")
@click.option("--prefix", default="homeassistant", show_default=True, help="Home Assistant's discovery prefix.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a file instead of the terminal.")
def acl(
    *,
    devices: tuple[str, ...],
    base: str,
    operators: tuple[str, ...],
    viewers: tuple[str, ...],
    inboxes: tuple[str, ...],
    home_assistant: str | None,
    prefix: str,
    out: Path | None,
) -> None:
    """Write an acl_file for mosquitto: every device may do what it needs, and nothing else.

    Set `acl_file` and `allow_anonymous false` in mosquitto.conf. A device's user name is its name in moedge.yaml; with
    client certificates and `use_identity_as_username true` that is the certificate's common name.
    """
    try:
        text = acl_text(Access(base, devices, operators, viewers, inboxes, home_assistant, prefix))
    except ValueError as error:
        raise ConfigError(f"The access list cannot be written: {error}.") from error
    print_or_write(text, out)
