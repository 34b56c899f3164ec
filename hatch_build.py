"""Builds the expert core with CMake for wheels and editable installs: the custom build hook of hatchling.

Source: hatch's documentation, "Custom build hook" and "Wheel builder, build data".
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

ARCHITECTURE_VARIABLE = "MOEDGE_WHEEL_ARCH"
"""Names the processor that a wheel is for, when it is not the one that builds it."""

CROSS_COMPILERS = {"aarch64": ("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")}
"""By processor: the compiler of runtime/core/cmake/<processor>.cmake, and Debian's package of it."""

LIBRARY = "libmoedge_core.so"
INSTALLED_LIBRARY = f"moedge_runtime/inference/expert_core/{LIBRARY}"

LOG_TAIL_LINES = 20

INSTALL_COMPILER = "Install g++ 11 or newer (Debian: apt-get install g++), or install a wheel, which needs no compiler."


class CoreBuildError(Exception):
    """The expert core cannot be built; the message is a whole sentence for whoever installs moedge."""


class ExpertCoreHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts libmoedge_core.so into the wheel, or beside its Python code when the install is editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library and tag the wheel; `version` is "standard" or "editable"."""
        try:
            host = linux_processor()
            target = os.environ.get(ARCHITECTURE_VARIABLE) or host
            if version == "editable" and target != host:
                raise CoreBuildError(
                    f"{ARCHITECTURE_VARIABLE}={target} is for wheels; an editable install on this machine needs "
                    f"{host}. Unset it."
                )
            library = build_library(Path(self.root), host, target)
        except CoreBuildError as error:
            self.app.abort(str(error))
        if version == "editable":
            replace(library, Path(self.root, "runtime", INSTALLED_LIBRARY))
            return
        build_data["force_include"][str(library)] = INSTALLED_LIBRARY
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{target}"


def linux_processor() -> str:
    """The processor of this Python in the words of a wheel's tag, e.g. "x86_64"."""
    tags = list(platform_tags())
    for tag in tags:
        if tag.startswith("linux_"):
            return tag.removeprefix("linux_")
    raise CoreBuildError(
        f"The expert core of moedge is written for Linux; this Python is for {tags[0]}. Install moedge on Linux, for "
        f"example in a container (docker/README.md)."
    )


def build_library(root: Path, host: str, target: str) -> Path:
    """Build runtime/core for the processor `target` and return the library, which lies below build/."""
    options = []
    if target == host:
        require_compiler()
    else:
        options = [f"-DCMAKE_TOOLCHAIN_FILE={cross_toolchain(root, host, target)}"]
    cmake, ninja = require_tool("cmake"), require_tool("ninja")
    build = root / "build" / f"expert_core-{target}"
    forget_configuration(build)
    build.mkdir(parents=True, exist_ok=True)
    log = build / "build.log"
    log.unlink(missing_ok=True)
    run(
        [
            cmake,
            *("-S", str(root / "runtime" / "core"), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            "-DCMAKE_BUILD_TYPE=Release",
            *options,
        ],
        log,
    )
    run([cmake, "--build", str(build), "--target", "moedge_core"], log)
    return build / LIBRARY


def require_compiler() -> None:
    """Refuse to start without a C++ compiler: what CMake says about it is a screenful."""
    named = os.environ.get("CXX")
    candidates = [shlex.split(named)[0]] if named else ["c++", "g++", "clang++"]
    if any(shutil.which(candidate) for candidate in candidates):
        return
    cause = f"CXX={named} is not a program" if named else "there is no C++ compiler on PATH"
    raise CoreBuildError(f"The expert core of moedge could not be built: {cause}. {INSTALL_COMPILER}")


def cross_toolchain(root: Path, host: str, target: str) -> Path:
    """The CMake toolchain file for another processor than this machine's."""
    if target not in CROSS_COMPILERS:
        raise CoreBuildError(
            f"{ARCHITECTURE_VARIABLE}={target} cannot be built on {host}; possible here: "
            f"{', '.join(sorted({host, *CROSS_COMPILERS}))}."
        )
    compiler, package = CROSS_COMPILERS[target]
    if shutil.which(compiler) is None:
        raise CoreBuildError(
            f"The expert core of moedge could not be built for {target}: there is no {compiler} on PATH. "
            f"Install the cross compiler (Debian: apt-get install {package})."
        )
    return root / "runtime" / "core" / "cmake" / f"{target}.cmake"


def require_tool(name: str) -> str:
    """The path of a build requirement that is a program."""
    path = shutil.which(name)
    if path is None:
        raise CoreBuildError(
            f"The expert core of moedge could not be built: there is no {name} on PATH. "
            f"Run pip without --no-build-isolation, or `pip install {name}` first."
        )
    return path


def forget_configuration(build: Path) -> None:
    """Drop what CMake remembers about compilers and tools, which pip unpacks elsewhere each time; objects stay."""
    (build / "CMakeCache.txt").unlink(missing_ok=True)
    for compiler_facts in build.glob("CMakeFiles/[0-9]*"):
        shutil.rmtree(compiler_facts)


def run(command: list[str], log: Path) -> None:
    """Run a command with its output going to `log`; the end of that becomes the error."""
    with log.open("ab") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise CoreBuildError(
            f"The expert core of moedge could not be built: `{shlex.join(command)}` ended with status {status}. "
            f"{INSTALL_COMPILER} The end of {log}:\n{tail}"
        )


def replace(source: Path, target: Path) -> None:
    """Put a copy of `source` at `target` in one step: a process that has the old one loaded keeps it."""
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    beside.replace(target)
