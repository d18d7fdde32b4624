"""The motion gate: still scenes are skipped, moving faces are not, nobody who stands still is forgotten."""

from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from edge.camera.motion import REFRESH_S, MotionGate
from edge.core.types import Frame

RNG = np.random.default_rng(0)
SCENE = cv2.GaussianBlur(RNG.integers(0, 255, (480, 640, 3), np.uint8), (0, 0), 4)


def frame(image: np.ndarray, at_s: float) -> Frame:
    return Frame("front", image, datetime(2026, 1, 1, tzinfo=UTC), at_s, 0)


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(image + RNG.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def gate() -> MotionGate:
    gate = MotionGate()
    assert gate.passes(frame(SCENE, 0.0)), "the first frame always passes"
    return gate


@pytest.mark.parametrize("sigma", [0.5, 2, 4])
def test_sensor_noise_is_not_motion(gate: MotionGate, sigma: float):
    assert not gate.passes(frame(noisy(SCENE, sigma), 0.1))


def test_a_small_face_that_walks_by_is_motion(gate: MotionGate):
    moved = SCENE.copy()
    moved[200:248, 300:340] = 255 - moved[200:248, 300:340] // 2
    assert gate.passes(frame(moved, 0.1))


def test_a_slow_change_adds_up_to_motion(gate: MotionGate):
    assert any(
        gate.passes(frame(np.clip(SCENE.astype(int) + step, 0, 255).astype(np.uint8), step / 1000))
        for step in range(40)
    )


def test_a_still_scene_is_looked_at_again_regularly(gate: MotionGate):
    passed = [at_s for at_s in np.arange(0.1, 5, 0.1) if gate.passes(frame(SCENE, at_s))]
    assert len(passed) == 4
    assert np.allclose(np.diff(passed), REFRESH_S, atol=0.11)


def test_another_resolution_passes(gate: MotionGate):
    assert gate.passes(frame(SCENE[:240, :320], 0.1))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 4000)])
def test_no_size_is_too_small(shape: tuple[int, int]):
    tiny, gate = np.zeros((*shape, 3), np.uint8), MotionGate()
    assert gate.passes(frame(tiny, 0.0))
    assert not gate.passes(frame(tiny, 0.1))
    assert gate.passes(frame(tiny + 255, 0.2))


def swinging(step: int) -> np.ndarray:
    """A branch that goes to and fro before the scene."""
    image = SCENE.copy()
    left = 100 + 40 * (step % 4)
    image[100:300, left : left + 30] = 20
    return image


def test_what_goes_to_and_fro_changes_and_is_soon_nothing_new(gate: MotionGate):
    for step in range(20):
        assert gate.passes(frame(swinging(step), 0.1 + step / 15))
    movement = gate.movement
    assert movement is not None
    assert movement.changed.max() > 0.1
    assert movement.new.max() < 0.02
    somebody = swinging(20)
    somebody[150:250, 400:440] = 255 - somebody[150:250, 400:440] // 2
    assert gate.passes(frame(somebody, 0.1 + 20 / 15))
    assert gate.movement is not None
    row, column = np.unravel_index(gate.movement.new.argmax(), gate.movement.new.shape)
    assert (row, column) in {(2, 6), (3, 6)}, "cells of 64 px: where somebody came"
    assert gate.movement.touches(np.array([400, 150, 440, 250], np.float32))
    assert not gate.movement.touches(np.array([500, 20, 560, 80], np.float32))


@pytest.mark.parametrize("shape", [(480, 640), (1080, 1920), (700, 901), (2160, 3840)])
def test_cells_lie_where_they_say(shape: tuple[int, int]):
    scene = np.full((*shape, 3), 100, np.uint8)
    gate = MotionGate()
    gate.passes(frame(scene, 0.0))
    moved = scene.copy()
    moved[4 * 64 : 5 * 64, 3 * 64 : 4 * 64] = 200
    assert gate.passes(frame(moved, 0.1))
    assert gate.movement is not None
    expected = np.zeros(gate.movement.changed.shape, np.float32)
    expected[4, 3] = 1
    assert np.array_equal(gate.movement.changed, expected)
