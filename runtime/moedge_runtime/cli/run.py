"""`moedge run`: the daemon."""

from __future__ import annotations

import sys

import click

from moedge_runtime.cli.ask import VERIFY_HELP
from moedge_runtime.command_line import examples
from moedge_runtime.config import Config, load_config
from moedge_runtime.counted import counted
from moedge_runtime.daemon.bundle_check import open_bundle
from moedge_runtime.daemon.preflight import check_config


@click.command(
    epilog=examples("moedge run --config moedge.yaml --check", "moedge run --config moedge.yaml"),
    short_help="Run the daemon: cameras in, answers out over MQTT.",
)
@click.option(
    "--config", "-c", "config_path", default="moedge.yaml", show_default=True, metavar="FILE", help="The configuration."
)
@click.option("--check", is_flag=True, help="Check configuration, bundle, questions and sources, then exit.")
@click.option("--exit-when-done", is_flag=True, help="Exit when every camera has come to its end.")
@click.option("--verify/--no-verify", default=None, help=f"{VERIFY_HELP} Overrides model.verify.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Overrides log.level.")
def run(config_path: str, check: bool, exit_when_done: bool, verify: bool | None, log_level: str | None) -> None:
    """Run the daemon: take frames, ask the model the standing questions, publish the answers on MQTT.

    SIGTERM and Ctrl-C stop it in order. Exits 0 then, 1 if answers could not be delivered any more or if it cannot
    start, 2 if the configuration is wrong, 130 if a second signal did not wait for that.
    """
    config = load_config(config_path)
    if check:
        click.echo(_checked(config, verify, exit_when_done))
        return
    from moedge_runtime.daemon.engine import EngineAnswerer  # noqa: PLC0415
    from moedge_runtime.daemon.process import run_process  # noqa: PLC0415

    sys.exit(
        run_process(config, EngineAnswerer.open, exit_when_done=exit_when_done, verify=verify, log_level=log_level)
    )


def _checked(config: Config, verify: bool | None, exit_when_done: bool) -> str:
    """One line about a configuration whose bundle, questions and sources are good.

    Raises:
        MoedgeError: They are not.
    """
    from moedge_runtime.daemon.engine import question_checker  # noqa: PLC0415

    bundle = open_bundle(config.model, verify)
    check_config(config, question_checker(bundle, config.model), sources=True, exit_when_done=exit_when_done)
    manifest = bundle.manifest
    embedded = config.mqtt.embedded
    broker = f"embedded broker on {embedded.host}:{embedded.port}" if embedded else f"broker {config.mqtt.url}"
    return (
        f"{config.source} is valid: device '{config.device}', {counted(len(config.cameras), 'camera')}, "
        f"{counted(len(config.watches), 'watch', 'watches')}, model {manifest.model.source.name} ({manifest.form}), "
        f"{broker}."
    )
