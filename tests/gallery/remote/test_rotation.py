"""The secret rotation: the same answers within a site, nothing in common between two."""

import numpy as np
import pytest

from edge.gallery.remote.rotation import Rotation
from tests.support.gallery_samples import unit_rows


@pytest.mark.parametrize("dim", [2, 128, 512])
def test_angles_stay_as_they_are(dim: int):
    rows = unit_rows(50, dim)
    turned = Rotation(b"secret", dim).apply(rows)
    assert turned.dtype == np.float32
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, atol=2e-6)


def test_the_same_secret_is_the_same_rotation_everywhere():
    rows = unit_rows(3)
    first = Rotation(b"secret", 128).apply(rows)
    np.testing.assert_array_equal(first, Rotation(b"secret", 128).apply(rows))
    assert float(first[0, 0]) == pytest.approx(PINNED, abs=1e-5)


PINNED = 0.112083666
"""Of the first row, so that a new release of numpy does not turn a site's templates into noise unnoticed."""


def test_templates_of_two_sites_have_nothing_to_do_with_each_other():
    rows = unit_rows(200)
    here, there = (Rotation(secret, 128).apply(rows) for secret in (b"here", b"there"))
    alike = np.abs(np.sum(here * there, axis=1))
    strangers = np.abs(np.sum(here[1:] * there[:-1], axis=1))
    assert alike.mean() == pytest.approx(strangers.mean(), abs=0.02)
    assert alike.max() < 0.4
