"""Messages on their way out and in, independent of the MQTT library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from moedge_runtime.mqtt.topics import check_topic


@dataclass(frozen=True)
class Message:
    """A message to publish.

    Attributes:
        topic: Without wildcards; anything else raises ValueError.
        payload: The bytes.
        retain: The broker keeps it for later subscribers.
        correlation: MQTT 5 correlation data of the request that this answers.
        late: Makes what to publish instead if the connection for which this was made is gone. A message that has it
            lasts: it is worth keeping on the disk while there is no broker.
        identifier: MQTT 5: becomes the user property `id`.
        content_type: MQTT 5: media type of the payload.
        qos: 0 for what may be lost (`MqttClient.offer`).
    """

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None
    late: Callable[[], bytes] | None = None
    identifier: str | None = None
    content_type: str | None = None
    qos: Literal[0, 1] = 1

    @property
    def lasting(self) -> bool:
        """Whether it is worth keeping on the disk."""
        return self.late is not None

    def delayed(self) -> Message:
        """The message as it is told late."""
        return self if self.late is None else replace(self, payload=self.late())

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
