"""Turns answers into an alert that is on or off, and does not flicker. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

AlertState = Literal["on", "off", "unknown"]
Scalar = str | bool | int | float | None


@dataclass(frozen=True)
class AlertRule:
    """When an answer is alarming. One of `equals` (with `compares_equal`), `above` and `below` is used.

    Attributes:
        path: Keys that lead to the value in the answer's data.
        equals: Alarming is this value.
        compares_equal: Whether `equals` is used.
        above: Alarming is a number above this.
        below: Alarming is a number below this.
        clear: A number is only harmless again when it is not above (below) this; None for the same limit.
        raise_after: Alarming answers in a row that raise the alert.
        clear_after: Harmless answers in a row that end it.
    """

    path: tuple[str, ...]
    equals: Scalar = None
    compares_equal: bool = False
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    raise_after: int = 1
    clear_after: int = 1

    def judge(self, data: Any, *, raised: bool) -> bool | None:
        """Whether `data` is alarming; None if it does not say.

        Args:
            data: The answer as JSON.
            raised: Whether the alert is on: that decides which limit holds.
        """
        value = data
        for key in self.path:
            if not isinstance(value, dict) or key not in value:
                return None
            value = value[key]
        if self.compares_equal:
            return bool(value == self.equals and isinstance(value, bool) == isinstance(self.equals, bool))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if self.above is not None:
            return value > (self.clear if raised and self.clear is not None else self.above)
        assert self.below is not None
        return value < (self.clear if raised and self.clear is not None else self.below)


class AlertTracker:
    """Follows the answers of one watch; of one thread.

    Attributes:
        state: unknown before the first answer that says something.
    """

    def __init__(self, rule: AlertRule) -> None:
        self._rule = rule
        self._streak = 0
        self.state: AlertState = "unknown"

    def note(self, data: Any) -> bool:
        """Take an answer into account; whether `state` has changed."""
        raised = self.state == "on"
        alarming = self._rule.judge(data, raised=raised)
        if alarming is None:
            return False
        if alarming == raised and self.state != "unknown":
            self._streak = 0
            return False
        self._streak += 1
        needed = self._rule.raise_after if alarming else self._rule.clear_after
        if self.state == "unknown" and not alarming:
            needed = 1
        if self._streak < needed:
            return False
        self._streak = 0
        self.state = "on" if alarming else "off"
        return True
