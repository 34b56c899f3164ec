"""What is fuzzed: functions of bytes that say whether these were taken, and raise nothing whatever the bytes are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from fuzz.hostile_camera import HostileCamera
from moedge_runtime.camera import SourceOptions, open_source
from moedge_runtime.camera.jpeg_splitter import JpegSplitter
from moedge_runtime.camera.multipart_splitter import MultipartSplitter
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.config import load_config
from moedge_runtime.config.edit import with_polygon, without_mask
from moedge_runtime.errors import CameraError, ConfigError, RequestError
from moedge_runtime.image_file import decode_image
from moedge_runtime.mqtt.payloads import Response
from moedge_runtime.mqtt.requests import COMMANDS, parse_request, transaction_of

TRIANGLE = ((0.1, 0.1), (0.5, 0.1), (0.5, 0.5))
IMPATIENT = Timeouts(first_frame_s=0.5, stall_s=0.5)
MOST_FRAMES = 50


def config(data: bytes) -> bool:
    """A moedge.yaml, and a mask put into it and taken out again."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "moedge.yaml"
        path.write_bytes(data)
        try:
            loaded = load_config(path, {})
        except ConfigError:
            return False
        json.dumps(loaded.public(), allow_nan=False)
        for name, camera in loaded.cameras.items():
            try:
                path.write_text(with_polygon(data.decode(), name, "masks", TRIANGLE))
                changed = load_config(path, {}).cameras[name].masks
                assert changed == (*camera.masks, TRIANGLE)
                path.write_text(without_mask(path.read_text(), name, len(camera.masks)))
            except ConfigError as error:
                assert error.key == "config.not_editable", error
                continue
            assert load_config(path, {}).model_dump() == loaded.model_dump()
    return True


def request(data: bytes) -> bool:
    """A request over MQTT: its verb, a zero, its payload."""
    verb, _, payload = data.partition(b"\0")
    transaction_of(payload)
    try:
        command = parse_request(verb.decode(errors="replace"), payload)
    except RequestError as error:
        assert error.key.startswith("request.")
        return False
    assert verb.decode() in COMMANDS
    json.loads(Response(status="ok", data=command.model_dump(mode="json")).encode())
    return True


def jpeg(data: bytes) -> bool:
    """Pictures: a file, a stream of pictures, and a multipart stream, both the same however they are cut."""
    half = len(data) // 2
    for make in (JpegSplitter, lambda: MultipartSplitter(b"frame")):
        whole, cut = make(), make()
        try:
            pictures = whole.feed(data)
            assert cut.feed(data[:half]) + cut.feed(data[half:]) == pictures
        except CameraError:
            continue
        for picture in pictures:
            _decoded(picture)
    return _decoded(data)


def rtsp(data: bytes) -> bool:
    """What a camera answers to the requests of RTSP, or sends as video afterwards; see HostileCamera."""
    frames = 0
    with HostileCamera(data) as camera:
        source = open_source(camera.url, SourceOptions(timeouts=IMPATIENT))
        try:
            for frame in source.frames():
                assert frame.image.ndim == 3 and frame.image.shape[2] == 3
                frames += 1
                if frames == MOST_FRAMES:
                    source.close()
        except CameraError as error:
            assert error.key.startswith("camera.")
    return frames > 0


def _decoded(picture: bytes) -> bool:
    try:
        image = decode_image(picture, "the picture")
    except CameraError:
        return False
    assert image.ndim == 3 and image.shape[2] == 3
    return True


TARGETS: dict[str, Callable[[bytes], bool]] = {"config": config, "request": request, "jpeg": jpeg, "rtsp": rtsp}
CORPUS = Path(__file__).with_name("corpus")
