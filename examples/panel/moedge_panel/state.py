"""The truth about one panel: what its display, lamps and gauge say, and how such a state is drawn at random."""

from dataclasses import dataclass

import numpy as np

LAMP_COLOURS = ("red", "amber", "green", "blue")
"""All lamp colours in the fixed order in which answers name them."""

GAUGE_LOW_PERCENT = (5, 40)
GAUGE_HIGH_PERCENT = (60, 95)
"""Inclusive ranges of the gauge; nothing lies between 40 % and 60 %, so `high` and `low` are no matter of taste."""


@dataclass(frozen=True)
class PanelState:
    """What a panel shows.

    Attributes:
        reading: Number on the display, 10 to 9999, drawn without leading zeros.
        fitted: Colours of the lamps that exist, from left to right as drawn.
        lit: Colours of the lamps that are lit, in the order of `LAMP_COLOURS`.
        gauge_percent: Gauge level in percent of full scale.
    """

    reading: int
    fitted: tuple[str, ...]
    lit: tuple[str, ...]
    gauge_percent: int

    @property
    def gauge(self) -> str:
        """`high` above half of the scale, else `low`."""
        return "high" if self.gauge_percent > 50 else "low"


def sample_state(rng: np.random.Generator) -> PanelState:
    """Draws a state: 2 to 4 digits (most often 4 or 3), 2 to 4 lamps, each lit or not, a gauge low or high."""
    digits = int(rng.choice((2, 3, 4), p=(0.15, 0.35, 0.5)))
    reading = int(rng.integers(1, 10)) * 10 ** (digits - 1) + int(rng.integers(0, 10 ** (digits - 1)))
    count = int(rng.choice((2, 3, 4), p=(0.2, 0.5, 0.3)))
    fitted = tuple(str(colour) for colour in rng.permutation(np.array(LAMP_COLOURS))[:count])
    lit_now = rng.random(count) < rng.uniform(0.25, 0.75)
    lit = tuple(c for c in LAMP_COLOURS if any(c == f and on for f, on in zip(fitted, lit_now, strict=True)))
    low, high = GAUGE_HIGH_PERCENT if rng.random() < 0.5 else GAUGE_LOW_PERCENT
    return PanelState(reading, fitted, lit, int(rng.integers(low, high + 1)))
