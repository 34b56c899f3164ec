"""The package of `make deb` in a Debian 12: installed, used, upgraded, removed, purged. The last test ends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import moedge_runtime
import pytest
import yaml
from debian.chroot import Chroot
from devices.store.samples import Publisher
from moedge_devices.store.publish import Terms, publish
from moedge_panel.render import draw_panel
from moedge_panel.video import video_states, video_style
from moedge_runtime.bundle import Bundle
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.daemon.notify_socket import NotifySocket
from runtime.mqtt.brokers import running_mosquitto
from runtime.mqtt.listener import Listener
from wheels.installed import run

pytestmark = pytest.mark.slow

BUNDLE = "/var/lib/moedge/bundles/panel-int4"
CONFIG = "/etc/moedge/moedge.yaml"
CAMERA = "exec:sh -c 'while cat /var/lib/moedge/panel.jpg; do sleep 0.5; done'"
MOST_EXPOSURE = {"moedge.service": 2.5, "moedge-update.service": 2.5, "moedge-update-check.service": 2.5}
UPDATE_SOCKETS = ("moedge-update.socket", "moedge-update-check.socket")
PUSHED = "/var/lib/moedge/pushed"
UPDATE_CONFIG = "/etc/moedge/update.yaml"
STORE = "/var/lib/moedge/store"
START_S = 120.0
STATE = video_states(1)[0]


@pytest.fixture(scope="module")
def untouched(debian: Chroot) -> set[str]:
    """Files before the package came."""
    return debian.files()


@pytest.fixture(scope="module")
def installed(debian: Chroot, untouched: set[str], amd64: Path) -> Chroot:
    debian.install(amd64)
    return debian


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerAddress]:
    yield from running_mosquitto(tmp_path_factory.mktemp("mosquitto"))


@pytest.fixture(scope="module")
def configured(installed: Chroot, broker: BrokerAddress, bundle: Path) -> Chroot:
    """With the demo model, and a camera that is a command."""
    run("cp", "-R", bundle, installed.root / BUNDLE.lstrip("/"), environment=os.environ)
    draw_panel(STATE, video_style()).image.save(installed.root / "var/lib/moedge/panel.jpg", quality=95)
    watch = {"name": "reading", "camera": "panel", "question": "What is the reading?", "interval": "1s"}
    config = {
        "version": 1,
        "device": "board",
        "model": {"bundle": BUNDLE, "memory": "1G", "threads": 1},
        "mqtt": {"url": f"mqtt://127.0.0.1:{broker.port}"},
        "cameras": {"panel": {"source": CAMERA}},
        "watches": [watch],
    }
    (installed.root / CONFIG.lstrip("/")).write_text(yaml.safe_dump(config))
    return installed


def test_before_it_is_configured_the_service_has_nothing_to_start(installed: Chroot) -> None:
    unit = (installed.root / "lib/systemd/system/moedge.service").read_text()
    condition = re.search(r"^ExecCondition=(\S+) -q '(.*)' (\S+)$", unit, re.MULTILINE)
    assert condition
    assert installed.start(condition[1], "-q", condition[2], condition[3], user=True).returncode == 1
    assert installed.run("systemctl", "is-enabled", "moedge.service") == "enabled\n"


def test_the_example_in_the_configuration_is_a_configuration(installed: Chroot, tmp_path: Path) -> None:
    lines = (installed.root / CONFIG.lstrip("/")).read_text().splitlines()
    example = [line[2:] for line in lines[lines.index("# version: 1") :]]
    (installed.root / "tmp/example.yaml").write_text("\n".join(example))
    done = installed.start("env", "MQTT_PASSWORD=x", "moedge", "run", "--check", "-c", "/tmp/example.yaml")
    (installed.root / "tmp/example.yaml").unlink()
    assert "bundles/qwen3-vl-int4" in done.stderr, "all that is missing is the bundle"
    assert done.returncode == 1


def test_the_command_runs_without_the_libraries_of_the_system(installed: Chroot) -> None:
    assert installed.run("moedge", "--version") == f"moedge, version {moedge_runtime.__version__}\n"
    paths = json.loads(
        installed.run("/usr/lib/moedge/bin/python", "-c", "import json, sys; print(json.dumps(sys.path[1:]))")
    )
    assert not [path for path in paths if path.endswith("dist-packages")]


def test_every_command_is_in_the_man_page(installed: Chroot) -> None:
    page = run("zcat", installed.root / "usr/share/man/man1/moedge.1.gz", environment=os.environ)
    commands = re.findall(r"^  ([a-z-]+) ", installed.run("moedge", "--help").partition("Commands:")[2], re.MULTILINE)
    assert commands
    described = page.partition(".SH COMMANDS")[2].partition(".SH EXIT STATUS")[0]
    assert re.findall(r"^\.TP\n\.B ([a-z-]+)$", described, re.MULTILINE) == commands


def test_the_daemon_owns_its_state_and_neither_bundles_nor_configuration(installed: Chroot) -> None:
    paths = ("/var/lib/moedge", "/var/lib/moedge/bundles", "/etc/moedge", CONFIG)
    assert installed.run("stat", "--format=%U:%G %a", *paths).splitlines() == [
        "moedge:moedge 750",
        "root:root 755",
        "root:moedge 750",
        "root:moedge 640",
    ]
    groups = installed.run("id", "--name", "--groups", "moedge").split()
    assert set(groups) == {"moedge", "video", "render"}


def test_systemd_accepts_the_units_and_their_exposure_is_low(installed: Chroot) -> None:
    units = (*MOST_EXPOSURE, "moedge-update.timer", *UPDATE_SOCKETS)
    verified = installed.start("systemd-analyze", "verify", "--man=no", *units)
    assert (verified.returncode, verified.stderr) == (0, "")
    for unit, most in MOST_EXPOSURE.items():
        report = installed.run("systemd-analyze", "security", "--offline=yes", "--no-pager", unit)
        exposure = re.search(rf"Overall exposure level for {unit}: ([\d.]+)", report)
        assert exposure
        assert float(exposure[1]) < most, report


def test_the_updater_is_off_until_it_is_configured(installed: Chroot) -> None:
    services = ("moedge-update.service", "moedge-update-check.service")
    for unit in ("moedge-update.timer", *UPDATE_SOCKETS):
        assert installed.run("systemctl", "is-enabled", unit) == "enabled\n"
    for unit in services:
        assert installed.start("systemctl", "is-enabled", unit).stdout == "static\n"
    for unit in ("moedge-update.timer", *services, *UPDATE_SOCKETS):
        text = (installed.root / "lib/systemd/system" / unit).read_text()
        assert f"ConditionPathExists={UPDATE_CONFIG}\n" in text
    assert not (installed.root / UPDATE_CONFIG.lstrip("/")).exists()
    assert installed.run("stat", "--format=%U:%G %a", STORE) == "root:root 755\n"


def test_the_restart_budget_meets_hangs_too(installed: Chroot) -> None:
    unit = (installed.root / "lib/systemd/system/moedge.service").read_text()
    value = dict(re.findall(r"^(\w+)=(\d+)(?:h|min|s)?$", unit, re.MULTILINE))
    budget_min, restarts = 60 * int(value["StartLimitIntervalSec"]), int(value["StartLimitBurst"])
    assert restarts * (int(value["WatchdogSec"]) + int(value["TimeoutStartSec"]) / 2) < budget_min


def test_the_configuration_of_the_demo_is_valid_for_the_daemons_user(configured: Chroot) -> None:
    checked = configured.run("moedge", "run", "--check", "--config", CONFIG, user=True)
    assert checked.startswith(f"{CONFIG} is valid: device 'board', 1 camera, 1 watch")


def test_limits_for_systemd_are_printed(configured: Chroot) -> None:
    assert "\nMemoryMax=1536M\n" in configured.run("moedge", "service-limits", user=True)


@contextmanager
def daemon(board: Chroot) -> Iterator[NotifySocket]:
    """The daemon as the unit starts it, with a socket in the place of systemd's; it ends in order."""
    environment = ("env", "-i", "PATH=/usr/bin", "NOTIFY_SOCKET=/run/n", "WATCHDOG_USEC=60000000")
    words = ("sh", "-c", f"umask 027; exec /usr/bin/moedge run --config {CONFIG}")
    with NotifySocket(board.root / "run/n") as manager:
        manager.path.chmod(0o777)
        with subprocess.Popen(
            board.command(*environment, *words, user=True), stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                manager.wait_for("READY", "1", START_S)
                yield manager
                inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                os.kill(int(inside), signal.SIGTERM)
                manager.wait_for("STOPPING", "1")
                assert process.wait(START_S) == 0
            finally:
                process.kill()
    (board.root / "run/n").unlink()


def test_the_daemon_answers_over_mqtt_and_reports_to_systemd(configured: Chroot, broker: BrokerAddress) -> None:
    with Listener(broker, "moedge/#") as listener:
        with daemon(configured) as manager:
            answer = json.loads(listener.message("moedge/board/panel/answer").payload)
            assert answer["text"] == str(STATE.reading)
            manager.wait_for("WATCHDOG", "1", START_S)
        listener.message("moedge/board/status", "stopped")


def test_a_configuration_that_is_pushed_counts_and_leaves_etc_to_root(
    configured: Chroot, broker: BrokerAddress
) -> None:
    def in_etc() -> list[str]:
        return configured.run("sh", "-c", "sha256sum /etc/moedge/*").splitlines()

    before = in_etc()
    config = yaml.safe_load((configured.root / CONFIG.lstrip("/")).read_text())
    config["watches"][0]["interval"] = "3s"
    device = json.dumps({"device": "board", "update": {"channel": "fleet"}})
    request = {"transaction": "1", "config": yaml.safe_dump(config), "device_file": device}
    with Listener(broker, "moedge/#") as listener, daemon(configured):
        listener.message("moedge/board/status", "online")
        listener.publish("moedge/board/request/config", json.dumps(request))
        response = listener.json("moedge/board/response/config")
        assert response["status"] == "ok" and response["data"]["changed"], response
    assert in_etc() == before
    paths = (PUSHED, f"{PUSHED}/moedge.yaml", f"{PUSHED}/device.json")
    assert configured.run("stat", "--format=%U:%G %a", *paths).splitlines() == [
        "moedge:moedge 750",
        "moedge:moedge 640",
        "moedge:moedge 640",
    ]

    with Listener(broker, "moedge/#") as listener, daemon(configured):
        info = listener.json("moedge/board/info", '"interval":3.0')
        assert info["config_file"] == f"{PUSHED}/moedge.yaml"
    report = json.loads(configured.start("moedge", "doctor", "--no-measure", "--json", "--config", CONFIG).stdout)
    findings = {finding["check"]: finding for finding in report["checks"]}
    assert findings["config"]["value"] == f"{PUSHED}/moedge.yaml"
    assert findings["camera.panel"]["status"] == "skipped", "root runs no command that the daemon may have written"

    configured.run("rm", f"{PUSHED}/moedge.yaml")
    assert configured.run("moedge", "run", "--check", "--config", CONFIG, user=True).startswith(f"{CONFIG} is valid")


# As systemd starts both, in one namespace of processes: the daemon as its user, the updater as root with the group and
# the one capability of its unit.
UPDATE = """
cd /var/lib/moedge
install --directory --owner moedge --group moedge --mode 0750 /run/moedge
setpriv --reuid moedge --regid moedge --groups video,render --no-new-privs \\
    sh -c 'umask 027; RUNTIME_DIRECTORY=/run/moedge exec moedge run --config /var/lib/moedge/update-test.yaml' &
until grep -q '"answers": *[1-9]' /run/moedge/model.json 2>/dev/null; do sleep 0.2; kill -0 $!; done
setpriv --regid moedge --clear-groups --bounding-set=-all,+kill --no-new-privs moedge bundle update --json
kill $!
wait $!
"""


def test_the_check_is_the_updater_that_only_looks(installed: Chroot) -> None:
    update, check = (
        (installed.root / f"lib/systemd/system/{name}.service").read_text().splitlines()
        for name in ("moedge-update", "moedge-update-check")
    )
    assert [line for line in check if line not in update] == [
        "Description=Looks for a newer model for moedge",
        "ExecStart=/usr/bin/moedge bundle update --check",
    ]
    assert [line for line in update if line not in check] == [
        "Description=Brings moedge's model up to date",
        "After=moedge-update-check.service",
        "ExecStart=/usr/bin/moedge bundle update",
    ]


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("publisher"))


