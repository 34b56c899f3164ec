"""Messages on their way out and in, independent of the MQTT library."""

from __future__ import annotations

from dataclasses import dataclass

from moedge_runtime.mqtt.topics import check_topic


@dataclass(frozen=True)
class Message:
    """A message to publish with QoS 1.

    Attributes:
        topic: Without wildcards; anything else raises ValueError.
        payload: The bytes.
        retain: The broker keeps it for later subscribers.
        correlation: MQTT 5 correlation data of the request that this answers.
    """

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse a topic that nothing can be published to."""
        check_topic(self.topic)


@dataclass(frozen=True)
class Received:
    """A message from the broker.

    Attributes:
        topic: Where it was published.
        payload: The bytes, as they came.
        retain: It was stored by the broker, or is going to be.
        response_topic: MQTT 5: where the sender wants the answer.
        correlation: MQTT 5: what the sender wants in the answer.
    """

    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
