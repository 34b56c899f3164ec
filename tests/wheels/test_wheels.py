"""The wheels of `make wheels`, installed: on x86-64 without a compiler, and as a 64-bit ARM board would, in qemu."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import moedge_runtime
import numpy as np
import pytest
from moedge_panel.render import draw_panel
from moedge_panel.video import video_states, video_style
from runtime.inference.expert_core.bundles import PRECISIONS, inputs, name_of, write_bundle
from wheels.installed import DEADLINE_S, ROOT, Installed, run, wheel_for

COMPUTE = ROOT / "tests" / "wheels" / "compute.py"
QUANTIZE = ROOT / "tests" / "wheels" / "quantize.py"
LIBRARIES = ["moedge_export/libmoedge_quantize.so", "moedge_runtime/inference/expert_core/libmoedge_core.so"]
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""Source: elf(5), e_machine, and elf.h."""

QUICK_IN_QEMU = "not (test_paging_never_changes_a_bit and (readers or threads or prefetch or direct))"
"""Paging is tried with every budget and its options left alone; with these it is 84 tests more."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Computed:
    """What compute.py did: its results by case/layer/tokens, and with what.

    Attributes:
        dot_products: How many of the core's dot-product instructions have been executed, each counted once; of ARM.
    """

    results: dict[str, np.ndarray]
    machine: str
    best_isa: str
    used: list[str]
    dot_products: int


@pytest.fixture(scope="module")
def cases(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts of every precision in an odd shape, and inputs."""
    folder = tmp_path_factory.mktemp("cases")
    for precision in PRECISIONS:
        bundle = write_bundle(folder / name_of(precision), precision, 116, 84)
        layers = [f"layers/{layer:02}.onnx" for layer in range(bundle.manifest.model.text.num_hidden_layers)]
        graphs = bundle.manifest.graphs.model_copy(update={"layers": layers})
        manifest = bundle.manifest.model_copy(update={"graphs": graphs})
        (bundle.path / "manifest.json").write_text(manifest.model_dump_json())
        x, logits = inputs(bundle, 40)
        np.savez(bundle.path / "inputs.npz", moe_input=x, router_logits=logits, tokens=[1, 2, 3, 8, 9, 40])
    return folder


@pytest.fixture(scope="module")
def on_x86(x86: Installed, cases: Path) -> Computed:
    return compute(x86, cases)


@pytest.fixture(scope="module")
def on_arm64(arm64: Installed, cases: Path) -> Computed:
    return compute(arm64, cases)


@pytest.mark.parametrize("processor", ELF_MACHINES)
def test_a_wheel_holds_libraries_of_its_processor_for_any_python_and_glibc_2_35(processor: str, wheels: Path) -> None:
    wheel = wheel_for(processor, wheels)
    assert wheel.name == f"moedge-{moedge_runtime.__version__}-py3-none-manylinux_2_35_{processor}.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert sorted(name for name in archive.namelist() if re.search(r"\.so(\.|$)", name)) == LIBRARIES
        for library in LIBRARIES:
            assert int.from_bytes(archive.read(library)[18:20], "little") == ELF_MACHINES[processor]


def test_without_a_compiler_the_x86_wheel_installs_and_starts(x86: Installed) -> None:
    assert x86.run("-m", "moedge_runtime", "--version") == f"moedge, version {moedge_runtime.__version__}\n"


def test_without_a_compiler_the_x86_wheel_computes(on_x86: Computed) -> None:
    assert on_x86.machine == "x86_64"
    assert on_x86.used == [on_x86.best_isa]
    assert all(np.abs(result).max() > 0 for result in on_x86.results.values())


def test_without_a_compiler_installing_from_source_says_what_to_do(x86: Installed) -> None:
    command = [x86.python, "-m", "pip", "install", ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=x86.environment, timeout=DEADLINE_S)
    assert done.returncode != 0
    assert (
        "The expert core of moedge could not be built: there is no C++ compiler on PATH. Install g++ 11 or newer "
        "(Debian: apt-get install g++), or install a wheel, which needs no compiler."
    ) in done.stdout + done.stderr


def test_on_the_core_of_the_boards_the_dot_product_kernels_are_chosen(on_arm64: Computed) -> None:
    assert (on_arm64.machine, on_arm64.best_isa, on_arm64.used) == ("aarch64", "neondot", ["neondot"])


def test_on_the_core_of_the_boards_dot_products_are_what_is_executed(
    on_arm64: Computed, arm64: Installed, cases: Path
) -> None:
    assert on_arm64.dot_products > 100
    assert compute(arm64, cases, "scalar").dot_products == 0


