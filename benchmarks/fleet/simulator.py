"""Hundreds of simulated devices, a collector and the status view on one real mosquitto."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from figures import percentile, report
from moedge_devices.fleet import Fleet, load_fleet
from moedge_devices.fleet.links import Access
from moedge_devices.fleet.live import LiveView
from moedge_devices.fleet.status import status_text
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.mqtt.brokers import Mosquitto

from fleet.fleet_file import device_names, fleet_text

VICTIMS = [f"victim-{number}" for number in range(5)]
VICTIM_LIVES_S, VICTIM_AWAY_S = 15.0, 5.0
START_S = 120.0
LOOK_EVERY_S = 1.0

MAX_P99_S = 2.0
"""An answer takes seconds to compute; the machine that is measured runs sender, broker, view and collector alike."""

MAX_VIEW_LAG_S = 5.0
"""Beyond the time between two answers."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Looks:
    """What the status view has shown, looked at once a second."""

    oldest_s: list[float] = field(default_factory=list)
    missing: int = 0
    refresh_s: list[float] = field(default_factory=list)
    deaths_s: list[float] = field(default_factory=list)
    returns_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """How many devices give how many answers a minute each, for how long, in how many processes."""

    devices: int
    rate: float
    minutes: float
    processes: int


def measure_simulator(load: Load) -> bool:
    """Run it and print the figures; whether all are right."""
    names = device_names(load.devices)
    with tempfile.TemporaryDirectory(prefix="moedge-bench-fleet-") as directory:
        broker = Mosquitto(Path(directory))
        address = broker.start()
        try:
            path = Path(directory) / "fleet.yaml"
            path.write_text(fleet_text([*names, *VICTIMS], f'{{url: "{address}"}}'))
            return _measure(load_fleet(path), broker, names, load)
        finally:
            broker.stop()


def _measure(fleet: Fleet, broker: Mosquitto, names: list[str], load: Load) -> bool:
    address, rate, minutes, processes = broker.address, load.rate, load.minutes, load.processes
    collector = _start("collector", address)
    assert collector.stdout is not None
    collector.stdout.readline()
    with LiveView(list(fleet.devices.values()), Access()) as live:
        parts = [names[start::processes] for start in range(processes)]
        senders = [_start("device_process", address, str(rate), *part) for part in parts if part]
        try:
            began_s = time.monotonic()
            while not all(row.last_answer for row in live.rows() if row.device in set(names)):
                if time.monotonic() > began_s + START_S + 60 / rate:
                    raise SystemExit(f"The devices did not start in {START_S:.0f} s:\n{status_text(live.rows())}")
                time.sleep(LOOK_EVERY_S)
            started_s = time.monotonic() - began_s
            cpu_s = _cpu_s(broker)
            looks, seconds = _look(live, address, rate, 60 * minutes)
            cpu_s = _cpu_s(broker) - cpu_s
            memory = _rss_bytes(broker)
        finally:
            ended = [_end(sender) for sender in senders]
            heard = _end(collector)
    published = {name: count for part in ended for name, count in part["published"].items()}
    lost = sum(count - heard["heard"].get(name, 0) for name, count in published.items())
    report("simulator_devices", len(published), "devices", len(names), least=True)
    report("simulator_processes", len(senders), "processes")
    report("simulator_start", started_s, "s until every device has answered")
    report("simulator_duration", seconds, "s", 60 * minutes, least=True)
    report("simulator_answers_each_second", sum(published.values()) / (seconds + started_s), "answers")
    report("simulator_broker_cpu", cpu_s / seconds, "cores")
    report("simulator_broker_memory", memory / 1e6, "MB")
    report("simulator_answers_twice", sum(heard["twice"].get(name, 0) for name in names), "answers")
    report("simulator_latency_p50", percentile(heard["delays_s"], 50), "s")
    report("simulator_latency_max", max(heard["delays_s"], default=0.0), "s")
    report("simulator_view_refresh_p99", percentile(looks.refresh_s, 99), "s")
    report("simulator_view_returns_max", max(looks.returns_s, default=0.0), "s from the start of a device's process")
    return all(
        (
            report("simulator_answers", sum(published.values()), "answers", len(names) * rate * minutes, least=True),
            report("simulator_answers_lost", lost, "answers", 0),
            report("simulator_answers_unacknowledged", sum(part["unacknowledged"] for part in ended), "answers", 0),
            report(
                "simulator_connections_lost", sum(part["connects"] for part in ended) - len(names), "connections", 0
            ),
            report("simulator_latency_p99", percentile(heard["delays_s"], 99), "s", MAX_P99_S),
            report("simulator_view_oldest_answer_max", max(looks.oldest_s), "s", 60 / rate + MAX_VIEW_LAG_S),
            report("simulator_view_devices_missing", looks.missing, "looks at a device", 0),
            report("simulator_view_deaths", len(looks.deaths_s), "deaths seen", 1, least=True),
            report("simulator_view_deaths_max", max(looks.deaths_s, default=0.0), "s from SIGKILL", MAX_VIEW_LAG_S),
        )
    )


def _look(live: LiveView, address: BrokerAddress, rate: float, duration_s: float) -> tuple[Looks, float]:
    """Look at the view once a second, with devices that die and come back beside those that stay."""
    looks = Looks()
    began_s = time.monotonic()
    victim, changed_s, waiting_for = _start("device_process", address, str(rate), *VICTIMS), began_s, "online"
    next_s = began_s
    while time.monotonic() < began_s + duration_s:
        next_s += 0.1
        time.sleep(max(0.0, next_s - time.monotonic()))
        if waiting_for and _states(live, VICTIMS) == {waiting_for}:
            (looks.returns_s if waiting_for == "online" else looks.deaths_s).append(time.monotonic() - changed_s)
            waiting_for = ""
        away = victim.poll() is not None
        if not waiting_for and time.monotonic() > changed_s + (VICTIM_AWAY_S if away else VICTIM_LIVES_S):
            changed_s = time.monotonic()
            if away:
                victim, waiting_for = _start("device_process", address, str(rate), *VICTIMS), "online"
            else:
                victim.kill()
                victim.wait()
                waiting_for = "offline"
        if round(next_s - began_s, 1) % LOOK_EVERY_S < 0.05:
            _note(looks, live)
    victim.kill()
    victim.wait()
    return looks, time.monotonic() - began_s


def _note(looks: Looks, live: LiveView) -> None:
    began_s = time.monotonic()
    rows = [row for row in live.rows() if row.device not in VICTIMS]
    status_text(rows)
    looks.refresh_s.append(time.monotonic() - began_s)
    ages_s = [row.last_answer.age_s for row in rows if row.state == "online" and row.last_answer is not None]
    looks.missing += len(rows) - len(ages_s)
    looks.oldest_s.append(max(ages_s, default=0.0))


def _states(live: LiveView, names: list[str]) -> set[str]:
    return {row.state for row in live.rows() if row.device in names}


def _start(module: str, address: BrokerAddress, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"fleet.{module}", address.host, str(address.port), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _end(process: subprocess.Popen[str]) -> dict:  # type: ignore[type-arg]
    process.terminate()
    return json.loads(process.communicate(timeout=120)[0].splitlines()[-1])  # type: ignore[no-any-return]


def _cpu_s(broker: Mosquitto) -> float:
    fields = Path(f"/proc/{broker.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_bytes(broker: Mosquitto) -> int:
    return int(Path(f"/proc/{broker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
