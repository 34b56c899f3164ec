"""Sends devices their configuration over MQTT, stage by stage, and stops when too many do not take it.

A device is sent `{"transaction": …, "config": "<its moedge.yaml>", "device_file": "<its device.json>"}` on
`<base>/<device>/request/config` and answers on `<base>/<device>/response/config` (docs/mqtt.md). It acknowledges what
it has checked and taken. A new bundle it fetches by itself (docs/updates.md); its answers say with which it was made.
"""

from __future__ import annotations

import hashlib
import json
import queue
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.line import one_line
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.requests import MAX_CONFIG_REQUEST_BYTES
from moedge_runtime.mqtt.topics import Topics

from moedge_devices.fleet.journal import Acknowledged, Journal
from moedge_devices.fleet.links import Access, Links
from moedge_devices.fleet.load import Device
from moedge_devices.fleet.proof import Proofs
from moedge_devices.fleet.render import ConfigTexts, device_text
from moedge_devices.fleet.stages import Stage, stages_of

VERB = "config"

AT_ONCE = 50
"""Devices that are asked before the first of them has answered."""

UNPROVEN = ""
"""In the journal in the place of a digest: the device took the configuration and was not online afterwards, or has not
answered with its bundle, or does not run its system."""

Missing = Callable[[Device, float], str | None]
"""Why a device has not got what it is to have within some seconds; None if it has."""

_STEP_S = 0.1
_ANSWER, _INFO = "/answer/last", "/info"


@dataclass(frozen=True)
class ApplyOptions:
    """How careful an apply is. Times in seconds.

    Attributes:
        canaries: Devices of each group that go first.
        max_failures: Of the others of a group as many may fail.
        timeout_s: A device that has not acknowledged by then has failed. It finishes the answer under way first, and
            loads another model if that is what changes.
        settle_s: After a stage its devices are watched for so long; one that is not online then has failed.
        bundle_within_s: After a stage its devices have so long to answer with the bundle of the fleet file; those that
            have not have failed. None not to look.
        system_within_s: The same for running the system of the fleet file, confirmed.
        presence_s: Longest wait for devices to be heard of before the first stage.
    """

    canaries: int = 1
    max_failures: int = 0
    timeout_s: float = 300.0
    settle_s: float = 10.0
    bundle_within_s: float | None = None
    system_within_s: float | None = None
    presence_s: float = 2.0


