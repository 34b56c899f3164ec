from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from docker.container import Container, buildah
from moedge_panel.render import draw_panel
from moedge_panel.video import video_states, video_style
from wheels.installed import ROOT, run

FIGURES = ROOT / "build/docker/figures.jsonl"
Measured = Callable[[str, float, str, float, bool], None]


@pytest.fixture(scope="session")
def images() -> None:
    """Images that tests/docker/build-images has made."""
    if "MOEDGE_DOCKER" not in os.environ:
        pytest.skip("needs images of this source: `make test-docker` builds them")


@pytest.fixture(scope="module")
def container_of(images: None) -> Iterator[Callable[..., Container]]:
    """Makes a container of an image, with volumes; it is removed at the end."""
    names = []

    def make(image: str, volumes: dict[Path, str] | None = None, writable: frozenset[Path] = frozenset()) -> Container:
        names.append(buildah("from", "--pull-never", image).strip())
        return Container(names[-1], volumes or {}, writable)

    yield make
    for name in names:
        buildah("rm", name)


@pytest.fixture(scope="session")
def bundle(images: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in INT4, exported outside of any container."""
    bundle = tmp_path_factory.mktemp("bundle") / "panel-int4"
    export = (sys.executable, "-m", "moedge_runtime", "export", "--precision", "int4")
    run(*export, ROOT / "examples/panel/checkpoint", bundle, environment=os.environ)
    return bundle


class Panel(NamedTuple):
    """A picture, and what its display reads."""

    picture: Path
    reading: str


@pytest.fixture(scope="session")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    state = video_states(1)[0]
    path = tmp_path_factory.mktemp("picture") / "panel.png"
    draw_panel(state, video_style()).image.save(path)
    path.chmod(0o644)
    return Panel(path, str(state.reading))


@pytest.fixture(scope="session")
def measured() -> Measured:
    """Notes a figure for `make test-docker`, and fails if it is not what it should be."""

    def note(name: str, value: float, unit: str, bound: float, ok: bool) -> None:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        with FIGURES.open("a") as file:
            file.write(json.dumps({"name": name, "value": value, "unit": unit, "bound": bound, "ok": ok}) + "\n")
        assert ok, f"{name}: {value} {unit}; bound: {bound}"

    return note