def test_on_arm64_the_experts_give_the_bits_of_x86(on_arm64: Computed, on_x86: Computed) -> None:
    assert on_arm64.results.keys() == on_x86.results.keys()
    assert len(on_x86.results) == len(PRECISIONS) * 3 * 6
    for name, wanted in on_x86.results.items():
        np.testing.assert_array_equal(on_arm64.results[name].view(np.uint32), wanted.view(np.uint32), err_msg=name)


def test_on_arm64_quantizing_gives_the_bits_of_x86(arm64: Installed, x86: Installed) -> None:
    on_arm64, on_x86 = (json.loads(installed.run(QUANTIZE)) for installed in (arm64, x86))
    assert len(on_x86) == 72
    assert on_arm64 == on_x86


def test_boards_are_planned_from_either_wheel(arm64: Installed, x86: Installed) -> None:
    plans = [
        each.run("-m", "moedge_runtime", "plan", "qwen3-vl-30b-a3b@int4", "--all", "--json") for each in (arm64, x86)
    ]
    on_arm64, on_x86 = ({board["device"]: board["memory"] for board in json.loads(plan)["boards"]} for plan in plans)
    assert len(on_x86) == 10
    assert on_arm64 == on_x86


def test_on_arm64_a_picture_of_the_demo_is_answered_rightly(arm64: Installed, tmp_path: Path) -> None:
    bundle, picture = tmp_path / "panel-int4", tmp_path / "panel.png"
    export = (sys.executable, "-m", "moedge_runtime", "export", "--precision", "int4")
    run(*export, ROOT / "examples" / "panel" / "checkpoint", bundle, environment=os.environ)
    state = video_states(1)[0]
    draw_panel(state, video_style()).image.save(picture)
    lamps = ", ".join(f'"{lamp}"' for lamp in state.lit)
    report = f'{{"reading": {state.reading}, "lamps": [{lamps}], "gauge": "{state.gauge}"}}'
    for question, wanted in {"What is the reading?": str(state.reading), "Report the panel as JSON.": report}.items():
        answer = arm64.run("-m", "moedge_runtime", "ask", bundle, question, "--image", picture, "--no-stream")
        assert answer.strip() == wanted


def test_on_arm64_the_tests_of_the_bundle_and_of_the_expert_core_pass(arm64: Installed, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    arm64.run(
        *("-m", "pytest", "--noconftest", "-p", "no:cacheprovider", f"--junitxml={report}"),
        *("tests/runtime/bundle", "tests/runtime/inference/expert_core", "-k", QUICK_IN_QEMU),
        # Both export what they compute, which needs torch.
        "--ignore=tests/runtime/inference/expert_core/test_layers.py",
        "--ignore=tests/runtime/inference/expert_core/test_vision.py",
    )
    passed = {
        str(case.get("name"))
        for case in ElementTree.parse(report).iter("testcase")
        if not {"failure", "error", "skipped"} & {child.tag for child in case}
    }
    assert "test_every_instruction_set_computes_the_same_bits[int4-32-False-None-neondot]" in passed


def compute(installed: Installed, cases: Path, *isa: str) -> Computed:
    results, log = cases.with_name(f"{cases.name}-results.npz"), cases.with_name(f"{cases.name}-log.txt")
    facts = json.loads(installed.run(COMPUTE, cases, results, *isa, QEMU_LOG="in_asm", QEMU_LOG_FILENAME=str(log)))
    with np.load(results) as file:
        computed = dict(file)
    begin, end = facts.pop("code")
    reached = instructions_reached(log) if log.exists() else {}
    dot_products = sum(is_dot_product(word) for address, word in reached.items() if begin <= address < end)
    return Computed(results=computed, dot_products=dot_products, **facts)


def instructions_reached(log: Path) -> dict[int, int]:
    """Words by address of what qemu has translated, which it does when it comes to them first; removes the log."""
    found = re.findall(r"^0x([0-9a-f]+): +([0-9a-f]{8}) ", log.read_text(), re.MULTILINE)
    log.unlink()
    assert found, "qemu's log lists no instruction"
    return {int(address, 16): int(word, 16) for address, word in found}


def is_dot_product(word: int) -> bool:
    """Whether an instruction is SDOT or UDOT, of vectors or by element.

    Source: Arm Architecture Reference Manual, C7.2, "SDOT (vector)", "SDOT (by element)", "UDOT (vector)" and so on.
    """
    return word & 0x9FE0FC00 == 0x0E809400 or word & 0x9FC0F400 == 0x0F80E000