@dataclass
class Outcome:
    """What became of the devices, by name.

    Attributes:
        current: Have acknowledged this configuration in an earlier run.
        applied: Have acknowledged it now and were online afterwards.
        failed: With the reason.
        away: Are not online, and were sent nothing.
        waiting: Were not reached because a stage before them stopped.
        stopped: Why; None if every stage was gone through.
    """

    current: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    away: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every device has its configuration."""
        return not (self.failed or self.away or self.waiting)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "current": self.current,
            "applied": self.applied,
            "failed": self.failed,
            "away": self.away,
            "waiting": self.waiting,
            "stopped": self.stopped,
        }


@dataclass(frozen=True)
class Order:
    """What one device is to get.

    Attributes:
        device: The device.
        text: Its moedge.yaml.
        device_text: Its device.json.
        sha256: Of both.
        url: The broker where it is now.
        topics: Its topics now.
        new_url: The broker where it will be.
        new_topics: Its topics with the new configuration.
    """

    device: Device
    text: str
    device_text: str
    sha256: str
    url: str
    topics: Topics
    new_url: str
    new_topics: Topics


def order_of(device: Device, text: str, access: Access, last: Acknowledged | None) -> Order:
    """What `device` is to get, `text` and its device.json, and where it is.

    It is where its last acknowledged configuration has put it.

    Raises:
        ConfigError: The configuration is longer than a device reads, or its broker is not known.
    """
    beside = device_text(device)
    longest = len(_payload(text, beside, uuid.uuid4().hex))
    if longest > MAX_CONFIG_REQUEST_BYTES:
        raise ConfigError(
            f"The configuration of device '{device.name}' makes a request of {longest:,} bytes; a device reads at most "
            f"{MAX_CONFIG_REQUEST_BYTES:,}. Make its JSON Schemas shorter.",
            key="fleet.config_too_large",
        )
    base = device.config.mqtt.base_topic
    new_url = access.url_of(device)
    return Order(
        device,
        text,
        beside,
        hashlib.sha256((text + beside).encode()).hexdigest(),
        access.url or (last.url if last else None) or new_url,
        Topics(last.base_topic if last else base, device.name),
        new_url,
        Topics(base, device.name),
    )


def pending(
    devices: Sequence[Device], access: Access, journal: Journal, *, again: bool
) -> tuple[list[Order], list[str]]:
    """Orders for the devices that need one, and the names of those that have their configuration.

    Raises:
        ConfigError: As `order_of`.
    """
    texts = ConfigTexts()
    orders = [order_of(device, texts.of(device), access, journal.last.get(device.name)) for device in devices]
    current = [
        order.device.name
        for order in orders
        if not again and (last := journal.last.get(order.device.name)) is not None and last.sha256 == order.sha256
    ]
    done = set(current)
    return [order for order in orders if order.device.name not in done], current


class Applier:
    """One run. Everything happens on the thread that calls `run`.

    Args:
        orders: What is to be sent.
        access: As whom.
        journal: Open for writing.
        options: How careful.
        say: Called with a line about what happens.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        access: Access,
        journal: Journal,
        options: ApplyOptions,
        say: Callable[[str], None],
    ) -> None:
        self._orders = {order.device.name: order for order in orders}
        self._journal, self._options, self._say = journal, options, say
        self._inbox: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self._links = Links((url for order in orders for url in (order.url, order.new_url)), access, self._inbox.put)
        self._states: dict[str, str] = {}
        self._proofs = Proofs()
        self._wanted: list[tuple[float, str, Missing]] = []
        if options.bundle_within_s is not None:
            self._wanted.append((options.bundle_within_s, "answers with the bundles", self._proofs.bundle_missing))
        if options.system_within_s is not None:
            self._wanted.append((options.system_within_s, "the systems", self._proofs.system_missing))
        self._roots = {
            topics.root: order.device.name for order in orders for topics in (order.topics, order.new_topics)
        }
        self._status_topics = {
            topics.status: order.device.name for order in orders for topics in (order.topics, order.new_topics)
        }
        self._open: dict[str, tuple[str, float]] = {}
        self._outcome = Outcome()

    def run(self, current: list[str]) -> Outcome:
        """Go through all stages.

        Args:
            current: Names that the outcome reports as having it.

        Raises:
            BrokerError: A broker cannot be used or was lost; run again to go on.
            StorageError: The journal cannot be written.
        """
        self._outcome = outcome = Outcome(current=current)
        if not self._orders:
            return outcome
        self._links.open()
        try:
            self._listen()
            present = [order.device for name, order in self._orders.items() if self._states.get(name) == "online"]
            here = {device.name for device in present}
            outcome.away = [name for name in self._orders if name not in here]
            if outcome.away:
                self._say(f"{_count(outcome.away)} not online and left for another run.")
            options = self._options
            stages = stages_of(present, canaries=options.canaries, max_failures=options.max_failures)
            for number, stage in enumerate(stages):
                if not self._stage(stage):
                    outcome.waiting += [device.name for later in stages[number + 1 :] for device in later.devices]
                    break
        finally:
            self._links.close()
        return outcome

    def _listen(self) -> None:
        """Subscribe to presence and responses, and wait until all devices have been heard of, or for a while."""
        status: dict[str, list[str]] = defaultdict(list)
        responses: dict[str, list[str]] = defaultdict(list)
        for order in self._orders.values():
            for url, topics in {(order.url, order.topics), (order.new_url, order.new_topics)}:
                status[url].append(topics.status)
                if self._options.bundle_within_s is not None:
                    status[url].append(topics.last_answer("+"))
                if self._options.system_within_s is not None:
                    status[url].append(topics.info)
            for url in {order.url, order.new_url}:  # a device may answer when it has moved to another broker
                responses[url].append(order.topics.response(VERB))
        self._links.subscribe(status, retained=True)
        self._links.subscribe(responses, retained=False)
        self._until(lambda: len(self._states) == len(self._orders), self._options.presence_s)

    def _stage(self, stage: Stage) -> bool:
        """Send a stage's configurations; whether to go on with the next."""
        self._say(f"{stage.name}: {_count([device.name for device in stage.devices])} to go.")
        failed: dict[str, str] = {}
        taken: list[str] = []
        waiting = list(stage.devices)
        while (waiting and len(failed) <= stage.max_failures) or self._open:
            while waiting and len(self._open) < AT_ONCE and len(failed) <= stage.max_failures:
                self._send(self._orders[waiting.pop(0).name])
            self._receive(taken, failed)
        self._journal.sync()
        self._watch(taken, failed)
        self._await_proofs(taken, failed)
        names = [device.name for device in stage.devices]
        self._outcome.applied += [name for name in names if name in taken]
        self._outcome.failed |= {name: failed[name] for name in names if name in failed}
        self._outcome.waiting += [device.name for device in waiting]
        for name, reason in failed.items():
            self._say(f"  {name} failed: {reason}")
        if len(failed) > stage.max_failures:
            self._outcome.stopped = (
                f"{len(failed)} of {counted(len(stage.devices), 'device')} of '{stage.name}' failed; "
                f"{stage.max_failures} may. Nothing further was sent"
            )
            return False
        return True

    def _send(self, order: Order) -> None:
        transaction = uuid.uuid4().hex
        self._open[transaction] = (order.device.name, time.monotonic() + self._options.timeout_s)
        topic = f"{order.topics.root}/request/{VERB}"
        self._links.publish(order.url, Message(topic, _payload(order.text, order.device_text, transaction)))

    def _receive(self, taken: list[str], failed: dict[str, str]) -> None:
        """Take what has come, and give up devices whose time is over."""
        for topic, response in self._next():
            transaction = response.get("transaction")
            if not isinstance(transaction, str) or transaction not in self._open:
                continue  # an answer to somebody else, or a second one
            name = self._open[transaction][0]
            if topic != self._orders[name].topics.response(VERB):
                continue  # not from the device that was asked
            del self._open[transaction]
            if response.get("status") == "ok":
                self._note(name, UNPROVEN if self._wanted else self._orders[name].sha256)
                taken.append(name)
            else:
                error = response.get("error")
                message = error.get("message") if isinstance(error, dict) else error
                failed[name] = f"it refused the configuration: {one_line(message or 'no reason given')}"
        for transaction, (name, deadline_s) in list(self._open.items()):
            if time.monotonic() > deadline_s:
                del self._open[transaction]
                failed[name] = f"no acknowledgement within {self._options.timeout_s:g} s"

    def _watch(self, taken: list[str], failed: dict[str, str]) -> None:
        """Look at devices that have acknowledged for a while; those that are not online afterwards have failed."""
        if not taken or not self._options.settle_s:
            return
        self._until(lambda: False, self._options.settle_s)
        for name in list(taken):
            state = self._states.get(name)
            if state != "online":
                taken.remove(name)
                self._note(name, UNPROVEN)
                failed[name] = f"it acknowledged, and is {state} {self._options.settle_s:g} s later"

    def _await_proofs(self, taken: list[str], failed: dict[str, str]) -> None:
        """Wait until devices that have acknowledged have their bundles and systems; those that have not have failed."""
        for wanted in self._wanted:
            self._await(wanted, taken, failed)
        for name in taken if self._wanted else ():
            self._note(name, self._orders[name].sha256)

    def _await(self, wanted: tuple[float, str, Missing], taken: list[str], failed: dict[str, str]) -> None:
        within_s, what, missing = wanted

        def without() -> dict[str, str]:
            found = {name: missing(self._orders[name].device, within_s) for name in taken}
            return {name: why for name, why in found.items() if why is not None}

        if without():
            self._say(f"  waiting up to {within_s:g} s for {what} of the fleet file.")
        self._until(lambda: not without(), within_s)
        for name, why in without().items():
            taken.remove(name)
            failed[name] = why

    def _note(self, name: str, sha256: str) -> None:
        """Write down what a device has taken, and where it is to be found now."""
        mqtt = self._orders[name].device.config.mqtt
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._journal.note(Acknowledged(name, sha256, mqtt.url, mqtt.base_topic, at))

    def _until(self, condition: Callable[[], bool], wait_s: float) -> None:
        deadline_s = time.monotonic() + wait_s
        while not condition() and time.monotonic() < deadline_s:
            self._next()

    def _next(self) -> list[tuple[str, dict[str, Any]]]:
        """Wait a moment for messages; note presence, and return responses with their topics.

        Raises:
            BrokerError: A connection was lost.
        """
        responses = []
        try:
            message = self._inbox.get(timeout=_STEP_S)
            while True:
                value = _object(message.payload)
                name = self._status_topics.get(message.topic)
                if name is not None:
                    self._states[name] = one_line(value.get("state"))
                elif message.topic.endswith(_ANSWER):
                    owner = self._roots.get(message.topic.removesuffix(_ANSWER).rpartition("/")[0])
                    if owner is not None:
                        self._proofs.take_answer(owner, value)
                elif message.topic.endswith(_INFO):
                    owner = self._roots.get(message.topic.removesuffix(_INFO))
                    if owner is not None:
                        self._proofs.take_info(owner, value)
                elif not message.retain:
                    responses.append((message.topic, value))
                message = self._inbox.get_nowait()
        except queue.Empty:
            self._links.check()
        return responses


def _payload(text: str, beside: str, transaction: str) -> bytes:
    request = {"transaction": transaction, "config": text, "device_file": beside}
    return json.dumps(request, ensure_ascii=False).encode()


def _object(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _count(names: list[str]) -> str:
    return counted(len(names), "device") + (f" ({names[0]})" if len(names) == 1 else "")
