from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian.chroot import Chroot
from wheels.installed import ROOT, Installed, run, wheel_for

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def packages() -> Path:
    """The directory of the packages that `make deb` has made."""
    if "MOEDGE_DEB" not in os.environ:
        pytest.skip("needs packages of this source: `make test-deb` makes them")
    return ROOT / os.environ["MOEDGE_DEB"]


@pytest.fixture(scope="session")
def amd64(packages: Path) -> Path:
    return package_for("amd64", packages)


@pytest.fixture(scope="session")
def arm64_package(packages: Path) -> Path:
    return package_for("arm64", packages)


def package_for(architecture: str, packages: Path) -> Path:
    """The only package for a processor."""
    (package,) = packages.glob(f"moedge_*~deb12_{architecture}.deb")
    return package


@pytest.fixture(scope="module")
def debian(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    """Debian 12 for amd64 with systemd, unpacked anew; it comes from the mirror once."""
    archive = ROOT / "build" / "debian12-amd64.tar"
    if not archive.exists():
        run(HERE / "debian12-archive", archive, environment=os.environ)
    chroot = Chroot(tmp_path_factory.mktemp("debian") / "root")
    chroot.root.mkdir()
    run("tar", "--extract", "--file", archive, "--directory", chroot.root, environment=os.environ)
    yield chroot
    shutil.rmtree(chroot.root)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in INT4."""
    bundle = tmp_path_factory.mktemp("bundle") / "panel-int4"
    export = (sys.executable, "-m", "moedge_runtime", "export", "--precision", "int4")
    run(*export, ROOT / "examples" / "panel" / "checkpoint", bundle, environment=os.environ)
    return bundle


@pytest.fixture(scope="session")
def arm64(arm64_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The arm64 package unpacked into the userland of tests/wheels, and its Python in qemu.

    No script of the package is run: nothing here starts arm64 programs by itself.
    """
    pip = Path(sys.executable).with_name("pip")
    wheel = wheel_for("aarch64", ROOT / "dist")
    run(ROOT / "tests" / "wheels" / "arm64-userland", pip, wheel, environment=os.environ)
    root = tmp_path_factory.mktemp("arm64") / "root"
    run("cp", "--archive", "--link", ROOT / "build" / "arm64" / "rootfs", root, environment=os.environ)
    run("dpkg-deb", "--extract", arm64_package, root, environment=os.environ)
    starter = root.with_name("python")
    starter.write_text(
        "#!/bin/sh\n"
        f"QEMU_CPU=cortex-a76 QEMU_LD_PREFIX={root} exec qemu-aarch64-static -0 {root}/usr/lib/moedge/bin/python "
        f'{root}/usr/lib/moedge/bin/python "$@"\n'
    )
    starter.chmod(0o755)
    yield Installed(starter, {**os.environ, "PYTHONPATH": ""})
    subprocess.run(["rm", "-rf", str(root)], check=True)
