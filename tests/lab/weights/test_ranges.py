import numpy as np

from edge.face.build.tables import round_weights
from edge.lab.weights.ranges import best_clips, best_range, factors, integer_prelu


def errors(x: np.ndarray, slope: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(((integer_prelu(x, slope, low, high) - np.maximum(x, x * slope)) ** 2).mean())


def test_an_integer_prelu_is_the_real_one_to_half_a_step() -> None:
    x = np.linspace(-4, 4, 1001)[:, None]
    slope = np.array([0.3])
    result = integer_prelu(x, slope, np.array([[-4.0]]), np.array([[4.0]]))
    assert np.abs(result - np.maximum(x, 0.3 * x)).max() < 8 / 255


def test_a_lonely_outlier_is_clipped_and_a_full_range_is_kept() -> None:
    random = np.random.default_rng(0)
    even = random.uniform(-1, 1, (4000, 1))
    low, high = best_range(even, np.array([0.5]), per_channel=True)
    assert high.item() > 0.94
    lonely = random.normal(size=(400_000, 1))
    lonely[0] = 10
    low, high = best_range(lonely, np.array([0.5]), per_channel=True)
    assert high.item() < 8
    assert errors(lonely, np.array([0.5]), low, high) < errors(
        lonely, np.array([0.5]), lonely.min(axis=0, keepdims=True), lonely.max(axis=0, keepdims=True)
    )


def test_what_a_flat_slope_hides_takes_no_range() -> None:
    x = np.random.default_rng(1).normal(size=(4000, 2)) * 3
    low, _ = best_range(x, np.array([0.01, 0.9]), per_channel=True)
    assert low[0, 0] > low[0, 1] / 2


def test_one_range_for_all_channels_is_a_single_number() -> None:
    x = np.random.default_rng(1).normal(size=(500, 3))
    low, high = best_range(x, np.zeros(3), per_channel=False)
    assert low.shape == high.shape == (1, 1)


def test_factors_make_channels_alike_and_are_bounded() -> None:
    low, high = np.array([-1.0, -2.0, -1e-9]), np.array([1.0, 2.0, 1e-9])
    factor = factors(low, high, exponent=1.0)
    assert factor[1] / factor[0] == 2
    assert factor[2] == 1 / 32
    half = factors(low[:2], high[:2], exponent=0.5)
    assert abs(half[1] / half[0] - 2**0.5) < 1e-3


def test_the_best_clip_is_no_worse_than_none() -> None:
    matrix = np.random.default_rng(2).standard_t(3, size=(8, 64))
    clips = best_clips(matrix, pair_safe=True)

    def error(percent: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        steps, scale = round_weights(matrix, percent, pair_safe=True)
        return np.asarray(((steps * scale[:, None].astype(np.float64) - matrix) ** 2).sum(axis=1))

    assert (error(clips) <= error(np.full(8, 100))).all()
    assert (error(clips) < error(np.full(8, 100))).any()


def test_equal_neighbours_make_room_for_their_sum() -> None:
    [clip] = best_clips(np.ones((1, 8)), pair_safe=True)
    assert clip > 190
