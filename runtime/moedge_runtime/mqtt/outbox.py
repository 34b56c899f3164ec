"""Messages that wait for a broker: states of which only the newest counts, and a bounded queue in order."""

from __future__ import annotations

from collections import deque

from moedge_runtime.mqtt.message import Message

MAX_QUEUED = 1000
"""Answers and responses kept while there is no broker. An answer is about 2 kB."""


class Outbox:
    """What is to be published, in order. Pure and not thread-safe.

    A retained message is a state: on every new connection the newest message of each topic is published, in the order
    in which the topics first appeared. Any other message is delivered once at least and in order; beyond `limit` the
    oldest is dropped.

    Attributes:
        dropped: Messages dropped so far.
    """

    def __init__(self, limit: int = MAX_QUEUED) -> None:
        self._limit = limit
        self._states: dict[str, Message] = {}
        self._waiting: deque[Message] = deque()
        self._sent: dict[int, Message] = {}
        self._queued = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Messages that the broker has not acknowledged, states left out."""
        return self._queued + sum(not message.retain for message in self._sent.values())

    @property
    def in_flight(self) -> int:
        """Messages published and not acknowledged."""
        return len(self._sent)

    @property
    def empty(self) -> bool:
        """Whether everything was acknowledged."""
        return not self._waiting and not self._sent

    def add(self, message: Message) -> None:
        """Queue a message, or replace the state of its topic."""
        if message.retain:
            self._states[message.topic] = message
        else:
            self._queued += 1
        self._waiting.append(message)
        if self._queued > self._limit:
            oldest = next(waiting for waiting in self._waiting if not waiting.retain)
            self._waiting.remove(oldest)
            self._queued -= 1
            self.dropped += 1

    def restart(self) -> None:
        """A new connection begins: all states, then what was sent without acknowledgement, then the rest."""
        unsent = [message for message in (*self._sent.values(), *self._waiting) if not message.retain]
        self._sent.clear()
        self._waiting = deque([*self._states.values(), *unsent])
        self._queued = len(unsent)

    def next(self) -> Message | None:
        """Take the next message to publish; None if there is none. Follow with `sent`."""
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._queued -= not message.retain
        return message

    def sent(self, number: int, message: Message) -> None:
        """The message was published under `number`."""
        self._sent[number] = message

    def delivered(self, number: int) -> Message | None:
        """The broker has acknowledged `number`: its message, or None if that was known."""
        return self._sent.pop(number, None)
