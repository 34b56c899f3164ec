"""Builds the expert core's own tests in every way that they are to hold in, and runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "runtime" / "core"
GOOGLETEST = Path("/usr/src/googletest")
TOOLCHAIN = SOURCE / "cmake" / "aarch64.cmake"
QEMU = ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu")
# Two cores are what CI has; a hang is far beyond what a cold build on them takes.
JOBS = 2
DEADLINE_S = 900


@dataclass(frozen=True)
class Build:
    """One way to build and run.

    Attributes:
        name: Of the folder below build/.
        options: For cmake.
        runner: What starts the tests.
        tools: Programs that must be there, besides cmake.
        executed: Parts of names of tests that must have run, not been skipped.
    """

    name: str
    options: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    tools: tuple[str, ...] = ("g++",)
    executed: tuple[str, ...] = field(
        default=("BitForBitAtEveryRowCount/scalar", "Identity.", "Faults.", "GoldenBits.", "Dense.", "Vision.")
    )


ISA_CLAIMS = ("BitForBitAtEveryRowCount", "EveryArchitecture", "EveryMachine")
"""Ends of the names of tests of one instruction set each."""

PLAIN = Build("plain")
ADDRESS = Build("address-undefined", ("-DMOEDGE_SANITIZE=address,undefined",))
# TSan of gcc 12 wants addresses where kernels since 6.6 no longer put them.
THREAD = Build("thread", ("-DMOEDGE_SANITIZE=thread",), ("setarch", "-R"), ("g++", "setarch"))
AARCH64 = Build(
    "aarch64",
    (f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}",),
    QEMU,
    ("aarch64-linux-gnu-g++", QEMU[0]),
    (
        "Isa.OnAarch64TheBestKernelsOfTheProcessorAreChosen",
        *(f"{claim}/{isa}" for claim in ISA_CLAIMS for isa in ("neondot", "neoni8mm")),
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize("build", [PLAIN, ADDRESS, THREAD, AARCH64], ids=lambda build: build.name)
def test_the_cores_own_tests_pass_and_none_that_matters_is_skipped(build: Build) -> None:
    results = results_of(build)
    assert not [name for name, result in results.items() if result == "failed"]
    for part in build.executed:
        assert [name for name, result in results.items() if part in name and result == "passed"], part


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processor", "best", "missing"),
    [("cortex-a72", "scalar", ("neondot", "neoni8mm")), ("cortex-a76", "neondot", ("neoni8mm",))],
)
def test_an_older_arm_processor_gets_the_kernels_that_it_can_run(
    processor: str, best: str, missing: tuple[str, ...]
) -> None:
    results = results_of(AARCH64, "Isa.*:*Identity.*Instruction*:*GoldenBits*:CApi.*", {"QEMU_CPU": processor})
    assert "failed" not in results.values()
    golden = "GoldenBits.AConversationGivesThemOnEveryMachine"
    assert results[f"{golden}/{best}"] == "passed"
    assert {results[f"{golden}/{isa}"] for isa in missing} == {"skipped"}
    assert results["Isa.OnAarch64TheBestKernelsOfTheProcessorAreChosen"] == "passed"
    assert results["CApi.AConversationFromAFileGivesWhatTheCoreGivesFromMemory"] == "passed"


def results_of(build: Build, tests: str = "*", environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Builds and runs: "passed", "failed" or "skipped" by the full name of the test."""
    missing = [tool for tool in ("cmake", *build.tools) if shutil.which(tool) is None]
    missing += [] if (GOOGLETEST / "CMakeLists.txt").exists() else [str(GOOGLETEST)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (runtime/core/README.md names the Debian packages)")
    directory = ROOT / "build" / f"core-tests-{build.name}"
    run("cmake", "-S", SOURCE, "-B", directory, "-DMOEDGE_CORE_TESTS=ON", *build.options)
    run("cmake", "--build", directory, "--target", "moedge_core_tests", "-j", min(JOBS, os.cpu_count() or 1))
    report = directory / "results.json"
    report.unlink(missing_ok=True)
    run(
        *build.runner,
        directory / "tests" / "moedge_core_tests",
        "--gtest_brief=1",
        f"--gtest_filter={tests}",
        f"--gtest_output=json:{report}",
        environment=environment,
    )
    return {
        f"{test['classname']}.{test['name']}": "failed" if "failures" in test else outcome(test["result"])
        for suite in json.loads(report.read_text())["testsuites"]
        for test in suite["testsuite"]
    }


def outcome(result: str) -> str:
    return {"COMPLETED": "passed", "SKIPPED": "skipped"}[result]


def run(*command: object, environment: Mapping[str, str] | None = None) -> str:
    """What the command prints; the test fails with that if the command does."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout
