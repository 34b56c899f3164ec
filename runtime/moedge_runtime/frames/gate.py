"""Decides for each frame of a camera which watches ask about it, and says why the others do not. Pure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from moedge_runtime.camera.frame import Frame
from moedge_runtime.frames.interval import Gap, Interval
from moedge_runtime.frames.motion import Motion, MotionDetector, MotionSettings, MotionState, Moving
from moedge_runtime.frames.polygon import Polygon
from moedge_runtime.frames.timetable import Timetable

SkipReason = Literal["no_watch", "disabled", "black", "frozen", "outside_schedule", "cooldown", "no_motion", "interval"]
SKIP_REASONS: tuple[SkipReason, ...] = (
    "no_watch",
    "disabled",
    "black",
    "frozen",
    "outside_schedule",
    "cooldown",
    "no_motion",
    "interval",
)
"""In the order in which they are looked at. The reason of a frame is that of the watch that came closest to asking."""

Trigger = Literal["interval", "motion", "refresh"]
"""Why a watch asks: it is time; something moved; nothing did for so long that it is time all the same."""

Condition = Literal["black", "frozen"]


@dataclass(frozen=True)
class WatchRule:
    """When a watch asks.

    Attributes:
        interval_s: Least time of the camera between two questions; 0 for none.
        timetable: When it asks at all.
        on_motion: Only when something moved since the last question.
        zones: Zones in which motion counts; all of the picture if empty.
        refresh_s: Longest time of the camera without a question however still it is; None for no limit.
        cooldown_s: Time of the camera without questions after its alert was raised.
    """

    interval_s: float
    timetable: Timetable = field(default_factory=Timetable)
    on_motion: bool = False
    zones: tuple[str, ...] = ()
    refresh_s: float | None = None
    cooldown_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What a watch does with a frame: `trigger` if it asks, with the zones that showed motion, else `reason`."""

    trigger: Trigger | None = None
    zones: tuple[str, ...] = ()
    reason: SkipReason | None = None


class FrameGate:
    """The gate of one camera. `decide` and `reopened` belong to the camera's thread, the others may be called from any.

    Args:
        rules: One a watch.
        timetable: Of the camera; closed, no watch asks.
        motion: What counts as motion; without it, it is only looked for if a rule asks for that.
        zones: Polygons by name, in fractions of the frames' pictures.
    """

    def __init__(
        self,
        rules: Sequence[WatchRule],
        *,
        timetable: Timetable | None = None,
        motion: MotionSettings | None = None,
        zones: Mapping[str, Polygon] | None = None,
    ) -> None:
        self._timetable = timetable or Timetable()
        self._new_detector: Callable[[], MotionDetector] | None = None
        if motion is not None or any(rule.on_motion for rule in rules):
            self._new_detector = partial(MotionDetector, motion or MotionSettings(), zones or {})
        self._looks_for_motion = True
        self._zones_off: frozenset[str] = frozenset()
        self._detector: MotionDetector | None = None
        self._motion = MotionState()
        self._watches = [_WatchGate(rule) for rule in rules]

    def decide(self, frame: Frame, condition: Condition | None, clock_synced: bool | None) -> list[Verdict]:
        """One verdict a watch.

        Args:
            frame: Not older than the one before, unless `reopened` was called in between.
            condition: What is wrong with the pictures as of this frame.
            clock_synced: Whether the wall clock that `frame` was stamped with is set.
        """
        motion = self._look(frame)
        camera_open = self._timetable.is_open(frame.captured_at, clock_synced)
        return [
            watch.decide(frame, motion, condition, self._zones_off, camera_open=camera_open, clock_synced=clock_synced)
            for watch in self._watches
        ]

    @property
    def moving(self) -> Moving | None:
        """Whether something moves as of the last frame; None while that is not known, or not looked for."""
        now = self._motion.now
        return None if now is None else replace(now, zones=now.zones - self._zones_off)

    def reopened(self) -> None:
        """The camera's time begins at 0 with the next frame. What rests goes on resting for what is left."""
        if self._detector:
            self._detector.restart_time()
        self._motion.restart_time()
        for watch in self._watches:
            watch.reopened()

    def look_for_motion(self, on: bool) -> None:
        """Look for motion, as from the start, or do not: watches that wait for it then ask by their interval."""
        self._looks_for_motion = on

    def enable(self, watch: int, on: bool) -> None:
        """Let `watch` ask, or not."""
        self._watches[watch].enabled = on

    def enable_zone(self, zone: str, on: bool) -> None:
        """Look for motion in a zone, or not; watches of nothing but zones that are off ask nothing."""
        self._zones_off = self._zones_off - {zone} if on else self._zones_off | {zone}

    def rest(self, watch: int, since_pts_s: float) -> None:
        """The alert of `watch` was raised by the frame at `since_pts_s`: it asks nothing during its cooldown."""
        self._watches[watch].rest(since_pts_s)

    def _look(self, frame: Frame) -> Motion | None:
        if self._new_detector is None:
            return None
        if not self._looks_for_motion:
            self._detector, self._motion = None, MotionState()
            return None
        if self._detector is None:
            self._detector = self._new_detector()
        motion = self._detector.look(frame.image, frame.pts_s)
        motion = replace(motion, zones=motion.zones - self._zones_off)
        self._motion.note(motion, frame.pts_s)
        return motion


