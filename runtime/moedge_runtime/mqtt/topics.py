"""Every topic that moedge publishes or listens to, and the rules that a topic has to keep."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moedge_runtime.strict_json import is_text

MAX_TOPIC_BYTES = 65535
"""MQTT 5.0, section 1.5.4: a string's length is two bytes."""

RESERVED_LEVELS = ("status", "info", "health", "log", "request", "response", "update")
"""Levels below the device that are not cameras."""

ENABLED, MOTION = "enabled", "motion"
"""Features of a camera that are switched on and off, as levels of topics; `watch_feature`, `zone_feature`: others."""

_SET = re.compile(r"([^/]+)/((?:watch/|zone/)?[^/]+)/set")
_IDENTIFIER = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class Topics:
    """The topic tree of one device: `<base>/<device>/…`."""

    base: str
    device: str

    @property
    def root(self) -> str:
        """`<base>/<device>`."""
        return f"{self.base}/{self.device}"

    @property
    def status(self) -> str:
        """Retained: online, stopped or offline; also the topic of the will."""
        return f"{self.root}/status"

    @property
    def info(self) -> str:
        """Retained: version, model, configuration."""
        return f"{self.root}/info"

    @property
    def health(self) -> str:
        """Retained: counters, once a minute."""
        return f"{self.root}/health"

    @property
    def log(self) -> str:
        """Lines of the daemon's log, not retained."""
        return f"{self.root}/log"

    def camera_status(self, camera: str) -> str:
        """Retained: the camera's state, and why."""
        return f"{self.root}/{camera}/status"

    def answer(self, camera: str) -> str:
        """Every answer of a camera's watches, not retained."""
        return f"{self.root}/{camera}/answer"

    def last_answer(self, camera: str) -> str:
        """Retained copy of the newest answer."""
        return f"{self.root}/{camera}/answer/last"

    def event(self, camera: str) -> str:
        """What a camera's watches ask, at once, and what became of it; not retained."""
        return f"{self.root}/{camera}/event"

    def alert(self, camera: str, watch: str) -> str:
        """Retained: whether the alert of a watch is on."""
        return f"{self.root}/{camera}/alert/{watch}"

    def motion(self, camera: str) -> str:
        """Retained: whether something moves in front of a camera."""
        return f"{self.root}/{camera}/motion"

    def watch(self, camera: str, watch: str) -> str:
        """Retained: the newest answer of a watch with a short state, for Home Assistant."""
        return f"{self.root}/{camera}/watch/{watch}"

    def feature_set(self, camera: str, feature: str) -> str:
        """Where a feature of a camera is switched ON or OFF; never retained."""
        return f"{self.root}/{camera}/{feature}/set"

    def feature_state(self, camera: str, feature: str) -> str:
        """Retained: whether a feature of a camera is ON or OFF."""
        return f"{self.root}/{camera}/{feature}/state"

    @property
    def feature_states(self) -> tuple[str, ...]:
        """Filters that the states of all features match."""
        return tuple(self.feature_state("+", feature) for feature in _ANY_FEATURE)

    @property
    def feature_sets(self) -> tuple[str, ...]:
        """Filters that everything that switches a feature matches."""
        return tuple(self.feature_set("+", feature) for feature in _ANY_FEATURE)

    def switch(self, topic: str) -> tuple[str, str] | None:
        """Camera and feature of a topic that switches one, known or not; None for any other topic."""
        prefix = f"{self.root}/"
        match = _SET.fullmatch(topic.removeprefix(prefix)) if topic.startswith(prefix) else None
        return (match[1], match[2]) if match else None

    def snapshot(self, camera: str) -> str:
        """Retained: the newest published picture of a camera, JPEG."""
        return f"{self.root}/{camera}/snapshot"

    @property
    def latest_version(self) -> str:
        """Where whoever keeps the fleet says, retained, which version of moedge this device should have."""
        return f"{self.root}/update/latest"

    @property
    def update_state(self) -> str:
        """Retained: versions of the model, and what became of the last update of it."""
        return f"{self.root}/update/state"

    def request(self, verb: str) -> str:
        """Where a request is sent to."""
        return f"{self.root}/request/{verb}"

    @property
    def requests(self) -> str:
        """Filter that every request matches."""
        return f"{self.root}/request/+"

    def response(self, verb: str) -> str:
        """Where a request is answered unless it names a response topic."""
        return f"{self.root}/response/{verb}"

    def verb(self, topic: str) -> str | None:
        """The verb of a request's topic; None if it is no request to this device or no plain word."""
        prefix = f"{self.root}/request/"
        verb = topic.removeprefix(prefix)
        return verb if topic.startswith(prefix) and _IDENTIFIER.fullmatch(verb) else None

    def may_respond_on(self, topic: str) -> bool:
        """Whether a request may send its response there: anywhere but to this device's own statements."""
        own = topic == self.root or topic.startswith(f"{self.root}/")
        return _fault(topic) is None and (not own or topic.startswith(f"{self.root}/response/"))


def watch_feature(watch: str) -> str:
    """The feature of a camera that is a watch of it."""
    return f"watch/{watch}"


def zone_feature(zone: str) -> str:
    """The feature of a camera that is a zone of it."""
    return f"zone/{zone}"


_ANY_FEATURE = ("+", watch_feature("+"), zone_feature("+"))


def answer_filter(base: str, device: str = "+", camera: str = "+") -> str:
    """Filter for the answers of some or all devices and cameras.

    Raises:
        ValueError: `base` is no base topic, or one of the others neither a name nor +.
    """
    for what, name in (("device", device), ("camera", camera)):
        if name != "+" and not _IDENTIFIER.fullmatch(name):
            raise ValueError(f"a {what}'s name has 1 to 64 of the characters a-z, A-Z, 0-9, _ and -; + stands for all")
    check_base_topic(base)
    return f"{base}/{device}/{camera}/answer"


def check_base_topic(base: str) -> str:
    """Return `base` if it can begin a topic.

    Raises:
        ValueError: It is empty, begins with $ or /, ends with /, or holds a wildcard or half a character.
    """
    if base.startswith(("/", "$")) or base.endswith("/") or _fault(base) is not None:
        raise ValueError("a base topic has levels without + and #, no / at its ends and no $ in front")
    return base


def check_topic(topic: str) -> str:
    """Return `topic` if a message may be published to it.

    Raises:
        ValueError: It is empty, too long, or contains +, # or a null character.
    """
    fault = _fault(topic)
    if fault is not None:
        raise ValueError(f"Nothing can be published to the topic {topic[:200]!r}: {fault}.")
    return topic


def _fault(topic: str) -> str | None:
    if not topic:
        return "it is empty"
    if "+" in topic or "#" in topic:
        return "+ and # are wildcards and belong into subscriptions only"
    if "\0" in topic:
        return "it contains a null character"
    if not is_text(topic):
        return "it contains half a character, a lone surrogate"
    if len(topic.encode()) > MAX_TOPIC_BYTES:
        return f"it is longer than {MAX_TOPIC_BYTES:,} bytes"
    return None
