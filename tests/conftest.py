"""The order of the tests, whatever order they are named in."""

from __future__ import annotations

from pathlib import Path

import pytest

EXPORT = Path(__file__).parent / "export"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the export first.

    They open plain ONNX Runtime sessions. An engine gives its process one global thread pool for good, and from then on
    ONNX Runtime refuses sessions that want a pool of their own.
    """
    items.sort(key=lambda item: EXPORT not in item.path.parents)
