"""Answers over a network that loses, slows and cuts packets: mosquitto in a network namespace of its own.

Two links lead there. The device under test has the bad one; who listens has the good one and hears everything. Losses
come from nftables and the narrow line from tc's tbf; delays from a proxy, since kernels may lack netem.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.client import MqttClient
from moedge_runtime.mqtt.listening import wait_until_listening
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.spool import Spool
from runtime.mqtt.delay_proxy import DelayProxy
from runtime.mqtt.listener import DEADLINE_S, Listener
from runtime.mqtt.test_client import PRESENCE, WatchedBackoff, wait_connected

PORT = 18_830
BAD, GOOD = "10.213.77.2", "10.213.78.2"
ANSWERS = 100


class Network:
    """A namespace with a bad and a good link to it, and mosquitto inside."""

    def __init__(self, directory: Path) -> None:
        self._name = f"moedge{os.getpid()}"
        self._bad, self._good = f"bad{os.getpid()}"[:15], f"good{os.getpid()}"[:15]
        run("ip", "netns", "add", self._name)
        for link, address in ((self._bad, BAD), (self._good, GOOD)):
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "inside", "netns", self._name)
            self.inside("ip", "link", "set", "inside", "name", f"to-{link}"[:15])
            run("ip", "addr", "add", f"{address[:-1]}1/30", "dev", link)
            run("ip", "link", "set", link, "up")
            self.inside("ip", "addr", "add", f"{address}/30", "dev", f"to-{link}"[:15])
            self.inside("ip", "link", "set", f"to-{link}"[:15], "up")
        self._inner = f"to-{self._bad}"[:15]
        config = directory / "mosquitto.conf"
        config.write_text(f"user root\nlistener {PORT} 0.0.0.0\nallow_anonymous true\npersistence false\n")
        self._broker = subprocess.Popen(["ip", "netns", "exec", self._name, _mosquitto(), "-c", str(config)])
        assert wait_until_listening(self._broker, GOOD, PORT, 20)

    def inside(self, *command: str) -> None:
        run("ip", "netns", "exec", self._name, *command)

    def lose(self, percent: int) -> None:
        """Drop so many of a hundred packets of the bad link, in either direction."""
        self.inside("nft", "add", "table", "inet", "t")
        for hook, way in (("input", "iifname"), ("output", "oifname")):
            self.inside("nft", f"add chain inet t {hook} {{ type filter hook {hook} priority 0; }}")
            self.inside("nft", f"add rule inet t {hook} {way} {self._inner} numgen random mod 100 < {percent} drop")

    def slow_down(self, kbit: int) -> None:
        """Let so much a second through from the device, after a long queue."""
        run(
            "tc",
            "qdisc",
            "add",
            "dev",
            self._bad,
            "root",
            "tbf",
            "rate",
            f"{kbit}kbit",
            "burst",
            "4kb",
            "latency",
            "2s",
        )

    def set_link(self, state: str) -> None:
        """`up` or `down`."""
        self.inside("ip", "link", "set", self._inner, state)

    def close(self) -> None:
        self._broker.kill()
        self._broker.wait()
        for link in (self._bad, self._good):  # a namespace takes its links away later, and the next test needs them
            run("ip", "link", "del", link)
        run("ip", "netns", "del", self._name)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _mosquitto() -> str:
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("mosquitto is not installed; run: apt-get install mosquitto")
    return binary


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; run: apt-get install {package}")
    if subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode or os.geteuid():
        pytest.skip("this user may not make network namespaces")
    try:
        made = Network(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    yield made
    made.close()


def flap(network: Network, done: threading.Event) -> None:
    """Cut the link for longer than the keepalive, again and again."""
    for _ in range(2):
        network.set_link("down")
        done.wait(2.2)
        network.set_link("up")
        done.wait(1.0)


def lossy(network: Network, done: threading.Event) -> None:
    network.lose(15)


def slow(network: Network, done: threading.Event) -> None:
    network.slow_down(128)


@pytest.mark.parametrize("trouble", [flap, lossy, slow])
def test_no_answer_is_lost_and_none_overtakes_another(
    network: Network, tmp_path: Path, trouble: Callable[[Network, threading.Event], None]
) -> None:
    client = client_of(BrokerAddress(BAD, PORT), tmp_path / "spool")
    published(client, BrokerAddress(GOOD, PORT), lambda done: trouble(network, done))
    assert client.backlog()[0] == 0
    if trouble is flap:
        assert client.counters.connects > 1 and client.counters.replayed > 0


def test_a_line_with_long_and_uneven_delays_that_breaks_on_the_way_loses_nothing(
    tmp_path: Path, mosquitto: BrokerAddress
) -> None:
    with DelayProxy(mosquitto, delay_s=0.1, jitter_s=0.1) as line:
        client = client_of(line.address, tmp_path / "spool")

        def cut(done: threading.Event) -> None:
            for _ in range(2):
                done.wait(0.9)
                line.cut()

        began_s = time.monotonic()
        published(client, mosquitto, cut)
        assert time.monotonic() - began_s > 0.2, "the way there and back took its time"
        assert line.connections >= client.counters.connects > 1
    assert client.backlog()[0] == 0


def client_of(address: BrokerAddress, spool: Path) -> MqttClient:
    return MqttClient(
        Connection(address, client_id="d", keepalive_s=1, connect_timeout_s=2),
        presence=PRESENCE,
        requests="d/request/+",
        on_request=lambda message: None,
        backoff=WatchedBackoff(),
        spool=Spool(spool, max_bytes=1 << 24, max_age_s=3600),
    )


def published(client: MqttClient, listening: BrokerAddress, trouble: Callable[[threading.Event], None]) -> None:
    """Publish answers while there is `trouble`: all are heard, in order, and marked if they come twice."""
    done = threading.Event()
    with Listener(listening, "d/answer") as listener:
        client.start()
        wait_connected(client)
        worker = threading.Thread(target=trouble, args=(done,))
        worker.start()
        began_s = time.monotonic()
        for number in range(ANSWERS):
            client.publish(Message("d/answer", b"%d fresh" % number, late=partial(b"%d late".__mod__, number)))
            done.wait(max(0.0, began_s + number * 0.03 - time.monotonic()))
        listener.message("d/answer", f"{ANSWERS - 1} ")
        worker.join()
        deadline_s = time.monotonic() + DEADLINE_S
        while client.backlog()[0] and time.monotonic() < deadline_s:
            done.wait(0.1)
        heard = [payload.split() for payload in listener.on("d/answer")]
    client.close(20)
    numbers = [int(number) for number, _ in heard]
    assert list(dict.fromkeys(numbers)) == list(range(ANSWERS)), "all of them, in order"
    again = {number for index, number in enumerate(numbers) if number in numbers[:index]}
    marked = {int(number) for number, mark in heard if mark == b"late"}
    assert again <= marked, "what comes twice is marked"
