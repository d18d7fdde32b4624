import numpy as np

from edge.face.build.tables import PACK, pack_first_layer


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
