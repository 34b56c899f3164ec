"""Nothing under a mask reaches anybody: pictures that differ only there are the same to everyone who gets them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from moedge_runtime.camera import Frame
from moedge_runtime.camera.picture_check import PictureCheck
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.answers import answer_payload
from moedge_runtime.daemon.schedule import Job, Result
from moedge_runtime.daemon.snapshot import Jpeg, encode_jpeg
from moedge_runtime.frames.masked import MASK_COLOUR, Preparation, PreparedSource
from moedge_runtime.frames.motion import MotionDetector, MotionSettings, brightness
from moedge_runtime.frames.polygon import WHOLE, Box, Polygon, parse_polygon
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings
from moedge_runtime.mqtt.payloads import AnswerModel
from moedge_runtime.mqtt.spool import Spool
from moedge_runtime.mqtt.spool_clock import Moment
from runtime.daemon.fakes import reply
from runtime.frames.shapes import random_polygon, touched

CASES = 1000
NOW = datetime(2026, 11, 26, tzinfo=timezone.utc)
TOPIC = "t/d/gate/answer"
MODEL = AnswerModel(name="n", bundle="b", precision="int4")
PROCESSOR = ImageProcessor(
    ImageProcessorSettings.from_config(
        {
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"shortest_edge": 64 * 64, "longest_edge": 256 * 160},
        }
    )
)


class OnePicture:
    """A source of one frame."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image

    def frames(self) -> Iterator[Frame]:
        yield Frame(self._image, NOW, 0.0, 0, 0.0)

    def close(self) -> None:
        pass


def given(image: np.ndarray, masks: list[Polygon], crop: Box) -> np.ndarray:
    """What a camera with `masks` and `crop` gives of a picture."""
    frames = list(PreparedSource(OnePicture(image), Preparation(masks, crop)).frames())
    assert len(frames) == 1
    return frames[0].image


def kept(image: np.ndarray, model_input: np.ndarray, snapshot: Jpeg, number: int) -> tuple[str, bytes]:
    """What waits on the disk of a picture: the daemon's answer of a model that repeats every bit of its input."""
    job = Job("gate", "watch", Question("?"), Frame(image, NOW, 0.0, number, 0.0), False, lambda job, result: None)
    result = Result(reply(hashlib.sha256(model_input.tobytes()).hexdigest(), "stop"), 0.0, 1.0)
    answer = answer_payload(job, result, identifier=f"{number:026}", answered_at=NOW, synced=True, model=MODEL)
    return TOPIC, answer.model_copy(update={"snapshot": snapshot.reference("t/d/gate/snapshot")}).encode()


def written(directory: Path, messages: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """The files of a spool that keeps `messages`, by name."""
    spool = Spool(directory, max_bytes=1 << 24, max_age_s=3600.0, now=lambda: Moment(1, 1, b"b" * 16, True))
    spool.append(messages)
    assert spool.messages == len(messages)
    spool.close()
    return {path.name: path.read_bytes() for path in directory.glob("*.seg")}


def test_a_thousand_random_masks_leak_no_pixel_to_model_motion_snapshot_or_spool(tmp_path: Path) -> None:
    rng = np.random.default_rng(20261126)
    hidden_pixels = leaked = different = 0
    spooled: tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]] = ([], [])
    for case in range(CASES):
        height, width = (int(length) for length in rng.integers(20, 64, 2))
        masks = [random_polygon(rng) for _ in range(rng.integers(1, 4))]
        crop = WHOLE if case % 3 else Box(*rng.uniform(0, 0.4, 2), *rng.uniform(0.6, 1.0, 2))
        hidden = np.logical_or.reduce([touched(mask, height, width) for mask in masks])
        one = rng.integers(0, 256, (height, width, 3), np.uint8)
        other = np.where(hidden[..., None], rng.integers(0, 256, one.shape, np.uint8), one)
        different += not np.array_equal(one, other)
        seen, seen_too = given(one, masks, crop), given(other, masks, crop)
        rows, columns = crop.pixels(height, width)
        hidden_pixels += int(hidden[rows, columns].sum())
        leaked += int((seen[hidden[rows, columns]] != MASK_COLOUR).any(axis=-1).sum())
        leaked += int((seen != seen_too).any(axis=-1).sum())
        model_inputs = [PROCESSOR(image).pixel_values for image in (seen, seen_too)]
        assert np.array_equal(*model_inputs), "model input"
        assert np.array_equal(brightness(seen), brightness(seen_too)), "motion gate"
        limit = 4096 if case % 2 else 1024
        jpegs = [encode_jpeg(image, max_bytes=limit, quality=85, comment="moedge") for image in (seen, seen_too)]
        assert jpegs[0] == jpegs[1], "snapshot"
        for messages, image, model_input, jpeg in zip(spooled, (seen, seen_too), model_inputs, jpegs, strict=True):
            messages.append(kept(image, model_input, jpeg, case))
        assert seen.base is None and not np.shares_memory(seen, one), "the whole picture cannot be reached"
    assert leaked == 0
    assert hidden_pixels > 150_000
    assert different > 0.95 * CASES, "nearly every mask had something to hide"
    files = written(tmp_path / "one", spooled[0])
    assert sum(map(len, files.values())) > 500 * CASES
    assert files == written(tmp_path / "other", spooled[1]), "spool"


