"""How many prompts are worth one pass over the experts. Pure: it is told what passes took."""

from __future__ import annotations

FLASH_BOUND = 0.1
"""Share of a pass spent waiting for flash from which on its time is that of the flash."""


class SharingGain:
    """Learns from each prefill how long pictures, flash and processor take.

    A pass reads each missing expert once, whatever it is for, and computes each prompt: it takes the longer of both
    times, after the pictures of all are encoded. So prompts that share it gain the time of the flash, until computing
    them takes as long; but all of them wait for the pictures and prompts of the others.
    """

    def __init__(self) -> None:
        self._read_bytes = 0
        self._second_bytes: float | None = None
        self._picture_s = self._prompt_s = 0.0

    def note(self, prompts: int, pictures_s: float, seconds: float, waited_s: float, read_bytes: int) -> None:
        """A pass is over.

        Args:
            prompts: That went through it together.
            pictures_s: What their pictures took before it.
            seconds: It took.
            waited_s: Of these with nothing to compute while a read was outstanding.
            read_bytes: Of experts.
        """
        self._read_bytes = read_bytes
        self._picture_s = pictures_s / prompts
        self._prompt_s = (seconds - waited_s) / prompts
        if waited_s > FLASH_BOUND * seconds:
            self._second_bytes = read_bytes / seconds

    def prompts(self) -> int:
        """How many prompts are to share a pass; 1 before flash and processor are known.

        No more than take as long to compute as to read for, and only if their first tokens come earlier in this way on
        average than one prompt after the other, answers not counted.
        """
        if not self._second_bytes or self._prompt_s <= 0:
            return 1
        flash_s = self._read_bytes / self._second_bytes
        alone_s = self._picture_s + max(flash_s, self._prompt_s)

        def gains(prompts: int) -> bool:
            together_s = prompts * self._picture_s + max(flash_s, prompts * self._prompt_s)
            return together_s < alone_s * (prompts + 1) / 2

        return max(filter(gains, range(2, round(flash_s / self._prompt_s) + 1)), default=1)
