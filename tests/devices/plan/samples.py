"""Setups and predictions for the tests of plans."""

from __future__ import annotations

from dataclasses import replace

from moedge_devices.plan.board_plan import BoardPlan, Setup, plan_board
from moedge_devices.plan.calibration import calibration
from moedge_devices.plan.subject import find_subject
from moedge_devices.profile import Profile, shipped_profiles

GIB = 1 << 30


def setup(device: str = "orin-nano-8gb", model: str = "qwen3-vl-30b-a3b@int4", **changes: object) -> Setup:
    """A setup on the best storage of a shipped profile."""
    profile = shipped_profiles()[device]
    return replace(Setup(find_subject(model), profile, next(iter(profile.storage))), **changes)


def plan(device: str = "orin-nano-8gb", model: str = "qwen3-vl-30b-a3b@int4", **changes: object) -> BoardPlan:
    """The plan of `setup`, with the shipped boards as alternatives."""
    others: list[Profile] = [each for each in shipped_profiles().values() if each.family != "generic"]
    return plan_board(setup(device, model, **changes), calibration(), others=others)
