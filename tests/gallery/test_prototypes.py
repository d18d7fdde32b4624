import numpy as np
import pytest

from edge.core.errors import GalleryError
from edge.core.types import FloatArray
from edge.gallery.prototypes import prototypes
from tests.support.gallery_samples import unit_rows


def photos(count: int, appearances: int = 1, seed: int = 0) -> FloatArray:
    """Return photos of one face (cosine .6 in pairs) in some appearances (cosine .3 between them)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((1 + appearances + count, 128))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    face, styles, shots = noise[0], noise[1 : 1 + appearances], noise[1 + appearances :]
    means = np.sqrt(0.3) * face + np.sqrt(0.7) * styles
    rows = np.sqrt(0.6) * means[np.arange(count) % appearances] + np.sqrt(0.4) * shots
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_one_photo_is_its_own_prototype():
    assert np.array_equal(prototypes(photos(1), np.ones(1, np.float32), 3), photos(1))


@pytest.mark.parametrize("count", [2, 3])
def test_a_few_photos_alike_become_their_mean(count: int):
    rows = photos(count)
    (only,) = prototypes(rows, np.ones(count, np.float32), 3)
    mean = rows.mean(axis=0)
    assert np.allclose(only, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("count", "appearances"), [(6, 1), (10, 1), (200, 1), (8, 2), (40, 2), (12, 3), (1000, 3)]
)
def test_there_are_as_many_prototypes_as_appearances(count: int, appearances: int, seed: int):
    found = prototypes(photos(count, appearances, seed), np.ones(count, np.float32), 5)
    assert len(found) == appearances
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found.dtype == np.float32


def test_more_appearances_than_prototypes_end_at_the_limit():
    assert len(prototypes(photos(40, 5), np.ones(40, np.float32), 2)) == 2


def test_a_prototype_is_the_weighted_mean_direction():
    rows = photos(6)
    weights = np.array([1, 0.5, 0.5, 0.25, 0.25, 0.25], np.float32)
    expected = weights @ rows / np.linalg.norm(weights @ rows)
    assert np.allclose(prototypes(rows, weights, 1), expected, atol=1e-6)


def test_the_answer_is_the_same_every_time():
    rows, weights = photos(30, 3), np.linspace(0.1, 1, 30, dtype=np.float32)
    assert prototypes(rows, weights, 5).tobytes() == prototypes(rows, weights, 5).tobytes()


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        pytest.param(np.repeat(photos(1), 7, axis=0), np.ones(7, np.float32), id="the same photo often"),
        pytest.param(photos(7), np.zeros(7, np.float32), id="no weight at all"),
        pytest.param(np.concatenate([photos(3), -photos(3)]), np.ones(6, np.float32), id="opposites"),
    ],
)
def test_odd_photos_still_give_unit_prototypes(rows: FloatArray, weights: FloatArray):
    found = prototypes(rows, weights, 2)
    assert 1 <= len(found) <= 2
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "weights", "k", "says"),
    [
        pytest.param(np.empty((0, 128), np.float32), np.ones(0, np.float32), 3, "one or more", id="none"),
        pytest.param(unit_rows(3), np.ones(2, np.float32), 3, "one weight for each", id="weights missing"),
        pytest.param(unit_rows(3) * 2, np.ones(3, np.float32), 3, "unit norm", id="norm 2"),
        pytest.param(unit_rows(3) * np.nan, np.ones(3, np.float32), 3, "finite", id="NaN"),
        pytest.param(unit_rows(3), np.full(3, np.nan, np.float32), 3, "weights", id="NaN weights"),
        pytest.param(unit_rows(3), -np.ones(3, np.float32), 3, "weights", id="negative weights"),
        pytest.param(unit_rows(3), np.ones(3, np.float32), 0, "0 prototypes", id="k 0"),
        pytest.param(unit_rows(3), np.ones(3, np.float32), 6, "6 prototypes", id="k 6"),
    ],
)
def test_what_cannot_be_clustered_is_refused(rows: FloatArray, weights: FloatArray, k: int, says: str):
    with pytest.raises(GalleryError, match=says):
        prototypes(rows, weights, k)
