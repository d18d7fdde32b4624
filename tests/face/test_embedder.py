"""Alignment: what goes in turned, scaled and shifted comes out upright on the template."""

import cv2
import numpy as np
import pytest

from edge.face.embedder import align, similarity_transform
from edge.face.manifest import load_manifest

TEMPLATE = np.array(load_manifest("sface").alignment.points, np.float32)


def moved(points: np.ndarray, scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scale * points @ turn.T + shift).astype(np.float32)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("degrees", [-170, -30, 0, 45, 90])
def test_a_similarity_is_recovered_exactly(scale: float, degrees: float):
    matrix = similarity_transform(moved(TEMPLATE, scale, degrees, (200, 90)), TEMPLATE)
    back = moved(TEMPLATE, scale, degrees, (200, 90)) @ matrix[:, :2].T + matrix[:, 2]
    assert np.allclose(back, TEMPLATE, atol=1e-3)


def test_the_fit_is_the_least_squares_one():
    rng = np.random.default_rng(1)
    source = moved(TEMPLATE, 2, 20, (50, 60)) + rng.normal(0, 3, (5, 2)).astype(np.float32)
    # The same problem as a linear one in (a, b, tx, ty): x' = a x - b y + tx, y' = b x + a y + ty.
    rows = [[x, -y, 1, 0] for x, y in source] + [[y, x, 0, 1] for x, y in source]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), TEMPLATE.T.reshape(-1), rcond=None)[0]
    assert np.allclose(similarity_transform(source, TEMPLATE), [[a, -b, tx], [b, a, ty]], atol=1e-4)


def test_a_mirrored_face_is_not_mirrored_back():
    matrix = similarity_transform(TEMPLATE * np.array([-1, 1], np.float32), TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_points_that_coincide_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.ones((5, 2), np.float32), TEMPLATE)


def test_an_aligned_picture_shows_the_landmarks_on_the_template():
    image = np.zeros((400, 400, 3), np.uint8)
    points = moved(TEMPLATE, 2.0, 25, (120, 60))
    for x, y in points:
        cv2.circle(image, (round(float(x)), round(float(y))), 4, (255, 255, 255), -1)
    crop = align(image, points, TEMPLATE, (112, 112))
    assert crop.shape == (112, 112, 3)
    for x, y in TEMPLATE:
        assert crop[round(float(y)), round(float(x))].min() > 150


def test_a_face_over_the_edge_is_padded_with_black():
    crop = align(np.full((60, 60, 3), 255, np.uint8), TEMPLATE - 30, TEMPLATE, (112, 112))
    assert crop[5, 5].max() == 0
    assert crop[60, 60].min() == 255
