"""Makes sources, checks, policies, watches and their gate of the configuration of a camera."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Literal

from moedge_runtime.camera import FrameSource, SourceOptions, is_live, open_source
from moedge_runtime.camera.credentials import Credentials, Tls
from moedge_runtime.camera.picture_check import PictureCheck
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.config import AlertConfig, CameraConfig, Config, MotionConfig, TimeConfig, WatchConfig
from moedge_runtime.config.frames import zone_of
from moedge_runtime.config.values import EVERY_FRAME
from moedge_runtime.daemon.preflight import question_of
from moedge_runtime.daemon.reader import Policy
from moedge_runtime.daemon.schedule import Priority
from moedge_runtime.daemon.watcher import Watch
from moedge_runtime.frames.alert import AlertRule, AlertTracker
from moedge_runtime.frames.gate import FrameGate, WatchRule
from moedge_runtime.frames.masked import Preparation, PreparedSource
from moedge_runtime.frames.motion import MotionSettings
from moedge_runtime.frames.polygon import WHOLE, Box, bounds, within
from moedge_runtime.frames.timetable import Timetable, parse_window

DEFAULT_LIVE_FPS = 1.0
"""Frames a second of a live camera whose watches want fewer: a request then finds one that is a second old."""


def preparation_of(camera: CameraConfig) -> Preparation:
    """What is done to every picture of `camera` first."""
    return Preparation(camera.masks, camera.crop)


def open_camera(camera: CameraConfig, intervals_s: Sequence[float], preparation: Preparation) -> FrameSource:
    """The source of `camera`, whose watches have these intervals. All of its frames have gone through `preparation`.

    Raises:
        CameraError: There is no such source.
    """
    live = is_live(camera.source)
    options = SourceOptions(
        loop=camera.loop,
        realtime=camera.realtime,
        fps=live_fps(intervals_s) if live and camera.fps is None else camera.fps,
        size=size_of(camera),
        raw_format=None if camera.format == "mjpeg" else camera.format,
        transport=camera.transport,
        credentials=_credentials(camera),
        tls=Tls(camera.ca, camera.tls_verify),
        timeouts=Timeouts(camera.first_frame_timeout, camera.stall_timeout),
    )
    return PreparedSource(open_source(camera.source, options), preparation)


def live_fps(intervals_s: Sequence[float]) -> float | None:
    """Frames a second of a live camera without `fps`: what its watches ask for, `DEFAULT_LIVE_FPS` at least."""
    if EVERY_FRAME in intervals_s:
        return None
    return max([DEFAULT_LIVE_FPS, *(1.0 / interval_s for interval_s in intervals_s)])


def policy_of(camera: CameraConfig, *, gives_up: bool) -> Policy:
    """How `camera` is read; `gives_up` if a camera that fails is not opened again."""
    live = is_live(camera.source)
    return Policy(
        lossless=not (live or camera.realtime), retries=not gives_up, repeats=live or camera.loop, endless=live
    )


def check_of(camera: CameraConfig, preparation: Preparation) -> PictureCheck | None:
    """What looks at the pictures of `camera`, which have gone through `preparation`; None for recordings."""
    if not is_live(camera.source):
        return None
    return PictureCheck(_seconds(camera.frozen_after), _seconds(camera.black_after), preparation.hidden)


def gate_of(camera: CameraConfig, watches: Sequence[WatchConfig], time: TimeConfig) -> FrameGate:
    """What decides when the `watches` of `camera` ask."""
    motion = camera.motion or MotionConfig()
    return FrameGate(
        [_rule(camera, watch, time) for watch in watches],
        timetable=timetable_of(camera.schedule, time),
        motion=MotionSettings(motion.threshold, motion.area) if sees_motion(camera, watches) else None,
        zones={name: within(polygon, camera.crop) for name, polygon in camera.zones.items()},
    )


def sees_motion(camera: CameraConfig, watches: Sequence[WatchConfig]) -> bool:
    """Whether motion in front of `camera`, which has these `watches`, is looked for."""
    return camera.motion is not None or any(_asks_on_motion(camera, watch) for watch in watches)


def cameras_with_motion(config: Config) -> list[str]:
    """Names of the cameras that say whether something moves."""
    watches = {name: [watch for watch in config.watches if watch.camera == name] for name in config.cameras}
    return [name for name, camera in config.cameras.items() if sees_motion(camera, watches[name])]


def watch_of(camera: CameraConfig, watch: WatchConfig, zones_off: Set[str] = frozenset()) -> Watch:
    """`watch` of `camera`, ready to be asked; about its zones without those that are off, unless all of them are."""
    on = tuple(zone for zone in watch.zones if zone not in zones_off)
    watch = watch.model_copy(update={"zones": on or watch.zones})
    return Watch(
        watch.name,
        question_of(watch),
        watch.publish_reasoning,
        view=_view(camera, watch),
        freshness_s=watch.freshness,
        priority=Priority[watch.priority.upper()],
        alert=AlertTracker(_alert_rule(watch.alert)) if watch.alert else None,
    )


def timetable_of(schedule: Sequence[str], time: TimeConfig) -> Timetable:
    """A schedule by the clock of `time`."""
    zone = zone_of(time.zone) if time.zone else None
    return Timetable(tuple(parse_window(text) for text in schedule), zone, time.unsynced)


def _rule(camera: CameraConfig, watch: WatchConfig, time: TimeConfig) -> WatchRule:
    return WatchRule(
        watch.interval,
        timetable_of(watch.schedule, time),
        on_motion=_asks_on_motion(camera, watch),
        zones=tuple(watch.zones),
        refresh_s=watch.refresh,
        cooldown_s=watch.alert.cooldown or 0.0 if watch.alert else 0.0,
    )


def _asks_on_motion(camera: CameraConfig, watch: WatchConfig) -> bool:
    return camera.motion is not None if watch.motion is None else watch.motion


def _view(camera: CameraConfig, watch: WatchConfig) -> Box:
    """The part of the camera's cropped picture that the model gets."""
    if not watch.zones or watch.view == "camera":
        return WHOLE
    around = bounds([within(camera.zones[name], camera.crop) for name in watch.zones])
    return Box(max(0.0, around.left), max(0.0, around.top), min(1.0, around.right), min(1.0, around.bottom))


def _alert_rule(alert: AlertConfig) -> AlertRule:
    return AlertRule(
        tuple(alert.field.split(".")),
        equals=alert.equals,
        compares_equal=alert.equals is not None,
        above=alert.above,
        below=alert.below,
        clear=alert.clear,
        raise_after=alert.raise_after,
        clear_after=alert.clear_after,
    )


def size_of(camera: CameraConfig) -> tuple[int, int] | None:
    """Width and height that the camera is to give."""
    if camera.size is None:
        return None
    width, height = map(int, camera.size.split("x"))
    return width, height


def _credentials(camera: CameraConfig) -> Credentials | None:
    if camera.username is None:
        return None
    return Credentials(camera.username, camera.password.get_secret_value() if camera.password else "")


def _seconds(delay: float | Literal["never"]) -> float | None:
    return None if delay == "never" else delay
