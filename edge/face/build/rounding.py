"""Round weights to int8 per output channel. Chooses no clip; that was measured and committed."""

import numpy as np
from numpy.typing import NDArray

from edge.face.build.network import Floats

WEIGHT_MAX = 127
PAIR_MAX = 128
"""Largest |w0 + w1| of two neighbours along K: 255 * 128 fits an int16, more saturates on plain AVX2.

Source: the instruction VPMADDUBSW adds two products of uint8 and int8 with signed 16-bit saturation.
"""


def spread_matrix(weight: Floats) -> Floats:
    """Return a kernel (M, C, k, k) as a matrix (M, K) in the order the integer kernels walk it: NHWC."""
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)


def gather_matrix(matrix: NDArray[np.int8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Undo `spread_matrix`: (M, K) back to (M, C, k, k) = `shape`."""
    channels, inputs, height, width = shape
    return np.ascontiguousarray(matrix.reshape(channels, height, width, inputs).transpose(0, 3, 1, 2))


def round_weights(
    matrix: Floats, clip_percent: NDArray[np.int64], *, pair_safe: bool
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each row of (M, K) with its own scale; returns int8 (M, K) and float32 scales (M,).

    A row's largest magnitude times `clip_percent` / 100 becomes 127; what lies beyond is clipped. With
    `pair_safe` neighbours along K are reduced until their sum fits `PAIR_MAX`.
    """
    largest = np.abs(matrix).max(axis=1)
    scale = (largest * clip_percent / 100.0 / WEIGHT_MAX).astype(np.float32)
    scale = np.where(scale > 0, scale, np.float32(1))
    steps = np.clip(np.rint(matrix / scale.astype(np.float64)[:, None]), -WEIGHT_MAX, WEIGHT_MAX)
    if pair_safe:
        _make_pairs_safe(steps)
    return steps.astype(np.int8), scale


def _make_pairs_safe(steps: Floats) -> None:
    even = steps.shape[1] // 2 * 2
    left, right = steps[:, 0:even:2], steps[:, 1:even:2]
    total = left + right
    excess = np.maximum(np.abs(total) - PAIR_MAX, 0)
    left -= np.sign(total) * np.ceil(excess / 2)
    right -= np.sign(total) * np.floor(excess / 2)
