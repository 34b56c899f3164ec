"""What a check says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        check: Stable name of the check, for example `power.mode`.
        status: `ok`; `warning`: moedge runs, worse than it could; `failed`: it does not run, or not for long;
            `skipped`: not asked for, or of no concern here.
        text: What was found, with its value.
        advice: What to do; None if there is nothing.
        value: The value alone, as a JSON type.
    """

    check: str
    status: Status
    text: str
    advice: str | None = None
    value: Any = None

    def line(self) -> str:
        """For a terminal."""
        advice = f" → {self.advice}" if self.advice else ""
        return f"{self.status:<8} {self.check:<20} {self.text}{advice}"

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return asdict(self)
