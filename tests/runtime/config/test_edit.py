"""Masks and zones put into texts of people, and masks taken out of them."""

from __future__ import annotations

import pytest
import yaml
from moedge_runtime.config.edit import with_polygon, without_mask
from moedge_runtime.errors import ConfigError

SQUARE = ((0.1, 0.1), (0.50004, 0.1), (0.5, 0.5))
WRITTEN = [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]]

TEXTS = {
    "none yet": "cameras:\n  gate:  # road\n    source: file:a.mp4\n    # loops\n    loop: true\n",
    "at the same indentation": "cameras:\n  gate:\n    source: x:y\n    masks:\n    - [[0,0],[1,0],[1,1]]\n",
    "in a block": "cameras:\n  gate:\n    masks:\n      - - [0, 0]\n        - [1, 0]\n        - [1, 1]\n\n    a: x\n",
    "in one line": "cameras: {gate: {source: 'x:y', masks: [[[0,0],[1,0],[1,1]]]}}\n",
    "in one line, none yet": "cameras: {gate: {source: 'x:y'}}\n",
    "at the end": "cameras:\n  gate:\n    source: x:y\n    masks: ['0,0,1,0,1,1']",
    "empty": "cameras:\n  gate:\n    source: x:y\n    masks: []\n    loop: true\n",
    "null": "cameras:\n  gate:\n    source: x:y\n    masks:\n    loop: true\n",
    "Windows": "cameras:\r\n  gate:\r\n    source: x:y\r\n    loop: true\r\n",
    "umlauts": "# Tür\ncameras:\n  gate:\n    source: x:y  # Tür\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("kind", ["masks", "zones"])
def test_nothing_but_the_polygon_is_new(text: str, kind: str) -> None:
    changed = with_polygon(text, "gate", kind, SQUARE, "road" if kind == "zones" else None)  # type: ignore[arg-type]
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    if kind == "masks":
        before["cameras"]["gate"]["masks"] = [*(before["cameras"]["gate"].get("masks") or []), WRITTEN]
    else:
        before["cameras"]["gate"]["zones"] = {"road": WRITTEN}
    assert after == before
    assert [line for line in text.splitlines() if "#" in line and line not in changed.splitlines()] == []


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_nothing_but_the_mask_is_gone(text: str, index: int) -> None:
    two = with_polygon(with_polygon(text, "gate", "masks", SQUARE), "gate", "masks", SQUARE[::-1])
    before, after = yaml.safe_load(two), yaml.safe_load(without_mask(two, "gate", index))
    del before["cameras"]["gate"]["masks"][index]
    assert after == before
    assert [line for line in two.splitlines() if "#" in line and line not in text.splitlines()] == []


def test_the_last_mask_leaves_an_empty_list_and_one_that_is_not_there_is_refused() -> None:
    none = without_mask(TEXTS["at the end"], "gate", 0)
    assert yaml.safe_load(none)["cameras"]["gate"]["masks"] == []
    for text, index in ((none, 0), (TEXTS["none yet"], 0), (TEXTS["at the end"], 1), (TEXTS["at the end"], -1)):
        with pytest.raises(ConfigError) as caught:
            without_mask(text, "gate", index)
        assert caught.value.key == "config.not_editable"


def test_a_zone_of_that_name_is_replaced_and_others_stay() -> None:
    text = "cameras:\n  gate:\n    source: x:y\n    zones:\n      road: 0,0,1,0,1,1\n      door: 0,0,1,0,1,1\n"
    changed = yaml.safe_load(with_polygon(text, "gate", "zones", SQUARE, "road"))
    assert changed["cameras"]["gate"]["zones"] == {"road": WRITTEN, "door": "0,0,1,0,1,1"}


@pytest.mark.parametrize(
    "text",
    [
        "cameras:\n  gate: &both\n    source: x:y\n  yard: *both\n",
        "base: &base\n  source: x:y\ncameras:\n  gate:\n    <<: *base\n",
        "cameras:\n  yard:\n    source: x:y\n",
        "cameras: []\n",
        "",
        "{",
        "--- a\n--- b\n",
    ],
)
def test_what_cannot_be_changed_safely_is_left_alone_or_right(text: str) -> None:
    try:
        changed = with_polygon(text, "gate", "masks", SQUARE)
    except ConfigError as error:
        assert error.key == "config.not_editable"
    else:
        before, after = yaml.safe_load(text), yaml.safe_load(changed)
        before["cameras"]["gate"] = {**before["cameras"]["gate"], "masks": [WRITTEN]}
        assert after == before
