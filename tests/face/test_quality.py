"""The quality gate: each reason has its shot, and a good shot weighs more than a bad one."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.core.types import Detection, Refusal
from edge.face.quality import (
    DARK_GLASSES,
    EYES,
    QualityGate,
    eye_shade,
    sharpness,
    width_ratio,
    yaw_deg,
)
from edge.lab.photos.degrade import motion_blur

GATE = QualityGate(min_face_px=40, min_sharpness=0.15, max_yaw_deg=45, min_score=0.7)
FRAME = (480, 640, 3)
TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8), (0, 0), 1.2)


def turned(yaw: float) -> np.ndarray:
    """Landmarks of a head of 100 px turned by `yaw`, by the geometry of two eyes and a nose before them."""
    angle = np.radians(yaw)
    eye, nose = 20 * np.cos(angle), 40 * 0.5 * np.sin(angle)
    mouth = 15 * np.cos(angle)
    return np.array(
        [[300 - eye, 200], [300 + eye, 200], [300 + nose, 225], [300 - mouth, 245], [300 + mouth, 245]],
        np.float32,
    )


def face(*, yaw: float = 0, px: float = 100, score: float = 0.9, at: float = 0) -> Detection:
    box = np.array([250, 160, 250 + px, 160 + px * 1.2], np.float32)
    return Detection(box, turned(yaw) + np.float32(at), score)


@pytest.mark.parametrize(
    ("detection", "reason"),
    [
        pytest.param(face(), None, id="good"),
        pytest.param(face(px=39), Refusal.SIZE, id="small"),
        pytest.param(face(score=0.6), Refusal.SCORE, id="unsure"),
        pytest.param(face(yaw=60), Refusal.POSE, id="turned right"),
        pytest.param(face(yaw=-60), Refusal.POSE, id="turned left"),
        pytest.param(face(at=-290), Refusal.CROPPED, id="over the edge"),
    ],
)
def test_a_shot_is_refused_for_what_is_wrong_with_it(detection: Detection, reason: Refusal | None):
    assert GATE.refuse(detection, FRAME) == reason


@pytest.mark.parametrize("yaw", [-70, -30, -5, 0, 10, 45])
def test_yaw_follows_the_geometry_of_the_head(yaw: float):
    assert yaw_deg(turned(yaw)) == pytest.approx(yaw, abs=0.5)


def test_yaw_does_not_depend_on_roll():
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    assert yaw_deg(turned(25) @ turn.T) == pytest.approx(25, abs=0.5)


def test_eyes_that_coincide_count_as_turned_away():
    assert yaw_deg(np.zeros((5, 2), np.float32)) == 90


def test_sharpness_falls_with_blur_and_stays_in_range():
    grey = cv2.cvtColor(TEXTURE, cv2.COLOR_BGR2GRAY)
    values = [sharpness(grey if not s else cv2.GaussianBlur(grey, (0, 0), s)) for s in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] < GATE.min_sharpness < values[0] < 1


@pytest.mark.parametrize("angle", [0, 90])
def test_motion_is_a_blur_too_whichever_way_it_goes(angle: float):
    grey = cv2.cvtColor(TEXTURE, cv2.COLOR_BGR2GRAY)
    moved = motion_blur(TEXTURE, 25, angle)
    assert sharpness(cv2.cvtColor(moved, cv2.COLOR_BGR2GRAY)) < sharpness(grey) / 2


def test_noise_does_not_pass_for_detail():
    grey = np.full((84, 80), 60, np.uint8)
    noisy = np.clip(grey + np.random.default_rng(1).normal(0, 6, grey.shape), 0, 255).astype(np.uint8)
    assert sharpness(grey) == 0
    assert sharpness(noisy) < 0.35


def test_enrolment_is_never_looser_than_recognition():
    gate = QualityGate(min_face_px=24, min_sharpness=0.15, max_yaw_deg=45, min_score=0.7)
    strict = gate.for_enrolment()
    assert strict.refuse(face(px=39), FRAME) == Refusal.SIZE
    assert gate.refuse(face(px=39), FRAME) is None
    soft = cv2.GaussianBlur(TEXTURE, (0, 0), 1.8)
    assert gate.measure(soft, face()).refused is None
    assert strict.measure(soft, face()).refused == Refusal.BLUR
    dearer = replace(
        gate,
        min_face_px=80,
        min_sharpness=0.5,
        min_exposure=0.9,
        max_lifted=1.0,
        refuses_covered=True,
        min_recognisability=0.9,
        max_tilt_deg=10,
        min_visible=1.0,
    )
    assert dearer.for_enrolment() == dearer


def test_a_tilted_head_is_refused_at_enrolment_only():
    angle = np.radians(40)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = face()
    middle = upright.landmarks.mean(axis=0)
    tilted = replace(upright, landmarks=((upright.landmarks - middle) @ turn.T + middle).astype(np.float32))
    assert GATE.refuse(tilted, FRAME) is None
    assert GATE.for_enrolment().refuse(tilted, FRAME) == Refusal.TILT
    assert GATE.for_enrolment().refuse(upright, FRAME) is None


@pytest.mark.parametrize(
    ("sure", "at_the_door", "enrolled"),
    [
        (0.999, None, None),
        (0.31, None, None),
        (0.29, None, Refusal.RECOGNISABILITY),
        (0.009, Refusal.RECOGNISABILITY, Refusal.RECOGNISABILITY),
        (None, None, None),
    ],
)
def test_a_shot_weighs_as_much_as_the_embedder_is_sure(
    sure: float | None, at_the_door: Refusal | None, enrolled: Refusal | None
):
    measured = GATE.measure(TEXTURE, face())
    known = GATE.recognised(measured, sure)
    assert known.recognisability == sure
    assert known.weight == pytest.approx(measured.weight * (1.0 if sure is None else sure))
    assert (known.refused, GATE.for_enrolment().recognised(measured, sure).refused) == (at_the_door, enrolled)
    assert GATE.for_enrolment().judge(replace(known, refused=None)) == enrolled


def test_a_shot_that_was_refused_before_keeps_its_reason():
    blurred = GATE.measure(cv2.GaussianBlur(TEXTURE, (0, 0), 6), face())
    assert GATE.recognised(blurred, 0.0).refused == Refusal.BLUR
    assert GATE.recognised(blurred, 0.0).weight > 0


def test_eyes_behind_sunglasses_are_darker_than_the_cheeks():
    crop = np.full((112, 112, 3), 150, np.uint8)
    assert eye_shade(crop) == pytest.approx(1)
    for eye in EYES:
        crop[eye] = 40
    assert eye_shade(crop) < DARK_GLASSES
    crop[EYES[0]] = 110  # one eye is seen
    assert eye_shade(crop) > DARK_GLASSES
    assert eye_shade(crop, 40) > DARK_GLASSES
    assert eye_shade(crop, -40) < DARK_GLASSES, (
        "the nearer eye of a head that looks to the left is the right one"
    )
    assert eye_shade(np.zeros((112, 112, 3), np.uint8)) == 0


def test_the_width_of_a_face_is_told_whatever_way_it_looks():
    points = np.array([[-1, -1], [1, -1], [0, 0], [-0.8, 1], [0.8, 1]], np.float32)
    assert width_ratio(points) == pytest.approx(1)
    assert width_ratio(points * np.float32([0.5, 1])) == pytest.approx(0.5)
    turned = points * np.float32([np.cos(np.radians(30)), 1])
    turned[2, 0] = np.sin(np.radians(30)) * 2 * 0.5  # the nose stands out by half of the distance of the eyes
    assert width_ratio(turned) == pytest.approx(1, abs=0.02)
    assert np.isfinite(width_ratio(np.zeros((5, 2), np.float32)))


@pytest.mark.parametrize(
    ("crop", "reason"),
    [
        pytest.param(TEXTURE, None, id="good"),
        pytest.param(cv2.GaussianBlur(TEXTURE, (0, 0), 6), Refusal.BLUR, id="blurred"),
        pytest.param((TEXTURE // 12), Refusal.BLUR, id="dark and flat"),
        pytest.param(
            np.where(TEXTURE[..., :1] > 128, 255, 0).astype(np.uint8).repeat(3, axis=2),
            Refusal.EXPOSURE,
            id="burnt out",
        ),
    ],
)
def test_the_crop_is_judged_too(crop: np.ndarray, reason: Refusal | None):
    assert GATE.measure(crop, face()).refused == reason


def test_an_earlier_refusal_is_kept():
    assert GATE.measure(TEXTURE, face(), Refusal.SIZE).refused == Refusal.SIZE


@pytest.mark.parametrize(
    "worse",
    [
        pytest.param((TEXTURE, face(px=45)), id="smaller"),
        pytest.param((TEXTURE, face(yaw=35)), id="turned"),
        pytest.param((TEXTURE, face(score=0.75)), id="less sure"),
        pytest.param((cv2.GaussianBlur(TEXTURE, (0, 0), 1.5), face()), id="softer"),
        pytest.param(
            (np.vstack([TEXTURE[:70], np.full((42, 112, 3), 255, np.uint8)]), face()), id="half lit"
        ),
    ],
)
def test_a_worse_shot_weighs_less(worse: tuple[np.ndarray, Detection]):
    assert GATE.measure(*worse).weight < GATE.measure(TEXTURE, face()).weight
