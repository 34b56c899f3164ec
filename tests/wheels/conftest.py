from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from wheels.installed import ROOT, Installed, run, wheel_for


@pytest.fixture(scope="session")
def wheels() -> Path:
    """The directory of the wheels that `make wheels` has made."""
    if "MOEDGE_WHEELS" not in os.environ:
        pytest.skip("needs wheels of this source: `make test-wheels` makes them")
    return ROOT / os.environ["MOEDGE_WHEELS"]


@pytest.fixture(scope="session")
def x86(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel for x86-64 in a new virtual environment, where nothing but its own programs can be found."""
    folder = tmp_path_factory.mktemp("x86") / "venv"
    run(sys.executable, "-m", "venv", folder, environment=os.environ)
    programs = folder / "bin"
    environment = {**os.environ, "PATH": str(programs), "PYTHONPATH": ""}
    for name in ("cc", "c++", "g++", "gcc", "clang", "cmake", "ninja", "make"):
        assert shutil.which(name, path=environment["PATH"]) is None
    installed = Installed(programs / "python", environment)
    installed.run("-m", "pip", "install", "--quiet", wheel_for("x86_64", wheels))
    return installed


@pytest.fixture(scope="session")
def arm64(wheels: Path) -> Installed:
    """The wheel for aarch64 in Debian's arm64 userland, run by qemu."""
    here = ROOT / "tests" / "wheels"
    pip = Path(sys.executable).with_name("pip")
    run(here / "arm64-userland", pip, wheel_for("aarch64", wheels), environment=os.environ)
    return Installed(here / "arm64-python", os.environ)
