"""What whoever installs from source is told when a native library cannot be built."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
hatch_build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hatch_build)


CORE, QUANTIZING_KERNEL = hatch_build.LIBRARIES


def refusal(root: Path, target: str, library=CORE) -> str:
    with pytest.raises(hatch_build.LibraryBuildError) as caught:
        hatch_build.build_library(root, library, "x86_64", target)
    return str(caught.value)


def program(directory: Path, name: str, script: str = "exit 0") -> None:
    """A program of that name which does what the script says."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The only directory of PATH, empty."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv("CXX", raising=False)
    return directory


def test_without_a_compiler_it_is_said_which_to_install_or_to_take_a_wheel(tmp_path, programs):
    assert refusal(tmp_path, "x86_64") == (
        "The expert core of moedge could not be built: there is no C++ compiler on PATH. Install g++ 11 or newer "
        "(Debian: apt-get install g++), or install a wheel, which needs no compiler."
    )


def test_a_compiler_that_is_named_and_not_there_is_an_error_although_another_one_is(tmp_path, programs, monkeypatch):
    program(programs, "g++")
    monkeypatch.setenv("CXX", "icpx -O2")
    assert "could not be built: CXX=icpx -O2 is not a program. Install g++ 11" in refusal(tmp_path, "x86_64")


@pytest.mark.parametrize("missing", ["cmake", "ninja"])
def test_without_a_build_tool_it_is_said_how_pip_brings_it(tmp_path, programs, missing):
    for name in {"g++", "cmake", "ninja"} - {missing}:
        program(programs, name)
    assert refusal(tmp_path, "x86_64") == (
        f"The expert core of moedge could not be built: there is no {missing} on PATH. Run pip without "
        f"--no-build-isolation, or `pip install {missing}` first."
    )


def test_without_a_cross_compiler_it_is_said_which_package_has_it(tmp_path, programs):
    assert refusal(tmp_path, "aarch64") == (
        "The expert core of moedge could not be built for aarch64: there is no aarch64-linux-gnu-g++ on PATH. Install "
        "the cross compiler (Debian: apt-get install g++-aarch64-linux-gnu)."
    )


def test_a_processor_that_cannot_be_built_for_is_refused_with_those_that_can(tmp_path, programs):
    assert refusal(tmp_path, "riscv64") == (
        "MOEDGE_WHEEL_ARCH=riscv64 cannot be built on x86_64; possible here: aarch64, x86_64."
    )


def test_what_the_compiler_says_comes_with_what_to_do(tmp_path, programs):
    for name in ("g++", "ninja"):
        program(programs, name)
    program(programs, "cmake", "echo 'core.cpp:1: error: no concepts in this g++'; exit 3")
    message = refusal(tmp_path, "x86_64")
    assert "ended with status 3. Install g++ 11 or newer" in message
    assert message.endswith("core.cpp:1: error: no concepts in this g++")
    assert str(tmp_path / "build" / "expert_core-x86_64" / "build.log") in message


def test_two_builds_in_one_tree_wait_for_each_other(tmp_path, programs):
    for name in ("g++", "ninja"):
        program(programs, name)
    program(programs, "cmake", f"/bin/mkdir {tmp_path}/building && /bin/sleep 0.1 && /bin/rmdir {tmp_path}/building")
    with ThreadPoolExecutor(3) as pool:
        for build in [pool.submit(hatch_build.build_library, tmp_path, CORE, "x86_64", "x86_64") for _ in range(3)]:
            build.result()


def test_it_is_said_which_library_cannot_be_built(tmp_path, programs):
    message = refusal(tmp_path, "x86_64", QUANTIZING_KERNEL)
    assert message.startswith("The quantizing kernel of moedge could not be built: there is no C++ compiler on PATH.")


@pytest.mark.parametrize("library", hatch_build.LIBRARIES, ids=lambda library: library.target)
def test_an_editable_install_puts_a_library_where_the_code_looks_for_it(library):
    from moedge_export import quantize_library
    from moedge_runtime.inference.expert_core import library as core_library

    looked_for = {"moedge_core": core_library.LIBRARY, "moedge_quantize": quantize_library.LIBRARY}
    assert ROOT / library.beside_code == looked_for[library.target]
