"""Each degradation does what its name says, by figures computed by hand; its photo stays as it was."""

import cv2
import numpy as np
import pytest

from edge.lab.photos.degrade import (
    Degradation,
    before_bright_door,
    compress,
    conditions,
    degradations,
    dim,
    drawn,
    expose,
    gaussian_blur,
    infrared,
    motion_blur,
    shrink,
)

PHOTO = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 255, (90, 120, 3), np.uint8), (0, 0), 1.5)
DOT = np.zeros((41, 41, 3), np.uint8)
DOT[20, 20] = 255


def detail(image: np.ndarray) -> float:
    return float(cv2.Laplacian(image, cv2.CV_32F).var())


@pytest.mark.parametrize("way", [*degradations(), *conditions()], ids=lambda way: way.name)
def test_a_degradation_is_pure_and_gives_an_image(way: Degradation):
    before = PHOTO.copy()
    worse, again = way.apply(PHOTO, 60), way.apply(PHOTO, 60)
    assert np.array_equal(before, PHOTO)
    assert np.array_equal(worse, again)
    assert worse.dtype == np.uint8
    assert worse.ndim == 3
    assert np.array_equal(worse, PHOTO) == (way.name == "clean")


def test_names_are_unique_and_the_first_leaves_the_photo_as_it_is():
    for ways in (degradations(), conditions()):
        names = [way.name for way in ways]
        assert len(set(names)) == len(names)
        assert names[0] == "clean"


@pytest.mark.parametrize("kind", ["blur", "motion"])
def test_a_stronger_blur_leaves_less_detail(kind: str):
    left = [detail(way.apply(PHOTO, 100)) for way in degradations() if way.kind == kind]
    assert left == sorted(left, reverse=True)
    assert left[0] < detail(PHOTO)


def test_blur_grows_with_the_face():
    (way,) = [way for way in degradations() if way.name == "blur 2"]
    assert np.array_equal(way.apply(PHOTO, 150), gaussian_blur(PHOTO, 3.0))


@pytest.mark.parametrize(("angle", "long", "short"), [(0, 1, 0), (90, 0, 1)])
def test_motion_blur_spreads_a_dot_along_its_line_only(angle: float, long: int, short: int):
    spread = motion_blur(DOT, 11, angle)[..., 0].astype(float)
    extent = [int((spread.sum(axis=1 - axis) > 8).sum()) for axis in (0, 1)]
    assert 10 <= extent[long] <= 13
    assert extent[short] <= 3
    assert spread.sum() == pytest.approx(255, rel=0.1)


@pytest.mark.parametrize("worse", [gaussian_blur(PHOTO, 0), motion_blur(PHOTO, 1, 20), shrink(PHOTO, 1.5)])
def test_no_strength_no_change(worse: np.ndarray):
    assert np.array_equal(worse, PHOTO)
    assert worse is not PHOTO


def test_a_small_face_has_the_size_asked_for():
    (way,) = [way for way in degradations() if way.name == "small 24"]
    assert way.apply(PHOTO, 48).shape == (45, 60, 3)
    assert np.array_equal(way.apply(PHOTO, 20), PHOTO)


def test_light_is_scaled_before_gamma_and_clipped():
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert int(expose(grey, 0.25)[0, 0, 0]) == round(100 * 0.25 ** (1 / 2.2))
    assert int(expose(grey, 1.0)[0, 0, 0]) == 100
    assert int(expose(grey, 20.0)[0, 0, 0]) == 255


def test_noise_has_its_strength_and_differs_from_photo_to_photo():
    first, second = np.full((80, 80, 3), 120, np.uint8), np.full((80, 80, 3), 120, np.uint8)
    second[0, 0, 0] = 121
    noise = [expose(photo, 1.0, 6.0).astype(float) - 120 for photo in (first, second)]
    assert noise[0].std() == pytest.approx(6, rel=0.05)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_less_jpeg_quality_is_further_from_the_photo():
    errors = [float(np.abs(compress(PHOTO, q).astype(float) - PHOTO).mean()) for q in (95, 50, 20)]
    assert errors == sorted(errors)


def test_drawing_takes_every_way_and_the_same_one_for_the_same_photo():
    ways = [Degradation("level", n, lambda image, face_px, n=n: np.full_like(image, n)) for n in range(3)]
    photos = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3), np.uint8)
    way = drawn(ways)
    levels = [int(way.apply(photo, 50)[0, 0, 0]) for photo in photos]
    assert set(levels) == {0, 1, 2}
    assert levels == [int(way.apply(photo, 50)[0, 0, 0]) for photo in photos]
    with pytest.raises(ValueError, match="draw"):
        drawn([])


def test_a_short_exposure_multiplies_the_levels_and_leaves_the_noise():
    flat = np.full((80, 80, 3), 200, np.uint8)
    assert (dim(flat, 0.25) == 50).all()
    noisy = dim(flat, 0.25, 4.0)
    assert noisy.mean() == pytest.approx(50, abs=0.2)
    assert noisy.std() == pytest.approx(4, rel=0.1)


def test_the_head_before_a_bright_door_is_dark_and_the_rest_white():
    door = before_bright_door(np.full((200, 200, 3), 160, np.uint8), 60, 0.25)
    assert (door[90:110, 90:110] == 40).all()
    assert (door[:, [0, -1]] == 250).all()


def test_infrared_has_no_colour_and_its_lamp_shines_in_the_middle():
    red = np.zeros((100, 100, 3), np.uint8)
    red[..., 2] = 200
    shown = infrared(red)
    assert (shown[..., 0] == shown[..., 1]).all()
    assert (shown[..., 0] == shown[..., 2]).all()
    assert shown[50, 50, 0] > 1.5 * shown[0, 0, 0]
    assert infrared(red[..., ::-1]).max() == 0
