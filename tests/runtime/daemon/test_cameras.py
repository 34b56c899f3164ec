import pytest
from moedge_runtime.config import CameraConfig
from moedge_runtime.daemon.cameras import check_of, live_fps, policy_of, size_of
from moedge_runtime.daemon.reader import Policy
from moedge_runtime.frames.masked import Preparation


def camera(source: str, **keys: object) -> CameraConfig:
    return CameraConfig.model_validate({"source": source, **keys})


@pytest.mark.parametrize(
    ("intervals_s", "fps"),
    [([], 1.0), ([60.0], 1.0), ([5.0, 0.25], 4.0), ([5.0, 0.0], None)],
)
def test_a_live_camera_gives_as_many_frames_as_its_watches_ask_for(intervals_s: list[float], fps: float | None) -> None:
    assert live_fps(intervals_s) == fps


def test_a_live_camera_is_neither_waited_for_nor_given_up() -> None:
    assert policy_of(camera("rtsp://h/s"), gives_up=False) == Policy(False, True, True, endless=True)
    assert policy_of(camera("file:a.mp4"), gives_up=False) == Policy(True, True, False)
    assert policy_of(camera("file:a.mp4", realtime=True, loop=True), gives_up=True) == Policy(False, False, True)


def test_only_live_cameras_are_looked_at_for_frozen_pictures() -> None:
    assert check_of(camera("file:a.mp4"), Preparation()) is None
    assert check_of(camera("csi:0"), Preparation()) is not None


def test_a_size_is_width_and_height() -> None:
    assert size_of(camera("csi:0", size="1280x720")) == (1280, 720)
    assert size_of(camera("csi:0")) is None