def frame_reason(verdicts: Sequence[Verdict]) -> SkipReason | None:
    """Why nobody asks about a frame; None if somebody does."""
    if any(verdict.trigger for verdict in verdicts):
        return None
    return max((verdict.reason or "no_watch" for verdict in verdicts), key=SKIP_REASONS.index, default="no_watch")


class _WatchGate:
    def __init__(self, rule: WatchRule) -> None:
        self._rule = rule
        self.enabled = True
        self._timer: Interval | Gap = Interval(rule.interval_s)
        if rule.on_motion:
            self._timer = Gap(rule.interval_s)
        self._moved: set[str] | None = None  # zones with motion since the last question; None if there was none
        self._asked_s: float | None = None
        self._now_s = 0.0
        self._lock = threading.Lock()
        self._rest_until_s = float("-inf")

    def decide(
        self,
        frame: Frame,
        motion: Motion | None,
        condition: Condition | None,
        zones_off: frozenset[str],
        *,
        camera_open: bool,
        clock_synced: bool | None,
    ) -> Verdict:
        rule, now_s = self._rule, frame.pts_s
        self._now_s = now_s
        looks_at = tuple(zone for zone in rule.zones if zone not in zones_off)
        enabled = self.enabled and (bool(looks_at) or not rule.zones)
        if self._moved:
            self._moved = self._moved.intersection(looks_at) or None
        if not enabled:
            self._moved = None
        if not enabled or condition is not None:
            return Verdict(reason=condition if enabled else "disabled")
        if not camera_open or not rule.timetable.is_open(frame.captured_at, clock_synced):
            self._moved = None
            return Verdict(reason="outside_schedule")
        with self._lock:
            if now_s < self._rest_until_s:
                return Verdict(reason="cooldown")
        trigger: Trigger = "interval"
        if rule.on_motion and motion is not None:
            self._note(motion)
            trigger = "refresh" if self._moved is None else "motion"
            if self._moved is None and not self._overdue(now_s):
                return Verdict(reason="no_motion")
        if not self._timer.due(now_s):
            return Verdict(reason="interval")
        zones = looks_at if self._moved is None else tuple(name for name in looks_at if name in self._moved)
        self._moved, self._asked_s = None, now_s
        return Verdict(trigger=trigger, zones=zones)

    def reopened(self) -> None:
        with self._lock:
            self._rest_until_s -= self._now_s
        self._timer.reopened()
        if self._asked_s is not None:
            self._asked_s -= self._now_s
        self._now_s = 0.0

    def rest(self, since_pts_s: float) -> None:
        with self._lock:
            # The frame may be from before the camera was opened again.
            self._rest_until_s = min(since_pts_s, self._now_s) + self._rule.cooldown_s

    def _note(self, motion: Motion) -> None:
        """Motion that comes while the watch has to wait for its interval is remembered."""
        seen = motion.zones.intersection(self._rule.zones)
        if seen or (motion.anywhere and not self._rule.zones):
            self._moved = (self._moved or set()) | seen

    def _overdue(self, now_s: float) -> bool:
        refresh_s = self._rule.refresh_s
        return refresh_s is not None and (self._asked_s is None or now_s - self._asked_s >= refresh_s)
