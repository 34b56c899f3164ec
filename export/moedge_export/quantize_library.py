"""libmoedge_quantize.so through ctypes: its structures, its functions, and what is wrong if it cannot be loaded.

Source of every name, type and order: export/core/include/moedge_quantize.h; a test compares them.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from moedge_runtime.errors import ConfigError

ABI = 1
"""MOEDGE_QUANTIZE_ABI."""

LIBRARY = Path(__file__).with_name("libmoedge_quantize.so")
"""Where a wheel and `pip install` put the library."""

FLOAT32, FLOAT16, BFLOAT16 = range(3)
"""moedge_float_type."""

INSTRUCTION_SETS = ("baseline", "avx2", "avx512f")
"""All that the library has kernels for; every processor has the first one."""


class Matrix(ctypes.Structure):
    """moedge_quantize_matrix."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("bits", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("symmetric", ctypes.c_uint32),
        ("rows", ctypes.c_uint64),
        ("inputs", ctypes.c_uint64),
        ("row_stride", ctypes.c_uint64),
        ("input_stride", ctypes.c_uint64),
        ("weights", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("zero_point", ctypes.c_void_p),
        ("isa", ctypes.c_char_p),
    )


class Sums(ctypes.Structure):
    """moedge_quantize_sums."""

    _fields_ = (
        ("weight", ctypes.c_double),
        ("error", ctypes.c_double),
        ("error_absmax", ctypes.c_double),
    )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "moedge_quantize_abi": (ctypes.c_uint32, ()),
    "moedge_quantize": (ctypes.c_int, (ctypes.POINTER(Matrix), ctypes.POINTER(Sums))),
    "moedge_quantize_to_half": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p),
    ),
    "moedge_quantize_has_isa": (ctypes.c_int, (ctypes.c_char_p,)),
}
"""Result and arguments of each function; arrays are passed as addresses."""


@cache
def load_library(path: Path = LIBRARY) -> ctypes.CDLL:
    """Load the library; its functions run without Python's global lock.

    Raises:
        ConfigError: It is not there, not for this system, or of another version than this Python code.
    """
    if not path.is_file():
        raise ConfigError(
            f"The quantizing kernel is not built: there is no '{path}'. Install g++ and run `pip install` again, or "
            f"install a wheel of moedge.",
            key="quantizer.not_built",
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(
            f"The quantizing kernel cannot be loaded: {error}. It was built for another system: install g++ and run "
            f"`pip install` again, or install the wheel for this one.",
            key="quantizer.not_loadable",
        ) from error
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise _other_version(path, f"it has no function {name}") from None
        function.restype, function.argtypes = result, arguments
    found = library.moedge_quantize_abi()
    if found != ABI:
        raise _other_version(path, f"this code needs interface version {ABI}, it has {found}")
    return library


def _other_version(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"The quantizing kernel '{path}' is not of this moedge's version: {reason}. Run `pip install` again.",
        key="quantizer.version_differs",
    )
