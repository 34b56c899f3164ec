"""Replays what fuzzing has found: inputs that take different ways through the code, and those that once broke it."""

from __future__ import annotations

import pytest
from fuzz.targets import CORPUS, TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_was_found_breaks_it_and_some_is_taken_and_some_refused(target: str) -> None:
    outcomes = {path.name: TARGETS[target](path.read_bytes()) for path in sorted((CORPUS / target).iterdir())}
    assert set(outcomes.values()) == {True, False}
