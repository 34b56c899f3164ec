"""The quantizing kernel's ctypes declarations equal its header, and whatever is wrong with the library is said."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest
from moedge_export import pipeline, plan
from moedge_export import quantize_library as library
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_export.plan import plan_export
from moedge_runtime.errors import ConfigError

HEADER = (Path(__file__).parents[2] / "export/core/include/moedge_quantize.h").read_text()
CODE = re.sub(r"\s*\*\s*", " * ", re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL))
TYPES = {
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "double": ctypes.c_double,
    "const void *": ctypes.c_void_p,
    "uint8_t *": ctypes.c_void_p,
    "uint16_t *": ctypes.c_void_p,
    "const char *": ctypes.c_char_p,
}


@pytest.mark.parametrize(
    ("name", "structure"),
    [("moedge_quantize_matrix", library.Matrix), ("moedge_quantize_sums", library.Sums)],
)
def test_structures_equal_the_header(name: str, structure: type[ctypes.Structure]) -> None:
    body = re.search(rf"typedef struct {{([^}}]*)}} {name};", CODE)
    assert body is not None
    declarations = filter(None, map(str.strip, body[1].split(";")))
    fields = [re.fullmatch(r"(.*?)(\w+)", declaration).groups() for declaration in declarations]  # type: ignore[union-attr]
    assert list(structure._fields_) == [(field, TYPES[kind.strip()]) for kind, field in fields]


def test_functions_types_and_version_equal_the_header() -> None:
    declared = re.findall(r"(\bmoedge_quantize\w*)\(([^)]*)\);", CODE)
    counts = {name: 0 if arguments == "void" else arguments.count(",") + 1 for name, arguments in declared}
    assert counts == {name: len(arguments) for name, (_, arguments) in library.NATIVE.functions.items()}
    for name in ("FLOAT32", "FLOAT16", "BFLOAT16"):
        assert f"MOEDGE_{name} = {getattr(library, name)}," in CODE
    assert f"#define MOEDGE_QUANTIZE_ABI {library.ABI}\n" in HEADER


def test_a_library_that_is_not_built_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "libmoedge_quantize.so"
    with pytest.raises(ConfigError) as caught:
        library.load_library(path)
    assert caught.value.key == "quantizer.not_built"
    assert str(caught.value) == (
        f"The quantizing kernel is not built: there is no '{path}'. Install g++ and run `pip install` again, or "
        f"install a wheel of moedge."
    )


def test_a_library_of_another_system_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "libmoedge_quantize.so"
    path.write_bytes(b"\x7fELF of another kind")
    with pytest.raises(ConfigError, match="built for another system") as caught:
        library.load_library(path)
    assert caught.value.key == "quantizer.not_loadable"


def test_a_library_without_a_function_is_of_another_version() -> None:
    import _ctypes

    with pytest.raises(ConfigError, match="has no function moedge_quantize_abi") as caught:
        library.load_library(Path(_ctypes.__file__))
    assert caught.value.key == "quantizer.version_differs"


def test_a_library_of_another_interface_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = tmp_path / "libmoedge_quantize.so"
    same.symlink_to(library.LIBRARY)
    monkeypatch.setattr(library, "ABI", 99)
    with pytest.raises(ConfigError, match="this code needs interface version 99, it has 1") as caught:
        library.load_library(same)
    assert caught.value.key == "quantizer.version_differs"


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": 3},
        {"bits": 5},
        {"block_size": 16},
        {"block_size": 256},
        {"symmetric": 2},
        {"row_stride": 2, "input_stride": 2},
        {"isa": b"avx3"},
    ],
    ids=str,
)
def test_what_the_kernel_has_no_code_for_is_refused_before_anything_is_written(wrong: dict[str, object]) -> None:
    right = {"type": library.FLOAT32, "bits": 4, "block_size": 32, "symmetric": 1, "row_stride": 32, "input_stride": 1}
    kernel, sums = library.load_library(), library.Sums()
    assert kernel.moedge_quantize(ctypes.byref(library.Matrix(**right)), ctypes.byref(sums)) == 0
    # No addresses: whatever is read or written is a crash.
    matrix = library.Matrix(**{**right, "rows": 1, "inputs": 32, **wrong})
    assert kernel.moedge_quantize(ctypes.byref(matrix), ctypes.byref(sums)) == 1


def test_without_the_kernel_an_export_is_refused_before_any_work(
    checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ConfigError("not there", key="quantizer.not_built")

    for module, run in ((pipeline, export_bundle), (plan, plan_export)):
        monkeypatch.setattr(module, "load_library", missing)
        with pytest.raises(ConfigError, match="not there"):
            run(checkpoint[0], tmp_path / "bundle", ExportOptions())
    assert list(tmp_path.iterdir()) == []
