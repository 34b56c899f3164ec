"""Builds the expert core's fuzz target with clang and runs it for a while, from its seeds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from runtime.core.test_core_builds import JOBS, ROOT, SOURCE, run

SEEDS = SOURCE / "tests" / "fuzz_seeds"
RUN_S = 20
CLANG = "clang++"
RUNTIME = "libclang_rt.fuzzer-x86_64.a"


@pytest.mark.slow
def test_arbitrary_bundles_options_and_calls_never_crash_the_core(tmp_path: Path) -> None:
    missing = [tool for tool in ("cmake", CLANG) if shutil.which(tool) is None]
    if missing or not Path(run(CLANG, f"-print-file-name={RUNTIME}").strip()).is_absolute():
        pytest.skip("clang or its fuzzer is not installed (runtime/core/tests/README.md names the Debian packages)")
    directory = ROOT / "build" / "core-fuzz"
    options = ("-DMOEDGE_CORE_TESTS=ON", "-DMOEDGE_FUZZ=ON", f"-DCMAKE_CXX_COMPILER={CLANG}")
    run("cmake", "-S", SOURCE, "-B", directory, *options)
    run("cmake", "--build", directory, "--target", "fuzz_core", "-j", JOBS)
    # What it finds goes to the first directory; the seeds stay as they are.
    found = tmp_path / "found"
    found.mkdir()
    log = run(
        directory / "tests" / "fuzz_core",
        *(f"-max_total_time={RUN_S}", "-seed=1", "-len_control=0", "-timeout=60", "-rss_limit_mb=4096"),
        f"-artifact_prefix={tmp_path}/",
        *(found, SEEDS),
    )
    runs = re.search(r"^Done (\d+) runs", log, re.MULTILINE)
    assert runs is not None, log[-8000:]
    assert int(runs[1]) > len(list(SEEDS.iterdir()))
