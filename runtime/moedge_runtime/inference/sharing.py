"""How many prompts are worth one pass over the experts. Pure: it is told what passes took."""

from __future__ import annotations

FLASH_BOUND = 0.1
"""Share of a pass spent waiting for flash from which on its time is that of the flash."""


class SharingGain:
    """Learns from each prefill how long flash and processor take.

    A pass reads each missing expert once, whatever it is for, and computes each prompt: it takes the longer of both
    times. So prompts that share it cost nothing as long as computing them takes no longer than reading; from then on
    the first one waits for the others and nobody gains.
    """

    def __init__(self) -> None:
        self._read_bytes = 0
        self._second_bytes: float | None = None
        self._prompt_s = 0.0

    def note(self, prompts: int, seconds: float, waited_s: float, read_bytes: int) -> None:
        """A pass is over.

        Args:
            prompts: That went through it together.
            seconds: It took.
            waited_s: Of these with nothing to compute while a read was outstanding.
            read_bytes: Of experts.
        """
        self._read_bytes = read_bytes
        self._prompt_s = (seconds - waited_s) / prompts
        if waited_s > FLASH_BOUND * seconds:
            self._second_bytes = read_bytes / seconds

    def prompts(self) -> int:
        """How many prompts take about as long to compute as the flash takes to read for them; 1 before it is known."""
        if not self._second_bytes or self._prompt_s <= 0:
            return 1
        return max(1, round(self._read_bytes / self._second_bytes / self._prompt_s))
