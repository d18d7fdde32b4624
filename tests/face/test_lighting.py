"""Dark pictures are lifted by their own levels, bright ones are left alone, and faces are found and named."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.core.clock import SystemClock
from edge.core.types import Detection, Image, Quality, Refusal
from edge.face.lighting import (
    MOST_BLUR_PX,
    SHADOW_LIFT,
    glare_over,
    lift_of_face,
    lift_of_scene,
    noise_levels,
    without_glare,
)
from edge.face.quality import MIDDLE, is_back_lit, lighten
from edge.lab.photos.degrade import before_bright_door, dim, gaussian_blur
from edge.recognition.recognizer import Recognizer

GENERATOR = np.random.default_rng(8)
ROUGH = cv2.GaussianBlur(GENERATOR.normal(0, 1, (180, 320)), (0, 0), 4)
SCENE = (ROUGH / ROUGH.std() * 60 + 120).clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def alike(first: Image, second: Image) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def largest(recognizer: Recognizer, image: Image) -> Detection:
    return max(recognizer.detect(image), key=lambda face: face.size_px)


@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_a_bright_scene_is_left_alone(gain: float):
    assert lift_of_scene(dim(SCENE, gain), 4) is None


@pytest.mark.parametrize("gain", [0.25, 0.12, 0.06])
def test_a_dark_scene_fills_the_range_and_its_noise_is_smoothed(gain: float):
    dark = dim(SCENE, gain, 4)
    lift = lift_of_scene(dark, 4)
    lifted = lift.apply(dark)
    assert lift.factor == pytest.approx(1 / gain, rel=0.5)
    assert np.percentile(lifted, 99) > 180
    assert alike(lifted, SCENE) > alike(dark, SCENE)
    assert 0 < lift.blur_px <= MOST_BLUR_PX


def test_noise_asks_for_the_blur():
    blurs = [lift_of_scene(dim(SCENE, 0.25, noise), 4).blur_px for noise in (0, 2, 4, 8)]
    assert blurs == sorted(blurs)
    assert blurs[0] < 0.5 < 1 < blurs[-1]


def test_black_has_nothing_to_lift_and_stays_dark():
    black = np.zeros((180, 320, 3), np.uint8)
    assert lift_of_scene(black, 4).apply(black).max() == 0


@pytest.mark.parametrize("image", [np.zeros((1, 1, 3), np.uint8), np.full((3, 2, 3), 9, np.uint8)])
def test_the_smallest_pictures_are_lifted_too(image: Image):
    assert lift_of_scene(image, 4).apply(image).shape == image.shape


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_shadows_beside_highlights_are_lifted_and_the_highlights_kept(share: float):
    scene = dim(SCENE, 0.1)
    edge = round(320 * share)
    scene[:, edge:] = 200
    lift = lift_of_scene(scene, 4)
    assert lift is SHADOW_LIFT
    lifted = lift.apply(scene)
    assert lifted[:, :edge].std() > 2 * scene[:, :edge].std()
    assert 200 <= lifted[:, edge:].min() <= lifted.max() < 255


def test_no_level_is_lifted_past_a_brighter_one():
    tables = [SHADOW_LIFT.table]
    for gain in (0.02, 0.06, 0.12, 0.25):
        dark = dim(SCENE, gain, 4)
        tables += [lift_of_scene(dark, 4).table, lift_of_face(dark).table]
    for table in tables:
        assert (np.diff(table.astype(int)) >= 0).all()
        assert table[255] == 255


@pytest.mark.parametrize("sigma", [1, 4, 16])
def test_noise_is_measured_whatever_the_scene(sigma: float):
    noisy = np.clip(80 + SCENE / 4 + GENERATOR.normal(0, sigma, (180, 320, 1)), 0, 255).round()
    assert noise_levels(noisy.astype(np.uint8)) == pytest.approx(sigma, rel=0.15, abs=0.3)


@pytest.mark.parametrize(
    ("worse", "least"),
    [
        pytest.param(lambda image, px: dim(image, 0.25, 4), 3, id="dusk"),
        pytest.param(lambda image, px: dim(image, 0.12, 4), 6, id="night"),
    ],
)
def test_a_face_in_the_dark_is_found_judged_after_lifting_and_named(
    recognizer: Recognizer, man: Image, worse: Callable[[Image, float], Image], least: float
):
    dark = worse(man, 0)
    probe = recognizer.encode(dark, largest(recognizer, dark))
    assert not isinstance(probe, Quality), probe
    assert probe.quality.lifted >= least
    assert probe.quality.exposure > 0.5
    decision = recognizer.identify(probe, SystemClock().now())
    assert decision.subject is not None
    assert decision.subject.subject_id == "p-man"


def test_a_dark_face_before_a_bright_door_is_lifted_by_its_own_levels(recognizer: Recognizer, man: Image):
    face = largest(recognizer, man)
    x1, y1, x2, y2 = (face.box + np.float32([-80, -80, 80, 80])).clip(0).astype(int)
    near = man[y1:y2, x1:x2]
    door = before_bright_door(near, face.size_px, 0.25, 4)
    assert np.percentile(door, 75) > 220
    probe = recognizer.encode(door, largest(recognizer, door))
    assert not isinstance(probe, Quality), probe
    assert probe.quality.lifted > 2
    clear = recognizer.encode(near, largest(recognizer, near))
    assert recognizer.verify(probe, clear) > recognizer.rule.threshold_for(42)


def test_a_face_in_the_light_is_embedded_as_it_is(recognizer: Recognizer, man: Image):
    face = recognizer.align(man, largest(recognizer, man))
    crop = recognizer.embedder.align(man, face.found.landmarks)
    assert face.quality.lifted == 1
    assert np.array_equal(face.image, crop)
    assert lighten(crop)[0] is crop


def test_nobody_is_enrolled_from_a_face_that_had_to_be_lifted(recognizer: Recognizer, man: Image):
    dark = dim(man, 0.2)
    enrolment = recognizer.for_enrolment()
    refused = enrolment.encode(dark, largest(enrolment, dark))
    assert isinstance(refused, Quality)
    assert refused.refused == Refusal.EXPOSURE
    assert replace(enrolment.gate, max_lifted=25).judge(refused) is None


def near(recognizer: Recognizer, man: Image) -> tuple[Image, Detection]:
    """The man's head in the middle of a picture, and his face in it."""
    face = largest(recognizer, man)
    x1, y1, x2, y2 = (face.box + np.float32([-80, -80, 80, 80])).clip(0).astype(int)
    return man[y1:y2, x1:x2], face


