"""The images of docker/, run by buildah. `make test-docker` builds them and runs this in a network of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import moedge_runtime
import pytest
from docker.conftest import Measured, Panel
from docker.container import Container, image_config
from moedge_panel.truth import VideoTruth
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.listening import wait_until_listening
from runtime.mqtt.listener import Listener
from wheels.installed import ROOT, run

pytestmark = pytest.mark.slow

RUNTIME, RUNTIME_ARM64 = "localhost/moedge-runtime:amd64", "localhost/moedge-runtime:arm64"
EXPORT = "localhost/moedge-export:amd64"
QUESTION = "What is the reading?"
VIDEO = ROOT / "examples/panel/video"
ANSWERS = 10
START_S = 300.0
MOST_RUNTIME_MB = 600.0
MOST_EXPORT_MB = 2000.0
UID = 990
# ONNX Runtime 1.30 and later, which the image has, crash in qemu-user 7.2.
OLDER_ONNXRUNTIME = {
    ROOT / "build/docker/arm64-packages/onnxruntime": "/usr/lib/moedge/lib/python3.11/site-packages/onnxruntime"
}


@pytest.fixture(scope="module")
def truth() -> VideoTruth:
    return VideoTruth.read(VIDEO / "truth.jsonl")


@pytest.mark.parametrize(
    ("image", "most"), [(RUNTIME, MOST_RUNTIME_MB), (RUNTIME_ARM64, MOST_RUNTIME_MB), (EXPORT, MOST_EXPORT_MB)]
)
def test_images_are_small(container_of: Callable[..., Container], measured: Measured, image: str, most: float) -> None:
    size = container_of(image).megabytes()
    measured(f"{image.removeprefix('localhost/')}, all files", size, "MB", most, size <= most)


@pytest.mark.parametrize("image", [RUNTIME, RUNTIME_ARM64, EXPORT])
def test_images_run_as_a_user_without_privileges_and_hold_no_compiler(
    container_of: Callable[..., Container], image: str
) -> None:
    container = container_of(image)
    assert image_config(image)["User"] == str(UID)
    assert container.run("id", "--user").strip() == str(UID)
    assert container.start("sh", "-c", "command -v gcc g++ cc pip").stdout == ""
    assert container.start("sh", "-c", "ls /src /dist").stdout == ""


@pytest.mark.parametrize("image", [RUNTIME, RUNTIME_ARM64])
def test_the_runtime_knows_its_version(container_of: Callable[..., Container], image: str) -> None:
    assert image_config(image)["Entrypoint"] == ["moedge"]
    assert container_of(image).run("moedge", "--version") == f"moedge, version {moedge_runtime.__version__}\n"


@pytest.mark.parametrize(("image", "volumes"), [(RUNTIME, {}), (RUNTIME_ARM64, OLDER_ONNXRUNTIME)])
def test_the_doctor_looks_at_the_machine(
    container_of: Callable[..., Container], image: str, volumes: dict[Path, str]
) -> None:
    done = container_of(image, volumes).start("moedge", "doctor", "--json")
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["checks"], done.stdout


def test_the_runtime_image_answers_the_demos_question(
    container_of: Callable[..., Container], measured: Measured, bundle: Path, panel: Panel
) -> None:
    container = container_of(RUNTIME, {bundle: "/bundle", panel.picture: "/panel.png"})
    begun = time.monotonic()
    answer = container.run("moedge", "ask", "/bundle", QUESTION, "--image", "/panel.png", "--no-stream").strip()
    seconds = round(time.monotonic() - begun, 1)
    right = int(answer == panel.reading)
    measured("right answers of moedge ask in the image", right, "of 1", 1, right == 1)
    measured("moedge ask in the image", seconds, "s", START_S, seconds <= START_S)


def test_the_daemon_of_compose_answers_is_healthy_is_scraped_and_ends(
    container_of: Callable[..., Container],
    measured: Measured,
    bundle: Path,
    truth: VideoTruth,
    tmp_path: Path,
) -> None:
    """The files that compose.yaml mounts, the image that it builds; broker and Prometheus are Debian's."""
    container = container_of(
        RUNTIME, {ROOT / "docker/moedge.yaml": "/etc/moedge/moedge.yaml", bundle: "/bundle", VIDEO: "/video"}
    )
    image = image_config(RUNTIME)
    check = image["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert container.start(*check[1:]).returncode != 0, "nothing runs yet"
    with (
        service(tmp_path, "mosquitto", "-c", ROOT / "docker/mosquitto.conf", port=1883),
        service(tmp_path, *prometheus(tmp_path), port=9090),
        Listener(BrokerAddress("127.0.0.1", 1883), "moedge/demo/#") as listener,
        started(tmp_path, container.command(*image["Entrypoint"], *image["Cmd"])) as daemon,
    ):
        answers = [json.loads(payload) for payload in wait_for(lambda: enough(listener))]
        for answer in answers:
            answer["frame"]["index"] %= truth.spans[-1]["end_frame"]  # the camera shows the video again and again
        right = sum(truth.is_right(answer) for answer in answers)
        measured(
            "right answers of the daemon", right, f"of {len(answers)}", len(answers) - 1, right >= len(answers) - 1
        )
        healthy = container.run(*check[1:])
        assert json.loads(healthy)["ready"] is True, healthy
        (up,) = wait_for(lambda: query('up{job="moedge"} == 1'))
        assert up["metric"]["instance"] == "moedge:9740"
        (counted,) = wait_for(lambda: query("sum(moedge_answers_total) > 0"))
        assert float(counted["value"][1]) >= 1
        inside = process_of(daemon.pid)
        assert json.loads(container.run("cat", "/run/moedge/model.json"))["answers"] >= ANSWERS
        assert f"\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in Path(f"/proc/{inside}/status").read_text()
        os.kill(inside, signal.SIGTERM)
        listener.message("moedge/demo/status", "stopped")
        code = daemon.wait(60)
        measured("exit code of the daemon after SIGTERM", code, "", 0, code == 0)


def test_the_export_image_exports_the_demo_model(
    container_of: Callable[..., Container],
    measured: Measured,
    bundle: Path,
    panel: Panel,
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)
    container = container_of(
        EXPORT, {ROOT / "examples/panel/checkpoint": "/checkpoint", work: "/bundles"}, frozenset({work})
    )
    begun = time.monotonic()
    container.run("moedge", "export", "/checkpoint", "/bundles/panel-int4", "--precision", "int4")
    seconds = round(time.monotonic() - begun, 1)
    measured("moedge export in the image", seconds, "s", START_S, seconds <= START_S)
    exported = work / "panel-int4"
    moedge = (sys.executable, "-m", "moedge_runtime")
    run(*moedge, "verify", exported, environment=os.environ)
    asked = run(*moedge, "ask", exported, QUESTION, "--image", panel.picture, "--no-stream", environment=os.environ)
    assert asked.strip() == panel.reading
    same = int((exported / "experts.bin").read_bytes() == (bundle / "experts.bin").read_bytes())
    measured("experts of the export image are those exported without it", same, "", 1, same == 1)


def prometheus(directory: Path) -> tuple[object, ...]:
    """Debian's Prometheus with the configuration of compose.yaml."""
    config = ROOT / "docker/prometheus.yml"
    run("promtool", "check", "config", config, environment=os.environ)
    return ("prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}")


def query(expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers."""
    url = "http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=10) as response:
        return list(json.load(response)["data"]["result"])


def enough(listener: Listener) -> list[bytes]:
    """Answers, once there are ANSWERS of them."""
    answers = listener.on("moedge/demo/panel/answer")
    return answers[:ANSWERS] if len(answers) >= ANSWERS else []


def wait_for(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition()`."""
    deadline_s = time.monotonic() + START_S
    while not (value := condition()):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    return value


def process_of(pid: int) -> int:
    """The process of moedge below buildah's `pid`: the first that is Python."""
    waiting = [pid]
    while waiting:
        each = waiting.pop(0)
        if re.search(r"python3?(\.\d+)?$", Path(f"/proc/{each}/exe").readlink().name):
            return each
        for task in Path(f"/proc/{each}/task").iterdir():
            waiting += [int(child) for child in (task / "children").read_text().split()]
    raise AssertionError(f"no Python runs below process {pid}")


@contextmanager
def service(directory: Path, *command: object, port: int) -> Iterator[None]:
    """A program that listens on a port of this network."""
    with started(directory, [str(word) for word in command]) as process:
        assert wait_until_listening(process, "127.0.0.1", port, START_S), log_of(directory, command).read_text()
        yield


@contextmanager
def started(directory: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended with the block."""
    with log_of(directory, command).open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def log_of(directory: Path, command: tuple[object, ...] | list[str]) -> Path:
    return directory / f"{Path(str(command[0])).name}.log"
