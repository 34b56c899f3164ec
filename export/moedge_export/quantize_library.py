"""libmoedge_quantize.so through ctypes: its structures, its functions, and what is wrong if it cannot be loaded.

Source of every name, type and order: export/core/include/moedge_quantize.h; a test compares them.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from moedge_runtime.native_library import NativeLibrary

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


NATIVE = NativeLibrary(
    "quantizing kernel",
    "quantizer",
    {
        "moedge_quantize_abi": (ctypes.c_uint32, ()),
        "moedge_quantize": (ctypes.c_int, (ctypes.POINTER(Matrix), ctypes.POINTER(Sums))),
        "moedge_quantize_to_half": (
            ctypes.c_int,
            (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p),
        ),
        "moedge_quantize_has_isa": (ctypes.c_int, (ctypes.c_char_p,)),
    },
)


@cache
def load_library(path: Path = LIBRARY) -> ctypes.CDLL:
    """See `NativeLibrary.load`; of another interface version it is refused too."""
    library = NATIVE.load(path)
    found = library.moedge_quantize_abi()
    if found != ABI:
        raise NATIVE.other_version(path, f"this code needs interface version {ABI}, it has {found}")
    return library
