"""Alignment: what goes in turned, scaled and shifted comes out upright on the template."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.core.types import Image
from edge.face.choice import load_embedder
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


@pytest.fixture(scope="module")
def crop() -> Image:
    """A picture as aligned faces are: BGR uint8 (112, 112, 3), smooth."""
    noise = np.random.default_rng(5).integers(0, 256, (14, 14, 3), np.uint8)
    return cv2.resize(noise, (112, 112), interpolation=cv2.INTER_CUBIC)


def test_a_pair_is_both_answers_in_one_vector_by_their_shares(recommended_dir: Path, crop: Image):
    manifest, pair = load_embedder("sface-0095", recommended_dir, threads=1)
    first_manifest, first = load_embedder("sface-int8", recommended_dir, threads=1)
    second_manifest, second = load_embedder("omz-0095-int8", recommended_dir, threads=1)
    vector, length = pair.embed(crop)
    assert (pair.model_id, pair.dim) == (manifest.model_id, 384)
    assert vector.shape == (384,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    alone, alone_length = first.embed(crop)
    assert length == alone_length, "recognisability is that of the first"
    assert np.allclose(vector[:128], np.sqrt(0.7) * alone, atol=1e-6)
    templates = [np.array(m.alignment.points, np.float32) for m in (first_manifest, second_manifest)]
    seen_by_second = align(crop, templates[0], templates[1], (128, 128))
    assert np.allclose(vector[128:], np.sqrt(0.3) * second.embed(seen_by_second)[0], atol=1e-6)


def test_a_pair_cuts_faces_out_as_its_first_does(recommended_dir: Path, crop: Image):
    _, pair = load_embedder("sface-0095", recommended_dir, threads=1)
    _, first = load_embedder("sface-int8", recommended_dir, threads=1)
    picture = cv2.resize(crop, (300, 300))
    landmarks = moved(TEMPLATE, 2.5, 10, (20, 5))
    assert np.array_equal(pair.align(picture, landmarks), first.align(picture, landmarks))
    assert pair.lower_half_length(crop) == first.lower_half_length(crop)


def test_the_second_template_lies_within_the_crop_of_the_first():
    first, second = (load_manifest(name) for name in ("sface-int8", "omz-0095-int8"))
    back = similarity_transform(np.array(second.alignment.points, np.float32), TEMPLATE)
    corners = np.array([[0, 0], [127, 0], [0, 127], [127, 127]]) @ back[:, :2].T + back[:, 2]
    assert (corners >= 0).all()
    assert (corners <= first.input.size[0] - 1).all()


def test_the_edge_of_the_frame_takes_its_share_of_a_face(models_dir: Path):
    _, embedder = load_embedder("sface-int8", models_dir, threads=1)
    assert embedder.visible(TEMPLATE, (112, 112, 3)) == 1.0
    assert embedder.visible(TEMPLATE - np.float32((16.5, 0)), (112, 112, 3)) == pytest.approx(79 / 80)
    assert embedder.visible(TEMPLATE - np.float32((55.5, 0)), (112, 112, 3)) == pytest.approx(0.5)
    assert embedder.visible(TEMPLATE + np.float32((0, 53.5)), (112, 112, 3)) == pytest.approx(0.5)
    assert embedder.visible(TEMPLATE + np.float32((0, 11.5)), (112, 112, 3)) == 1.0
    assert embedder.visible(TEMPLATE + np.float32((0, 500)), (112, 112, 3)) == 0.0
