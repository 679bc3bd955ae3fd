"""Tensors of every datatype of the protocol, with the values that are easily got wrong."""

import ml_dtypes
import numpy as np

DIGIT = np.array(
    [[0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0, 8, 8, 0,
      0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0]],
    dtype=np.float32,
)  # fmt: skip


def every():
    """Name of the datatype, and an array `[2, 3]` of it."""
    values = {
        "BOOL": np.array([[True, False, True], [False, False, True]]),
        "FP16": np.array([[0.5, -0.0, 65504.0], [6.1e-5, np.inf, 1.0]], dtype=np.float16),
        "FP32": np.array([[1.5, -0.0, 3.4e38], [1e-45, 0.1, -2.0]], dtype=np.float32),
        "FP64": np.array([[0.1, -0.0, 1.7e308], [5e-324, 1 / 3, -2.0]], dtype=np.float64),
        "BF16": np.array([[1.5, -0.0, 256.0], [0.125, 3.0, -2.0]], dtype=ml_dtypes.bfloat16),
        "BYTES": np.array([[b"", "déjà".encode(), b'"\\\n'], [b"a" * 300, b"\x01", b"z"]], dtype=np.object_),
    }
    for bits in (8, 16, 32, 64):
        signed, unsigned = np.dtype(f"int{bits}"), np.dtype(f"uint{bits}")
        least, most = np.iinfo(signed).min, np.iinfo(signed).max
        values[f"INT{bits}"] = np.array([[least, -1, 0], [1, most, 7]], dtype=signed)
        most = np.iinfo(unsigned).max
        values[f"UINT{bits}"] = np.array([[0, 1, most], [most - 1, 2, 7]], dtype=unsigned)
    return values


def same(left, right):
    """Whether two arrays are equal to the last bit, negative zeros and infinities included."""
    if left.dtype == np.object_:
        # Triton's client makes text of what came in JSON.
        text = [value.encode() if isinstance(value, str) else value for value in right.ravel()]
        return left.shape == right.shape and left.ravel().tolist() == text
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
