"""A number of things in a sentence."""

from __future__ import annotations


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 camera`, `0 cameras`, `1,200 cameras`; `things` is the plural where it takes more than an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