def release(configured: Chroot, publisher: Publisher, bundle: Path, version: str) -> None:
    """Publish the demo model, where the chroot sees it."""
    terms = Terms(channels=["fleet"])
    publish(publisher.directory, publisher.key, bundle=Bundle.open(bundle), name="panel", version=version, terms=terms)
    shutil.copytree(publisher.directory, configured.root / "srv/moedge", dirs_exist_ok=True)


def test_the_updater_changes_the_model_with_the_rights_that_its_unit_gives_it(
    configured: Chroot, publisher: Publisher, bundle: Path
) -> None:
    """It follows the channel of the device.json that was pushed."""
    unit = (configured.root / "lib/systemd/system/moedge-update.service").read_text()
    assert "\nUser=root\nGroup=moedge\n" in unit and "\nCapabilityBoundingSet=CAP_KILL\n" in unit
    release(configured, publisher, bundle, "1")
    shutil.copy(publisher.keys_file, configured.root / "etc/moedge/update-keys.json")
    (configured.root / UPDATE_CONFIG.lstrip("/")).write_text(
        "source: /srv/moedge\nbundle: panel\ndevice: /etc/moedge/device.json\nwithin: 5m\n"
    )
    configured.run("moedge", "bundle", "install", "panel@1")
    configured.run("moedge", "bundle", "use", "panel@1")
    config = yaml.safe_load((configured.root / CONFIG.lstrip("/")).read_text())
    config["model"]["bundle"] = f"{STORE}/current/panel"
    (configured.root / "var/lib/moedge/update-test.yaml").write_text(yaml.safe_dump(config))
    release(configured, publisher, bundle, "2")
    said = json.loads(configured.run("timeout", str(START_S), "sh", "-euc", UPDATE))
    assert (said["status"], said["before"], said["version"]) == ("updated", "1", "2")
    assert (configured.root / STORE.lstrip("/") / "current/panel").readlink().name == "2"


