"""Text of a model or a sender as part of one line of a log or a terminal."""

from __future__ import annotations

MAX_CHARACTERS = 300


def one_line(text: object) -> str:
    """`text` without line breaks and control characters, which could forge log lines or take over a terminal; cut."""
    whole = str(text)
    shown = "".join(character if character.isprintable() else " " for character in whole[:MAX_CHARACTERS]).strip()
    return shown + " …" if len(whole) > MAX_CHARACTERS else shown
