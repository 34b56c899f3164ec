from datetime import datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pytest
from moedge_runtime.camera import Frame
from moedge_runtime.frames.gate import SKIP_REASONS, FrameGate, Verdict, WatchRule, frame_reason
from moedge_runtime.frames.motion import MotionSettings, Moving
from moedge_runtime.frames.polygon import parse_polygon
from moedge_runtime.frames.timetable import Timetable, parse_window

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
ZONES = {"left": parse_polygon("0,0,0.4,0,0.4,1,0,1"), "right": parse_polygon("0.6,0,1,0,1,1,0.6,1")}


def frame(at_s: float, square: int | None = None) -> Frame:
    """Grey, perhaps with something at x = `square` of 160."""
    image = np.full((90, 160, 3), 100, np.uint8)
    if square is not None:
        image[30:50, square : square + 20] = 200
    return Frame(image, NOON + timedelta(seconds=at_s), at_s, round(at_s), at_s)


def said(gate: FrameGate, *frames: Frame, condition: str | None = None) -> list[str]:
    """Trigger or reason of the first watch for each frame."""
    verdicts = [gate.decide(item, condition, True)[0] for item in frames]  # type: ignore[arg-type]
    return [str(verdict.trigger or verdict.reason) for verdict in verdicts]


def test_without_motion_the_interval_decides() -> None:
    gate = FrameGate([WatchRule(2.0)])
    assert said(gate, *map(frame, (0, 1, 2, 3, 4))) == ["interval", "interval", "interval", "interval", "interval"]
    verdicts = [gate.decide(frame(at), None, True)[0] for at in (5, 6)]
    assert [verdict.reason for verdict in verdicts] == ["interval", None]


def test_with_motion_nothing_is_asked_while_nothing_moves() -> None:
    gate = FrameGate([WatchRule(5.0, on_motion=True, zones=("left",))], zones=ZONES)
    frames = [frame(0), frame(10), frame(11, 10), frame(12, 10), frame(13, 120)]
    assert said(gate, *frames) == ["motion", "no_motion", "motion", "interval", "interval"]


def test_motion_in_another_zone_does_not_count_and_the_zones_are_told() -> None:
    rules = [WatchRule(0.0, on_motion=True, zones=zones) for zones in (("left",), ("right", "left"), ())]
    gate = FrameGate(rules, zones=ZONES)
    first = gate.decide(frame(0), None, True)
    assert [verdict.zones for verdict in first] == [("left",), ("right", "left"), ()]
    assert gate.decide(frame(1, 120), None, True) == [
        Verdict(reason="no_motion"),
        Verdict("motion", ("right",)),
        Verdict("motion", ()),
    ]
    assert frame_reason(gate.decide(frame(1, 120), None, True)) is None


def test_motion_during_the_interval_is_not_forgotten() -> None:
    gate = FrameGate([WatchRule(5.0, on_motion=True, zones=("left", "right"))], zones=ZONES)
    assert said(gate, frame(0), frame(1, 120), frame(2), frame(4)) == ["motion", "interval", "interval", "interval"]
    assert gate.decide(frame(5), None, True) == [Verdict("motion", ("right",))], "it moved at 1 s"
    assert said(gate, frame(10.5)) == ["no_motion"], "and is told once"


def test_refresh_asks_however_still_it_is() -> None:
    gate = FrameGate([WatchRule(1.0, on_motion=True, refresh_s=10.0)])
    assert said(gate, *(frame(at) for at in (0, 5, 9, 10, 15, 20))) == [
        "motion", "no_motion", "no_motion", "refresh", "no_motion", "refresh",
    ]  # fmt: skip


@pytest.mark.parametrize("condition", ["black", "frozen"])
def test_pictures_that_show_nothing_are_not_asked_about(condition: str) -> None:
    gate = FrameGate([WatchRule(0.0)])
    assert said(gate, frame(0), condition=condition) == [condition]
    assert said(gate, frame(1)) == ["interval"]


def test_outside_of_its_schedule_a_watch_asks_nothing() -> None:
    lunch = Timetable((parse_window("12:00-12:01"),), timezone.utc)
    gate = FrameGate([WatchRule(0.0, lunch)])
    assert said(gate, frame(59), frame(60)) == ["interval", "outside_schedule"]
    camera = FrameGate([WatchRule(0.0)], timetable=lunch)
    assert said(camera, frame(59), frame(60)) == ["interval", "outside_schedule"]


def test_a_clock_that_is_not_set_goes_to_the_timetable() -> None:
    gate = FrameGate([WatchRule(0.0, Timetable((parse_window("01:00-02:00"),), timezone.utc, "open"))])
    assert gate.decide(frame(0), None, True)[0].reason == "outside_schedule"
    assert gate.decide(frame(1), None, False)[0].trigger == "interval"


def test_after_an_alert_the_watch_rests() -> None:
    gate = FrameGate([WatchRule(0.0, cooldown_s=10.0), WatchRule(0.0)])
    assert said(gate, frame(100)) == ["interval"]
    gate.rest(0, 100.0)
    assert said(gate, frame(101), frame(109.9), frame(110)) == ["cooldown", "cooldown", "interval"]
    assert gate.decide(frame(111), None, True)[1].trigger, "the other watch goes on"


