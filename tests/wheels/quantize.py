"""Quantizes random weights with the native kernel on the processor that runs it; prints SHA-256 by case, as JSON."""

import ctypes
import hashlib
import json
from itertools import product

import numpy as np
from moedge_export.quantize_library import BFLOAT16, FLOAT16, FLOAT32, Matrix, Sums, load_library

ROWS, INPUTS = 61, 320


def main() -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((ROWS, INPUTS)) * 10.0 ** random.integers(-7, 3, (ROWS, 1))
    singles = weights.astype(np.float32)
    stored = {
        FLOAT32: singles,
        FLOAT16: weights.astype(np.float16),
        BFLOAT16: (singles.view(np.uint32) >> 16).astype(np.uint16),
    }
    digests = {}
    for kind, bits, block_size, symmetric, outermost in product(stored, (4, 8), (32, 64, 128), (0, 1), (False, True)):
        values = np.ascontiguousarray(stored[kind].T if outermost else stored[kind])
        blocks = -(-INPUTS // block_size)
        weight = np.empty((ROWS, blocks * block_size * bits // 8), np.uint8)
        scale = np.empty((ROWS, blocks), np.float16)
        zero_point = np.zeros((ROWS, blocks), np.uint8)
        sums = Sums()
        matrix = Matrix(
            type=kind,
            bits=bits,
            block_size=block_size,
            symmetric=symmetric,
            rows=ROWS,
            inputs=INPUTS,
            row_stride=1 if outermost else INPUTS,
            input_stride=ROWS if outermost else 1,
            weights=values.ctypes.data,
            weight=weight.ctypes.data,
            scale=scale.ctypes.data,
            zero_point=zero_point.ctypes.data,
        )
        assert load_library().moedge_quantize(ctypes.byref(matrix), ctypes.byref(sums)) == 0
        digest = hashlib.sha256(weight.tobytes() + scale.tobytes() + zero_point.tobytes() + bytes(sums))
        digests[f"{kind}/{bits}/{block_size}/{symmetric}/{outermost}"] = digest.hexdigest()
    print(json.dumps(digests))


if __name__ == "__main__":
    main()