# What systemd boots to: the daemon, and the sockets that the package has enabled.
BOOTED = {
    "moedge-test.target": "[Unit]\nWants=moedge.service sockets.target moedge-test.service\n",
    "moedge-test.service": """\
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c 'until [ -e /end ]; do sleep 0.2; done; (systemctl list-jobs; journalctl -b) >/journal; \\
    systemctl exit'
""",
}


@contextmanager
def booted(system: Chroot) -> Iterator[None]:
    """systemd runs in it; what it and the services have said is printed at the end."""
    for name, text in BOOTED.items():
        (system.root / "etc/systemd/system" / name).write_text(text)
    left = [system.root / name for name in ("end", "journal")]
    process = subprocess.Popen([Path(__file__).with_name("boot"), system.root, "moedge-test.target"])
    try:
        yield
    finally:
        left[0].touch()
        try:
            process.wait(START_S)
        finally:
            process.kill()
            print(left[1].read_text() if left[1].exists() else "There is no journal.")
            for path in (*left, *(system.root / "etc/systemd/system" / name for name in BOOTED)):
                path.unlink(missing_ok=True)


def test_systemd_starts_an_update_that_is_asked_for_over_mqtt(
    configured: Chroot, publisher: Publisher, bundle: Path, broker: BrokerAddress
) -> None:
    """Daemon, sockets and updater as their units say, and no right of the daemon's to do more than to ask."""
    path = configured.root / CONFIG.lstrip("/")
    before = path.read_text()
    config = yaml.safe_load(before)
    config["model"]["bundle"] = f"{STORE}/current/panel"
    path.write_text(yaml.safe_dump(config | {"health": {"interval": "1s"}}))
    state, request, response = (
        f"moedge/board/{name}" for name in ("update/state", "request/update", "response/update")
    )
    try:
        with Listener(broker, "moedge/board/#") as listener, booted(configured):
            first = listener.json(state, '"can_start":true')
            assert (first["installed_version"], first["latest_version"]) == ("2", "2")
            release(configured, publisher, bundle, "3")
            listener.publish(request, '{"check": true, "transaction": 1}')
            assert listener.json(response, '"transaction":1')["data"] == {"started": ["model"], "check": True}
            available = listener.json(state, '"status":"available"')
            assert (available["installed_version"], available["latest_version"]) == ("2", "3")
            listener.clear()
            listener.publish(request, '{"transaction": 2}')
            assert listener.json(response, '"transaction":2')["data"] == {"started": ["model"], "check": False}
            listener.message(state, '"in_progress":true')
            updated = listener.json(state, '"status":"updated"')
            assert (updated["installed_version"], updated["in_progress"]) == ("3", False)
        assert (configured.root / STORE.lstrip("/") / "current/panel").readlink().name == "3"
    finally:
        path.write_text(before)
        shutil.rmtree(configured.root / "srv/moedge")