def test_glare_is_taken_off_a_dark_face_and_the_face_stays(recognizer: Recognizer, man: Image):
    face = largest(recognizer, man)
    crop = dim(recognizer.embedder.align(man, face.landmarks), 0.25)
    y, x = np.mgrid[-1:1:112j, -1:1:112j]
    over = (120 * (x**2 + y**2) ** 2 / 4)[..., None]
    veiled = np.clip(crop + over, 0, 255).astype(np.uint8)
    clear = without_glare(veiled, glare_over(veiled), MIDDLE)
    before, after = (np.abs(each.astype(int) - crop).mean() for each in (veiled, clear))
    assert after < 0.7 * before
    assert alike(clear, crop) > alike(veiled, crop)


def test_a_face_is_back_lit_where_it_is_dim_before_something_bright(recognizer: Recognizer, man: Image):
    image, face = near(recognizer, man)
    bright, door = before_bright_door(image, face.size_px, 1.0), before_bright_door(image, face.size_px, 0.5)
    crops = [recognizer.embedder.align(each, largest(recognizer, each).landmarks) for each in (bright, door)]
    assert [is_back_lit(crop) for crop in crops] == [False, True]
    alone = np.zeros_like(crops[1])
    alone[MIDDLE] = crops[1][MIDDLE]
    assert not is_back_lit(alone), "dim before nothing"


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        pytest.param(lambda image, px: image, None, id="as it is"),
        pytest.param(
            lambda image, px: before_bright_door(image, px, 0.5, 4), Refusal.EXPOSURE, id="back-lit"
        ),
        pytest.param(lambda image, px: gaussian_blur(image, 4 * px / 100), Refusal.BLUR, id="blurred"),
    ],
)
def test_what_looks_alike_in_everybody_is_not_enrolled_and_is_seen_at_the_door(
    recognizer: Recognizer, man: Image, spoil: Callable[[Image, float], Image], refused: Refusal | None
):
    image, face = near(recognizer, man)
    bad = spoil(image, face.size_px)
    found = largest(recognizer, bad)
    enrolment = recognizer.for_enrolment()
    assert recognizer.align(bad, found).quality.refused is None
    assert enrolment.align(bad, found).quality.refused == refused