def test_a_rest_outlives_a_reconnect_and_is_not_prolonged_by_it() -> None:
    gate = FrameGate([WatchRule(0.0, cooldown_s=10.0)])
    said(gate, frame(1000))
    gate.rest(0, 1000.0)
    said(gate, frame(1004))
    gate.reopened()
    assert said(gate, frame(0), frame(5.9), frame(6)) == ["cooldown", "cooldown", "interval"]
    gate.reopened()
    gate.rest(0, 1006.0)  # the answer to a frame from before
    assert said(gate, frame(9), frame(10)) == ["cooldown", "interval"]


def test_a_reconnect_is_no_motion() -> None:
    gate = FrameGate([WatchRule(5.0, on_motion=True, refresh_s=30.0)], motion=MotionSettings())
    assert said(gate, frame(100), frame(104)) == ["motion", "no_motion"]
    gate.reopened()
    assert said(gate, frame(0), frame(20), frame(26)) == ["no_motion", "no_motion", "refresh"]


def test_the_reason_of_a_frame_is_that_of_the_watch_that_came_closest() -> None:
    assert frame_reason([]) == "no_watch"
    for one, other in pairwise(SKIP_REASONS):
        assert frame_reason([Verdict(reason=other), Verdict(reason=one)]) == other
    assert frame_reason([Verdict(reason="interval"), Verdict("motion")]) is None


def test_a_camera_says_whether_something_moves_even_if_no_watch_asks_for_that() -> None:
    gate = FrameGate([], motion=MotionSettings(), zones=ZONES)
    told = []
    for item in (frame(0), frame(1), frame(2, 10), frame(3, 120)):
        assert gate.decide(item, None, True) == []
        told.append(gate.moving)
    assert told == [None, Moving(False), Moving(True, frozenset({"left"})), Moving(True, frozenset({"left", "right"}))]
    without = FrameGate([WatchRule(0.0)])
    said(without, frame(0), frame(1, 10))
    assert without.moving is None


def test_a_watch_that_is_off_asks_nothing_and_leaves_the_others_alone() -> None:
    gate = FrameGate([WatchRule(0.0), WatchRule(0.0)])
    gate.enable(0, False)
    assert said(gate, frame(0), frame(1)) == ["disabled", "disabled"]
    assert said(gate, frame(2), condition="black") == ["disabled"]
    assert gate.decide(frame(3), None, True)[1].trigger == "interval"
    gate.enable(0, True)
    assert said(gate, frame(4)) == ["interval"]


def test_while_motion_is_off_watches_ask_by_their_interval_and_nothing_is_said_to_move() -> None:
    gate = FrameGate([WatchRule(2.0, on_motion=True, zones=("left",))], zones=ZONES)
    assert said(gate, frame(0), frame(1), frame(3)) == ["motion", "no_motion", "no_motion"]
    assert gate.moving == Moving(False)
    gate.look_for_motion(False)
    assert said(gate, frame(4), frame(5), frame(6)) == ["interval", "interval", "interval"]
    assert gate.decide(frame(8), None, True) == [Verdict("interval", ("left",))]
    assert gate.moving is None
    gate.look_for_motion(True)
    assert said(gate, frame(10), frame(12), frame(13, 10)) == ["motion", "no_motion", "motion"], "as from the start"
    assert gate.moving == Moving(True, frozenset({"left"}))


def test_in_a_zone_that_is_off_nothing_moves_and_who_looks_nowhere_else_asks_nothing() -> None:
    rules = [WatchRule(0.0, on_motion=True, zones=zones) for zones in (("left",), ("left", "right"), ())]
    gate = FrameGate(rules, zones=ZONES)
    gate.decide(frame(0), None, True)
    gate.decide(frame(1), None, True)
    assert [verdict.zones for verdict in gate.decide(frame(2, 10), None, True)] == [("left",), ("left",), ()]
    assert gate.moving == Moving(True, frozenset({"left"}))
    gate.enable_zone("left", False)
    assert gate.moving == Moving(True)
    assert gate.decide(frame(3, 30), None, True) == [
        Verdict(reason="disabled"),
        Verdict(reason="no_motion"),
        Verdict("motion", ()),
    ]
    assert gate.decide(frame(4, 120), None, True)[1] == Verdict("motion", ("right",))
    gate.enable_zone("left", True)
    assert gate.decide(frame(5, 10), None, True)[0] == Verdict("motion", ("left",))


def test_motion_that_a_watch_remembers_goes_with_its_zone() -> None:
    gate = FrameGate([WatchRule(5.0, on_motion=True, zones=("left", "right"))], zones=ZONES)
    assert said(gate, frame(0), frame(1, 120), frame(2)) == ["motion", "interval", "interval"]
    gate.enable_zone("right", False)
    assert said(gate, frame(6)) == ["no_motion"]
