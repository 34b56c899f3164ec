"""Messages that wait for a broker: states of which only the newest counts, and answers and responses in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from moedge_runtime.mqtt.message import Message

MAX_QUEUED = 1000
"""Answers and responses kept in memory. An answer is about 2 kB."""


@dataclass(eq=False)
class Entry:
    """A message on its way.

    Attributes:
        message: What to publish.
        since_s: `time.monotonic()` when it was handed over.
        sequence: Its number in the spool; None if it is in memory only.
        keeping: It is being written to the spool.
        acknowledged: The broker has it.
    """

    message: Message
    since_s: float = 0.0
    sequence: int | None = None
    keeping: bool = False
    acknowledged: bool = False


class Outbox:
    """What is to be published, in order. Pure and not thread-safe.

    A retained message is a state: only the newest of a topic waits, and on every new connection it is published again,
    in the order in which the topics first appeared. Any other message is delivered once at least and in order; beyond
    `limit` the oldest is dropped.

    Attributes:
        dropped: Messages dropped so far.
    """

    def __init__(self, limit: int = MAX_QUEUED) -> None:
        self._limit = limit
        self._states: dict[str, Entry] = {}
        self._waiting: deque[Entry] = deque()
        self._sent: dict[int, Entry] = {}
        self._queued = 0
        self._keeping = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Messages that the broker has not acknowledged, states and what is in the spool left out."""
        return self._queued + sum(_in_memory(entry) for entry in self._sent.values())

    @property
    def in_flight(self) -> int:
        """Messages published and not acknowledged."""
        return len(self._sent)

    @property
    def empty(self) -> bool:
        """Whether everything was acknowledged."""
        return not self._waiting and not self._sent

    def settled(self, *, hold: bool) -> bool:
        """Whether everything was acknowledged but what `next` holds back."""
        return not self._sent and all(hold and entry.message.lasting for entry in self._waiting)

    @property
    def keeping(self) -> bool:
        """Whether something is being written to the spool."""
        return self._keeping > 0

    def add(self, message: Message, now_s: float = 0.0) -> None:
        """Queue a message, or replace the state of its topic."""
        entry = Entry(message, now_s)
        if message.retain:
            stale = self._states.get(message.topic)
            if stale is not None and stale in self._waiting:
                self._waiting.remove(stale)
            self._states[message.topic] = entry
        else:
            self._queued += 1
        self._waiting.append(entry)
        if self._queued > self._limit:
            oldest = next((one for one in self._waiting if not one.message.retain and not one.keeping), None)
            if oldest is not None:
                self._waiting.remove(oldest)
                self._queued -= 1
                self.dropped += 1

    def restart(self) -> None:
        """A new connection begins: all states, then what was sent without acknowledgement, then the rest.

        What lasts is told from now on with its late payload. What is in the spool comes from there again.
        """
        unsent = [entry for entry in (*self._sent.values(), *self._waiting) if _in_memory(entry)]
        for entry in unsent:
            entry.message = entry.message.delayed()
        self._sent.clear()
        self._waiting = deque([*self._states.values(), *unsent])
        self._queued = len(unsent)

    def restate(self) -> None:
        """Publish all states once more, before what waits."""
        waiting = [entry for entry in self._waiting if not entry.message.retain]
        self._waiting = deque([*self._states.values(), *waiting])

    def next(self, *, hold: bool = False) -> Entry | None:
        """Take the next message to publish; None if there is none. Follow with `sent`.

        Args:
            hold: Older answers are in the spool: leave out what lasts.
        """
        for index, entry in enumerate(self._waiting):
            hold = hold or entry.keeping
            if entry.message.lasting and hold:
                continue
            del self._waiting[index]
            self._queued -= not entry.message.retain
            return entry
        return None

    def sent(self, number: int, entry: Entry) -> None:
        """The message was published under `number`."""
        self._sent[number] = entry

    def delivered(self, number: int) -> Entry | None:
        """The broker has acknowledged `number`: its message, or None if that was known."""
        entry = self._sent.pop(number, None)
        if entry is not None:
            entry.acknowledged = True
        return entry

    def oldest_sent(self) -> Entry | None:
        """The message that has waited longest for its acknowledgement."""
        return next(iter(self._sent.values()), None)

    def forget(self, entry: Entry) -> None:
        """Publish a message never again."""
        entry.acknowledged = True
        if self._states.get(entry.message.topic) is entry:
            del self._states[entry.message.topic]
        for number in [number for number, sent in self._sent.items() if sent is entry]:
            del self._sent[number]
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._queued -= not entry.message.retain

    def due_since_s(self) -> float | None:
        """Since when the oldest message that lasts has been in memory only; None if there is none."""
        return next((entry.since_s for entry in self._lasting()), None)

    def keep(self, before_s: float, max_bytes: int) -> list[Entry]:
        """What is to be written to the spool now, in order; follow with `kept` or `not_kept`.

        Args:
            before_s: Only what was handed over before or then.
            max_bytes: Of payloads together; one message is given in any case.
        """
        chosen: list[Entry] = []
        for entry in self._lasting():
            size = sum(len(one.message.payload) for one in (*chosen, entry))
            if entry.since_s > before_s or (chosen and size > max_bytes):
                break
            chosen.append(entry)
        for entry in chosen:
            entry.keeping = True
        self._keeping += len(chosen)
        return chosen

    def kept(self, entry: Entry, sequence: int) -> bool:
        """A message is in the spool; whether it is under way or delivered, and not to be read from there."""
        self._keeping -= 1
        entry.keeping = False
        entry.sequence = sequence
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._queued -= 1
            return False
        return True

    def not_kept(self, entry: Entry) -> None:
        """A message could not be written and stays in memory."""
        self._keeping -= 1
        entry.keeping = False

    def rest(self) -> list[Message]:
        """Answers and responses that are in memory and not delivered, in order."""
        return [entry.message for entry in (*self._sent.values(), *self._waiting) if _in_memory(entry)]

    def _lasting(self) -> list[Entry]:
        entries = (*self._sent.values(), *self._waiting)
        return [entry for entry in entries if entry.message.lasting and _in_memory(entry) and not entry.keeping]


def _in_memory(entry: Entry) -> bool:
    return not entry.message.retain and entry.sequence is None
