"""Choose ranges, factors and clips by least squared error on samples. Runs no model and reads no image."""

import numpy as np
from numpy.typing import NDArray

from edge.face.build.network import Floats
from edge.face.build.tables import round_weights

FRACTIONS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.3, 0.2)
"""Shares of the largest value that are tried as the end of a range."""

ROUNDS = 2
"""Times that both ends are searched in turn; a third changes nothing."""

CLIPS_PERCENT = tuple(range(200, 58, -2))
"""Shares of a row's largest weight that are tried as its clip; above 100, large pairs fit unharmed."""

FACTOR_MAX = 32.0
"""Channels are stretched or shrunk by no more than this: a nearly dead one must not blow up its noise."""

SMALLEST = 1e-6


def integer_prelu(x: Floats, slope: Floats, low: Floats, high: Floats) -> Floats:
    """Return what uint8 arithmetic makes of PReLU(x) (N, C) on the range [low, high], in real numbers."""
    scale = (high - low) / 255.0
    zero = np.rint(-low / scale)
    steps = np.clip(np.rint(x / scale), -zero, 255 - zero)
    line = np.clip(np.rint(steps * slope), -zero, 255 - zero)
    return np.asarray(np.maximum(steps, line) * scale)


def best_range(x: Floats, slope: Floats, *, per_channel: bool) -> tuple[Floats, Floats]:
    """Return the range (low, high) of x (N, C) whose integer PReLU is closest to the real one.

    Both are (1, C) with `per_channel`, else (1, 1) for all channels together.
    """
    axes = 0 if per_channel else (0, 1)
    ends = [
        np.minimum(x.min(axis=axes, keepdims=True), -SMALLEST),
        np.maximum(x.max(axis=axes, keepdims=True), SMALLEST),
    ]
    wanted = np.maximum(x, x * slope)
    for which in (1, 0) * ROUNDS:
        widest, least = ends[which], np.full(ends[which].shape, np.inf)
        for fraction in FRACTIONS:
            tried = list(ends)
            tried[which] = widest * fraction
            difference = integer_prelu(x, slope, tried[0], tried[1]) - wanted
            error = (difference * difference).mean(axis=axes, keepdims=True)
            ends[which] = np.where(error < least, tried[which], ends[which])
            least = np.minimum(error, least)
    return ends[0], ends[1]


def factors(low: Floats, high: Floats, *, exponent: float) -> Floats:
    """Return what to divide each channel by so that channels of range (low, high) (C,) become alike.

    Rounded to four digits: they are committed as text.
    """
    width = high - low
    ratio = width / np.median(width)
    ratio = np.clip(ratio, 1 / FACTOR_MAX, FACTOR_MAX) ** exponent
    return np.array([float(f"{value:.4g}") for value in ratio])


def best_clips(matrix: Floats, *, pair_safe: bool) -> NDArray[np.int64]:
    """Return per row of (M, K) the clip in percent whose rounded weights are closest to the real ones."""
    best = np.full(len(matrix), CLIPS_PERCENT[0])
    least = np.full(len(matrix), np.inf)
    for percent in CLIPS_PERCENT:
        rounded, scale = round_weights(matrix, np.full(len(matrix), percent), pair_safe=pair_safe)
        difference = rounded * scale.astype(np.float64)[:, None] - matrix
        error = np.einsum("mk,mk->m", difference, difference)
        best = np.where(error < least, percent, best)
        least = np.minimum(error, least)
    return best
