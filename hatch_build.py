"""Builds the native libraries with CMake for wheels and editable installs: the custom build hook of hatchling.

Source: hatch's documentation, "Custom build hook" and "Wheel builder, build data".
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

ARCHITECTURE_VARIABLE = "MOEDGE_WHEEL_ARCH"
"""Names the processor that a wheel is for, when it is not the one that builds it."""

CROSS_COMPILERS = {"aarch64": ("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")}
"""By processor: the compiler of runtime/core/cmake/<processor>.cmake, and Debian's package of it."""


class Library(NamedTuple):
    """One native library.

    Attributes:
        name: For people.
        source: Directory of its CMakeLists.txt, below the project's root.
        target: Of CMake.
        installed: Its path in a wheel; the first directory of `source` is where that lies in the project.
        objects: Start of the name of its directory below build/.
    """

    name: str
    source: str
    target: str
    installed: str
    objects: str

    @property
    def beside_code(self) -> Path:
        """Where an editable install has it, below the project's root."""
        return Path(Path(self.source).parts[0], self.installed)


LIBRARIES = (
    Library(
        name="expert core",
        source="runtime/core",
        target="moedge_core",
        installed="moedge_runtime/inference/expert_core/libmoedge_core.so",
        objects="expert_core",
    ),
    Library(
        name="quantizing kernel",
        source="export/core",
        target="moedge_quantize",
        installed="moedge_export/libmoedge_quantize.so",
        objects="quantize",
    ),
)

LOG_TAIL_LINES = 20

INSTALL_COMPILER = "Install g++ 11 or newer (Debian: apt-get install g++), or install a wheel, which needs no compiler."


class LibraryBuildError(Exception):
    """A library cannot be built; the message is a whole sentence for whoever installs moedge."""


class LibrariesHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the libraries into the wheel, or beside their Python code when the install is editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the libraries and tag the wheel; `version` is "standard" or "editable"."""
        try:
            host = linux_processor()
            target = os.environ.get(ARCHITECTURE_VARIABLE) or host
            if version == "editable" and target != host:
                raise LibraryBuildError(
                    f"{ARCHITECTURE_VARIABLE}={target} is for wheels; an editable install on this machine needs "
                    f"{host}. Unset it."
                )
            built = [(library, build_library(Path(self.root), library, host, target)) for library in LIBRARIES]
        except LibraryBuildError as error:
            self.app.abort(str(error))
        if version == "editable":
            for library, path in built:
                replace(path, self.root / library.beside_code)
            return
        for library, path in built:
            build_data["force_include"][str(path)] = library.installed
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{target}"


def linux_processor() -> str:
    """The processor of this Python in the words of a wheel's tag, e.g. "x86_64"."""
    tags = list(platform_tags())
    for tag in tags:
        if tag.startswith("linux_"):
            return tag.removeprefix("linux_")
    raise LibraryBuildError(
        f"The native code of moedge is written for Linux; this Python is for {tags[0]}. Install moedge on Linux, for "
        f"example in a container (docker/README.md)."
    )


def build_library(root: Path, library: Library, host: str, target: str) -> Path:
    """Build `library` for the processor `target` and return its path, which is below build/."""
    options = []
    if target == host:
        require_compiler(library)
    else:
        options = [f"-DCMAKE_TOOLCHAIN_FILE={cross_toolchain(root, library, host, target)}"]
    cmake, ninja = require_tool(library, "cmake"), require_tool(library, "ninja")
    import fcntl  # noqa: PLC0415  systems that lack it are refused before, with what to do

    build = root / "build" / f"{library.objects}-{target}"
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # an editable install and a wheel may be built at the same time
        forget_configuration(build)
        log = build / "build.log"
        log.unlink(missing_ok=True)
        run(
            [
                cmake,
                *("-S", str(root / library.source), "-B", str(build), "-G", "Ninja"),
                f"-DCMAKE_MAKE_PROGRAM={ninja}",
                "-DCMAKE_BUILD_TYPE=Release",
                *options,
            ],
            library,
            log,
        )
        run([cmake, "--build", str(build), "--target", library.target], library, log)
    return build / Path(library.installed).name


def require_compiler(library: Library) -> None:
    """Refuse to start without a C++ compiler: what CMake says about it is a screenful."""
    named = os.environ.get("CXX")
    candidates = [shlex.split(named)[0]] if named else ["c++", "g++", "clang++"]
    if any(shutil.which(candidate) for candidate in candidates):
        return
    cause = f"CXX={named} is not a program" if named else "there is no C++ compiler on PATH"
    raise LibraryBuildError(f"The {library.name} of moedge could not be built: {cause}. {INSTALL_COMPILER}")


def cross_toolchain(root: Path, library: Library, host: str, target: str) -> Path:
    """The CMake toolchain file for another processor than this machine's."""
    if target not in CROSS_COMPILERS:
        raise LibraryBuildError(
            f"{ARCHITECTURE_VARIABLE}={target} cannot be built on {host}; possible here: "
            f"{', '.join(sorted({host, *CROSS_COMPILERS}))}."
        )
    compiler, package = CROSS_COMPILERS[target]
    if shutil.which(compiler) is None:
        raise LibraryBuildError(
            f"The {library.name} of moedge could not be built for {target}: there is no {compiler} on PATH. "
            f"Install the cross compiler (Debian: apt-get install {package})."
        )
    return root / "runtime" / "core" / "cmake" / f"{target}.cmake"


def require_tool(library: Library, name: str) -> str:
    """The path of a build requirement that is a program."""
    path = shutil.which(name)
    if path is None:
        raise LibraryBuildError(
            f"The {library.name} of moedge could not be built: there is no {name} on PATH. "
            f"Run pip without --no-build-isolation, or `pip install {name}` first."
        )
    return path


def forget_configuration(build: Path) -> None:
    """Drop what CMake remembers about compilers and tools, which pip unpacks elsewhere each time; objects stay."""
    (build / "CMakeCache.txt").unlink(missing_ok=True)
    for compiler_facts in build.glob("CMakeFiles/[0-9]*"):
        shutil.rmtree(compiler_facts)


def run(command: list[str], library: Library, log: Path) -> None:
    """Run a command with its output going to `log`; the end of that becomes the error."""
    with log.open("ab") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise LibraryBuildError(
            f"The {library.name} of moedge could not be built: `{shlex.join(command)}` ended with status {status}. "
            f"{INSTALL_COMPILER} The end of {log}:\n{tail}"
        )


def replace(source: Path, target: Path) -> None:
    """Put a copy of `source` at `target` in one step: a process that has the old one loaded keeps it."""
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    beside.replace(target)
