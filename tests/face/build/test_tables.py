"""Weights of the int8 recipe: rounded so that no pair overflows, and packed four pixels at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.face.build.tables import (
    PACK,
    PAIR_MAX,
    gather_matrix,
    pack_first_layer,
    round_weights,
    spread_matrix,
)


def test_the_largest_weight_becomes_127() -> None:
    steps, scale = round_weights(np.array([[0.5, -1.0, 0.25]]), np.array([100]), pair_safe=False)
    assert steps.tolist() == [[64, -127, 32]]
    assert scale[0] == pytest.approx(1 / 127)


def test_a_clip_trades_the_largest_weight_for_finer_steps() -> None:
    steps, scale = round_weights(np.array([[0.5, -1.0, 0.25]]), np.array([50]), pair_safe=False)
    assert steps.tolist() == [[127, -127, 64]]
    assert scale[0] == pytest.approx(0.5 / 127)


def test_a_row_of_zeros_stays_zero() -> None:
    steps, scale = round_weights(np.zeros((1, 4)), np.array([100]), pair_safe=True)
    assert steps.tolist() == [[0] * 4]
    assert scale.tolist() == [1.0]


def test_pairs_that_would_overflow_are_reduced_alike() -> None:
    matrix = np.array([[1.0, 1.0, -1.0, -0.9, 1.0, -1.0, 1.0]])
    steps, _ = round_weights(matrix, np.array([100]), pair_safe=True)
    assert steps.tolist() == [[64, 64, -70, -58, 127, -127, 127]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([60, 100, 140, 200]))
def test_no_pair_ever_overflows_16_bits(seed: int, width: int, percent: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(6, width))
    steps, _ = round_weights(matrix, np.full(6, percent), pair_safe=True)
    even = width // 2 * 2
    pairs = steps[:, :even].astype(int).reshape(6, -1, 2).sum(axis=2)
    assert np.abs(pairs).max(initial=0) <= PAIR_MAX
    assert 255 * PAIR_MAX <= 32767
    assert np.abs(steps.astype(int)).max() <= 127


def test_matrix_and_kernel_are_each_other_s_reverse() -> None:
    weight = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2).astype(np.float64)
    matrix = spread_matrix(weight)
    assert matrix[0].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert np.array_equal(gather_matrix(matrix.astype(np.int8), weight.shape), weight)


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Convolve NHWC-like (H, W, C) with (M, C, 3, 3), zero padded."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    return np.einsum("hwcij,mcij->hwm", windows, weight)


def test_packed_pixels_give_the_same_output_in_another_shape() -> None:
    random = np.random.default_rng(3)
    image, weight = random.normal(size=(6, 16, 3)), random.normal(size=(5, 3, 3, 3))
    packed = convolve(image.reshape(6, 16 // PACK, 3 * PACK), pack_first_layer(weight))
    assert np.allclose(packed.reshape(6, 16, 5), convolve(image, weight))


def test_packed_pixels_give_every_other_pixel_where_the_stride_is_two() -> None:
    random = np.random.default_rng(4)
    image, weight = random.normal(size=(6, 16, 3)), random.normal(size=(5, 3, 3, 3))
    kernel = pack_first_layer(weight, 2)
    assert kernel.shape == (2 * 5, PACK * 3, 3, 2), "it needs no pack to the right"
    wide = np.concatenate([kernel, np.zeros((*kernel.shape[:3], 1))], axis=3)
    packed = convolve(image.reshape(6, 16 // PACK, 3 * PACK), wide)
    assert np.allclose(packed.reshape(6, 8, 5)[::2], convolve(image, weight)[::2, ::2])
