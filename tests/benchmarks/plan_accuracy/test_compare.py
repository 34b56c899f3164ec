"""The comparison of plans with measurements, on figures that are made up."""

from __future__ import annotations

from typing import Any

import plan_accuracy
import pytest
from moedge_devices.plan.board_plan import GIB, BoardPlan, Setup, plan_board
from moedge_devices.plan.calibration import calibration
from moedge_devices.plan.prediction import Frame
from moedge_devices.plan.subject import find_subject
from moedge_devices.profile import shipped_profiles
from moedge_runtime.bench.rounds import FRAMES

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
    return {"frames": [{"name": name, **frame} for name in FRAMES]}


def lines(first_token_s: float, token_s: float) -> dict[str, dict[str, Any]]:
    def plan_frame(frame: Frame) -> BoardPlan:
        setup = Setup(find_subject(MODEL), PROFILE, next(iter(PROFILE.storage)), 20 * GIB)
        return plan_board(setup, calibration(), frame, others=[])

    found = plan_accuracy.compare("20G", plan_frame, measured(first_token_s, token_s), dict.fromkeys(FRAMES, 105.0))
    return {line["name"]: line for line in found}


def test_a_plan_within_a_quarter_is_good_and_one_beyond_is_not() -> None:
    base = lines(20.0, 0.12)
    planned_s = 20.0 * base["plan: 20G, same scene: first token"]["value"]
    token_s = 0.12 / base["plan: 20G, scene change: tokens a second"]["value"]
    exact = lines(planned_s, token_s)
    assert exact["plan: 20G, same scene: first token"]["value"] == pytest.approx(1.0, abs=0.002)
    bounded = [line for line in exact.values() if line["bound"]]
    assert len(bounded) == 4
    assert lines(planned_s * 1.3, token_s)["plan: 20G, same scene: first token"]["ok"] is True
    assert lines(planned_s * 1.4, token_s)["plan: 20G, same scene: first token"]["ok"] is False
    assert lines(planned_s, token_s * 0.7)["plan: 20G, scene change: tokens a second"]["ok"] is False


def test_what_has_no_bound_is_not_judged() -> None:
    assert {line["ok"] for line in lines(20.0, 0.12).values() if line["bound"] is None} == {None}
