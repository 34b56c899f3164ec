"""The comparison of plans with measurements, on figures that are made up."""

from __future__ import annotations

from typing import Any

import plan_accuracy
import pytest
from moedge_devices.profile import shipped_profiles

PROFILE = shipped_profiles()["rk3588-32gb"]
MODEL = "qwen3-vl-30b-a3b@int4"


def measured(first_token_s: float, token_s: float) -> dict[str, Any]:
    frame = {
        "prefill_tokens": 236,
        "image_tokens": 220,
        "first_token_s": first_token_s,
        "vision_s": first_token_s / 2,
        "prefill_compute_s": first_token_s / 2,
        "flash_wait_s": 0.0,
        "prefill_read_bytes": 1e9,
        "decode": [
            {"first": 1, "last": 10, "seconds": token_s},
            {"first": 11, "last": 30, "seconds": token_s},
        ],
    }
    return {"frames": [{"name": "cold frame", **frame}, {"name": "same scene", **frame}]}


def lines(first_token_s: float, token_s: float) -> dict[str, dict[str, Any]]:
    found = plan_accuracy.compare(MODEL, PROFILE, "20G", "skewed", measured(first_token_s, token_s))
    return {line["name"]: line for line in found}


def test_a_plan_within_a_quarter_is_good_and_one_beyond_is_not() -> None:
    base = lines(20.0, 0.12)
    planned_s = 20.0 * base["plan: 20G, same scene: first token"]["value"]
    token_s = 0.12 / base["plan: 20G, same scene: tokens a second"]["value"]
    exact = lines(planned_s, token_s)
    assert exact["plan: 20G, same scene: first token"]["value"] == pytest.approx(1.0, abs=0.002)
    bounded = [line for line in exact.values() if line["bound"]]
    assert len(bounded) == 3
    assert lines(planned_s * 1.3, token_s)["plan: 20G, same scene: first token"]["ok"] is True
    assert lines(planned_s * 1.4, token_s)["plan: 20G, same scene: first token"]["ok"] is False
    assert lines(planned_s, token_s * 0.7)["plan: 20G, same scene: tokens a second"]["ok"] is False


def test_what_has_no_bound_is_not_judged() -> None:
    assert {line["ok"] for line in lines(20.0, 0.12).values() if line["bound"] is None} == {None}