def test_an_upgrade_keeps_the_configuration_and_removing_keeps_what_purging_removes(
    configured: Chroot, untouched: set[str], amd64: Path, tmp_path: Path
) -> None:
    config = configured.root / CONFIG.lstrip("/")
    before = config.read_text()
    configured.install(newer(amd64, tmp_path))
    assert "0.1.0-2" in configured.run("dpkg-query", "--show", "moedge")
    assert config.read_text() == before
    assert configured.run("stat", "--format=%U:%G %a", CONFIG) == "root:moedge 640\n"
    assert configured.run("moedge", "--version") == f"moedge, version {moedge_runtime.__version__}\n"

    configured.run("dpkg", "--remove", "moedge")
    assert config.read_text() == before
    assert (configured.root / BUNDLE.lstrip("/")).is_dir()
    assert not (configured.root / "usr/lib/moedge").exists(), "compiled Python is removed too"

    configured.run("dpkg", "--purge", "moedge")
    # The user stays: tools keep copies of the tables of accounts.
    accounts = {f"./etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")}
    assert configured.files() - untouched - accounts == set()
    assert untouched - configured.files() == set()


def newer(package: Path, directory: Path) -> Path:
    """The same package with the version 0.1.0-2 and another configuration file."""
    tree = directory / "tree"
    run("dpkg-deb", "--raw-extract", package, tree, environment=os.environ)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 0.1.0-2", control.read_text(), flags=re.MULTILINE))
    with (tree / CONFIG.lstrip("/")).open("a") as config:
        config.write("# a line more\n")
    result = directory / "newer.deb"
    run("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, result, environment=os.environ)
    return result