def test_a_frame_is_masked_before_the_camera_thread_looks_at_it() -> None:
    """A change under the mask is neither motion nor a sign of life."""
    masks = [parse_polygon("0.5,0,1,0,1,1,0.5,1")]
    rng = np.random.default_rng(3)
    preparation = Preparation(masks)
    detector = MotionDetector(MotionSettings(), {})
    check = PictureCheck(2.0, None, preparation.hidden)
    still = rng.integers(0, 256, (90, 160, 3), np.uint8)
    for second in range(5):
        image = still.copy()
        image[:, 80:] = rng.integers(0, 256, (90, 80, 3), np.uint8)
        shown = preparation(image)
        motion = detector.look(shown, float(second))
        assert motion.anywhere == (second == 0)
        finding = check.look(Frame(shown, NOW, float(second), second, float(second)))
        assert (finding is not None) == (second >= 2)


def test_a_large_mask_is_not_taken_for_a_black_picture() -> None:
    preparation = Preparation([parse_polygon([[0, 0], [1, 0], [1, 0.985], [0, 0.985]])])
    check = PictureCheck(None, 1.0, preparation.hidden)
    for second, level in enumerate((200, 200, 200, 5, 5, 5)):
        shown = preparation(np.full((720, 1280, 3), level, np.uint8))
        finding = check.look(Frame(shown, NOW, float(second), second, float(second)))
        assert (finding is not None) == (second >= 4), second


def test_a_picture_that_is_masked_as_a_whole_has_nothing_to_be_looked_at() -> None:
    preparation = Preparation([parse_polygon([[0, 0], [1, 0], [1, 1], [0, 1]])])
    shown = preparation(np.full((60, 80, 3), 200, np.uint8))
    assert not shown.any()
    check = PictureCheck(0.0, 0.0, preparation.hidden)
    assert check.look(Frame(shown, NOW, 0.0, 0, 0.0)) is None


def test_a_camera_that_changes_its_resolution_stays_masked() -> None:
    preparation = Preparation([parse_polygon("0,0,0.5,0,0.5,0.5,0,0.5")])
    for height, width in ((48, 64), (480, 640), (48, 64), (33, 77)):
        shown = preparation(np.full((height, width, 3), 255, np.uint8))
        assert not shown[: -(-height // 2), : -(-width // 2)].any()
        assert (shown[height // 2 + 2 :] == 255).all()


def test_a_camera_without_masks_gives_its_pictures_as_they_are() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image.flags.writeable = False
    assert Preparation()(image) is image


def test_the_camera_s_own_picture_is_not_painted() -> None:
    image = np.full((40, 40, 3), 9, np.uint8)
    before = hashlib.sha256(image).digest()
    assert not Preparation([parse_polygon("0,0,1,0,1,1,0,1")])(image).any()
    assert hashlib.sha256(image).digest() == before
