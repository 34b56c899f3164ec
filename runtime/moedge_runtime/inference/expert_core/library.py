"""libmoedge_core.so through ctypes: its structures, its functions, and what is wrong if it cannot be loaded.

Source of every name, type and order: runtime/core/include/moedge_core.h; a test compares them.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from functools import cache
from pathlib import Path

from moedge_runtime.native_library import NativeLibrary

ABI = 7
"""MOEDGE_CORE_ABI."""

LIBRARY = Path(__file__).with_name("libmoedge_core.so")
"""Where a wheel and `pip install` put the library."""


class Status(IntEnum):
    """moedge_status without its prefix."""

    OK = 0
    BAD_OPTION = 1
    BUDGET_TOO_SMALL = 2
    EXPERT_DAMAGED = 3
    READ_TIMEOUT = 4
    BAD_INPUT = 5
    OUT_OF_MEMORY = 6
    FILE_UNUSABLE = 7


class CoreError(ctypes.Structure):
    """moedge_error."""

    _fields_ = (
        ("status", ctypes.c_int32),
        ("os_error", ctypes.c_int32),
        ("layer", ctypes.c_uint32),
        ("expert", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("message", ctypes.c_char * 256),
    )


class CoreOptions(ctypes.Structure):
    """moedge_core_options."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("layers", ctypes.c_uint32),
        ("experts", ctypes.c_uint32),
        ("top_k", ctypes.c_uint32),
        ("hidden_size", ctypes.c_uint32),
        ("intermediate_size", ctypes.c_uint32),
        ("bits", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("symmetric", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("readers", ctypes.c_uint32),
        ("max_tokens", ctypes.c_uint32),
        ("direct", ctypes.c_uint32),
        ("prefetch", ctypes.c_uint32),
        ("read_timeout_ms", ctypes.c_uint32),
        ("lock_memory", ctypes.c_uint32),
        ("record_bytes", ctypes.c_uint64),
        ("budget_bytes", ctypes.c_uint64),
        ("path", ctypes.c_char_p),
        ("crc32c", ctypes.POINTER(ctypes.c_uint32)),
        ("isa", ctypes.c_char_p),
    )


class CoreStatistics(ctypes.Structure):
    """moedge_core_statistics."""

    _fields_ = (
        ("calls", ctypes.c_uint64),
        ("tokens", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("misses", ctypes.c_uint64),
        ("reads", ctypes.c_uint64),
        ("read_bytes", ctypes.c_uint64),
        ("prefetch_used", ctypes.c_uint64),
        ("prefetch_unused", ctypes.c_uint64),
        ("preloaded", ctypes.c_uint64),
        ("preloaded_bytes", ctypes.c_uint64),
        ("preload_used", ctypes.c_uint64),
        ("failed_reads", ctypes.c_uint64),
        ("evictions", ctypes.c_uint64),
        ("flash_wait_ns", ctypes.c_uint64),
        ("compute_ns", ctypes.c_uint64),
        ("queue_depth_sum", ctypes.c_uint64),
        ("budget_bytes", ctypes.c_uint64),
        ("used_bytes", ctypes.c_uint64),
        ("slots", ctypes.c_uint32),
        ("ring_slots", ctypes.c_uint32),
        ("resident", ctypes.c_uint32),
        ("pinned", ctypes.c_uint32),
        ("direct", ctypes.c_uint32),
        ("huge_pages", ctypes.c_uint32),
    )


class DenseOptions(ctypes.Structure):
    """moedge_dense_options."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("layers", ctypes.c_uint32),
        ("hidden_size", ctypes.c_uint32),
        ("heads", ctypes.c_uint32),
        ("kv_heads", ctypes.c_uint32),
        ("head_dim", ctypes.c_uint32),
        ("experts", ctypes.c_uint32),
        ("intermediate_size", ctypes.c_uint32),
        ("vocabulary", ctypes.c_uint32),
        ("bits", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("symmetric", ctypes.c_uint32),
        ("head_bits", ctypes.c_uint32),
        ("head_block_size", ctypes.c_uint32),
        ("head_symmetric", ctypes.c_uint32),
        ("biased", ctypes.c_uint32),
        ("max_tokens", ctypes.c_uint32),
        ("slots", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("epsilon", ctypes.c_float),
        ("has_experts", ctypes.c_void_p),
        ("isa", ctypes.c_char_p),
    )


class MatrixView(ctypes.Structure):
    """moedge_matrix."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("zero_point", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class DenseWeights(ctypes.Structure):
    """moedge_dense_weights."""

    _fields_ = (
        ("input_norm", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        ("post_norm", ctypes.c_void_p),
        ("next_norm", ctypes.c_void_p),
        ("qkv", MatrixView),
        ("output", MatrixView),
        ("router", MatrixView),
        ("next_router", MatrixView),
        ("gate_up", MatrixView),
        ("down", MatrixView),
    )


class DenseCall(ctypes.Structure):
    """moedge_dense_call."""

    _fields_ = (
        ("layer", ctypes.c_uint32),
        ("tokens", ctypes.c_uint32),
        ("past", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("hidden", ctypes.c_void_p),
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("moe_input", ctypes.c_void_p),
        ("router_logits", ctypes.c_void_p),
        ("next_router_logits", ctypes.c_void_p),
    )


class VisionOptions(ctypes.Structure):
    """moedge_vision_options."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("blocks", ctypes.c_uint32),
        ("hidden_size", ctypes.c_uint32),
        ("heads", ctypes.c_uint32),
        ("intermediate_size", ctypes.c_uint32),
        ("patch_values", ctypes.c_uint32),
        ("positions", ctypes.c_uint32),
        ("merge", ctypes.c_uint32),
        ("features", ctypes.c_uint32),
        ("taps", ctypes.c_uint32),
        ("gelu_tanh", ctypes.c_uint32),
        ("bits", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("symmetric", ctypes.c_uint32),
        ("resident", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("epsilon", ctypes.c_float),
        ("isa", ctypes.c_char_p),
    )


class VisionBlockWeights(ctypes.Structure):
    """moedge_vision_block_weights."""

    _fields_ = (
        ("input_norm", ctypes.c_void_p),
        ("input_norm_bias", ctypes.c_void_p),
        ("post_norm", ctypes.c_void_p),
        ("post_norm_bias", ctypes.c_void_p),
        ("qkv", MatrixView),
        ("output", MatrixView),
        ("up", MatrixView),
        ("down", MatrixView),
    )


class VisionMergerWeights(ctypes.Structure):
    """moedge_vision_merger_weights."""

    _fields_ = (
        ("norm", ctypes.c_void_p),
        ("norm_bias", ctypes.c_void_p),
        ("up", MatrixView),
        ("down", MatrixView),
    )


class VisionPicture(ctypes.Structure):
    """moedge_vision_picture."""

    _fields_ = (
        ("patches", ctypes.c_uint32),
        ("frames", ctypes.c_uint32),
        ("hidden", ctypes.c_void_p),
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
        ("memory", ctypes.c_void_p),
    )


_CORE = ctypes.c_void_p
_ERROR = ctypes.POINTER(CoreError)
NATIVE = NativeLibrary(
    "expert core",
    "core",
    {
        "moedge_core_open": (ctypes.c_int, (ctypes.POINTER(CoreOptions), ctypes.POINTER(_CORE), _ERROR)),
        "moedge_core_close": (None, (_CORE,)),
        "moedge_core_compute": (
            ctypes.c_int,
            (
                _CORE,
                ctypes.c_uint32,
                ctypes.c_uint32,
                *3 * (ctypes.c_void_p,),
                ctypes.c_uint32,
                ctypes.c_void_p,
                _ERROR,
            ),
        ),
        "moedge_core_pin": (ctypes.c_int, (_CORE, ctypes.c_void_p, ctypes.c_uint32, _ERROR)),
        "moedge_core_set_budget": (ctypes.c_int, (_CORE, ctypes.c_uint64, _ERROR)),
        "moedge_core_preload": (ctypes.c_int, (_CORE, _ERROR)),
        "moedge_core_set_counts": (None, (_CORE, ctypes.c_void_p)),
        "moedge_core_counts": (None, (_CORE, ctypes.c_void_p)),
        "moedge_core_get_statistics": (None, (_CORE, ctypes.POINTER(CoreStatistics))),
        "moedge_dense_open": (
            ctypes.c_int,
            (ctypes.POINTER(DenseOptions), _CORE, ctypes.POINTER(_CORE), _ERROR),
        ),
        "moedge_dense_close": (None, (_CORE,)),
        "moedge_dense_load_layer": (
            ctypes.c_int,
            (_CORE, ctypes.c_uint32, ctypes.POINTER(DenseWeights), _ERROR),
        ),
        "moedge_dense_load_head": (ctypes.c_int, (_CORE, ctypes.c_void_p, ctypes.POINTER(MatrixView), _ERROR)),
        "moedge_dense_layer": (ctypes.c_int, (_CORE, ctypes.POINTER(DenseCall), _ERROR)),
        "moedge_dense_head": (ctypes.c_int, (_CORE, ctypes.c_void_p, ctypes.c_void_p, _ERROR)),
        "moedge_dense_bytes": (None, (_CORE, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint64))),
        "moedge_vision_open": (
            ctypes.c_int,
            (ctypes.POINTER(VisionOptions), _CORE, ctypes.POINTER(_CORE), _ERROR),
        ),
        "moedge_vision_close": (None, (_CORE,)),
        "moedge_vision_load_patches": (
            ctypes.c_int,
            (_CORE, ctypes.POINTER(MatrixView), ctypes.c_void_p, _ERROR),
        ),
        "moedge_vision_load_block": (
            ctypes.c_int,
            (_CORE, ctypes.c_uint32, ctypes.POINTER(VisionBlockWeights), _ERROR),
        ),
        "moedge_vision_load_merger": (
            ctypes.c_int,
            (_CORE, ctypes.c_uint32, ctypes.POINTER(VisionMergerWeights), _ERROR),
        ),
        "moedge_vision_embed": (
            ctypes.c_int,
            (_CORE, ctypes.POINTER(VisionPicture), *3 * (ctypes.c_void_p,), _ERROR),
        ),
        "moedge_vision_block": (ctypes.c_int, (_CORE, ctypes.POINTER(VisionPicture), ctypes.c_uint32, _ERROR)),
        "moedge_vision_merge": (
            ctypes.c_int,
            (_CORE, ctypes.POINTER(VisionPicture), ctypes.c_uint32, ctypes.c_void_p, _ERROR),
        ),
        "moedge_vision_bytes": (None, (_CORE, ctypes.c_uint32, *3 * (ctypes.POINTER(ctypes.c_uint64),))),
        "moedge_core_isa": (ctypes.c_char_p, (_CORE,)),
        "moedge_core_best_isa": (ctypes.c_char_p, ()),
        "moedge_core_has_isa": (ctypes.c_int, (ctypes.c_char_p,)),
    },
    otherwise="`--experts numpy` computes without it, correctly and very slowly.",
)

INSTRUCTION_SETS = ("scalar", "avx2", "avxvnni", "avx512vnni", "amx", "neondot", "neoni8mm")
"""All that the core has kernels for; `usable_instruction_sets` are those of this processor."""


@cache
def load_library(path: Path = LIBRARY) -> ctypes.CDLL:
    """See `NativeLibrary.load`."""
    return NATIVE.load(path)


def usable_instruction_sets() -> list[str]:
    """Those of `INSTRUCTION_SETS` that this build and this processor can use."""
    library = load_library()
    return [name for name in INSTRUCTION_SETS if library.moedge_core_has_isa(name.encode())]
