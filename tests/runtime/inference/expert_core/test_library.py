import ctypes
import re
from pathlib import Path

import pytest
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.expert_core import bank, library
from moedge_runtime.inference.expert_core.bank import NativeExperts
from runtime.inference.expert_core.bundles import INT4, write_bundle

HEADER = (Path(__file__).parents[4] / "runtime/core/include/moedge_core.h").read_text()
CODE = re.sub(r"\s*\*\s*", " * ", re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL))
TYPES = {
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "const char *": ctypes.c_char_p,
    "const uint32_t *": ctypes.POINTER(ctypes.c_uint32),
    "float": ctypes.c_float,
    **dict.fromkeys(["const void *", "void *", "const float *", "float *", "const uint8_t *"], ctypes.c_void_p),
    "moedge_matrix": library.MatrixView,
}


def fields(name: str) -> list[tuple[str, type]]:
    """Fields of a structure in the header, in order, as ctypes has them."""
    body = re.search(rf"typedef struct {{([^}}]*)}} {name};", CODE)
    assert body is not None
    found = []
    for declaration in filter(None, map(str.strip, body[1].split(";"))):
        kind, field, count = re.fullmatch(r"(.*?)(\w+)(?:\[(\d+)\])?", declaration).groups()
        found.append((field, ctypes.c_char * int(count) if count else TYPES[kind.strip()]))
    return found


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        ("moedge_error", library.CoreError),
        ("moedge_core_options", library.CoreOptions),
        ("moedge_core_statistics", library.CoreStatistics),
        ("moedge_dense_options", library.DenseOptions),
        ("moedge_matrix", library.MatrixView),
        ("moedge_dense_weights", library.DenseWeights),
        ("moedge_dense_call", library.DenseCall),
        ("moedge_vision_options", library.VisionOptions),
        ("moedge_vision_block_weights", library.VisionBlockWeights),
        ("moedge_vision_merger_weights", library.VisionMergerWeights),
        ("moedge_vision_picture", library.VisionPicture),
    ],
)
def test_structures_equal_the_header(name, structure):
    assert list(structure._fields_) == fields(name)


def test_statuses_and_version_equal_the_header():
    body = re.search(r"typedef enum {([^}]*)} moedge_status;", CODE)
    assert dict(re.findall(r"MOEDGE_(\w+) = (\d+)", body[1])) == {s.name: str(s.value) for s in library.Status}
    assert re.search(r"#define MOEDGE_CORE_ABI (\d+)", CODE)[1] == str(library.ABI)


def test_functions_equal_the_header():
    declared = re.findall(r"(\bmoedge_(?:core|dense|vision)_\w+)\(([^)]*)\);", CODE)
    counts = {name: 0 if arguments == "void" else arguments.count(",") + 1 for name, arguments in declared}
    assert counts == {name: len(arguments) for name, (_, arguments) in library.NATIVE.functions.items()}


def test_a_library_that_is_not_built_is_an_error_that_says_what_to_do(tmp_path):
    path = tmp_path / "libmoedge_core.so"
    with pytest.raises(ConfigError) as caught:
        library.load_library(path)
    assert caught.value.key == "core.not_built"
    assert str(caught.value) == (
        f"The expert core is not built: there is no '{path}'. Install g++ and run `pip install` again, or install a "
        f"wheel of moedge. `--experts numpy` computes without it, correctly and very slowly."
    )


def test_a_library_of_another_system_is_an_error(tmp_path):
    path = tmp_path / "libmoedge_core.so"
    path.write_bytes(b"\x7fELF of another kind")
    with pytest.raises(ConfigError, match="built for another system") as caught:
        library.load_library(path)
    assert caught.value.key == "core.not_loadable"


def test_a_library_without_a_function_is_of_another_version():
    import _ctypes

    with pytest.raises(ConfigError, match="has no function moedge_core_open") as caught:
        library.load_library(Path(_ctypes.__file__))
    assert caught.value.key == "core.version_differs"


def test_a_library_of_another_interface_is_refused(tmp_path, monkeypatch):
    bundle = write_bundle(tmp_path / "bundle", INT4)
    monkeypatch.setattr(bank, "ABI", 99)
    with pytest.raises(ConfigError, match=f"interface version 99; this library has {library.ABI}") as caught:
        NativeExperts(bundle)
    assert caught.value.key == "core.version_differs"


def test_scalar_kernels_are_always_usable():
    assert "scalar" in library.usable_instruction_sets()
