"""A camera's view: what is of no use is told within five seconds, and what only looks so is not."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.camera.sources import frames_of
from edge.camera.view import FROZEN_MOST_S, RELEARN_S, ViewFault, ViewWatch
from edge.core.types import Image
from tests.support.clock import SteppedClock

SIZE = (360, 640)
FPS = 1.0
KNOWN_S = 70
"""After so long a view is known."""

Show = Callable[[Image], Image]
Told = list[tuple[float, tuple[ViewFault, ...]]]


def room(seed: int = 1) -> Image:
    """Return a still scene: furniture of all sizes, and a floor of fine texture."""
    random = np.random.default_rng(seed)
    image = np.full((*SIZE, 3), 110, np.uint8)
    for _ in range(120):
        x, y = (int(random.integers(0, side)) for side in (SIZE[1], SIZE[0]))
        width, height = (int(side) for side in random.integers(8, 120, 2))
        colour = tuple(int(part) for part in random.integers(20, 235, 3))
        cv2.rectangle(image, (x, y), (x + width, y + height), colour, -1)
    floor = random.integers(60, 180, (*[side // 6 for side in SIZE], 3)).astype(np.uint8)
    image[220:] = cv2.resize(floor, SIZE[::-1], interpolation=cv2.INTER_NEAREST)[220:]
    return image


ROOM, OTHER_ROOM = room(), room(2)


def as_it_is(image: Image) -> Image:
    return image


def dimmed(gain: float) -> Show:
    return lambda image: np.asarray(image * gain, np.uint8)


def blurred(sigma_px: float) -> Show:
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


def shifted(right_px: int, down_px: int) -> Show:
    return lambda image: np.roll(image, (down_px, right_px), (0, 1))


def plain(level: int) -> Show:
    return lambda image: np.full_like(image, level)


def hand(image: Image) -> Image:
    """A hand before the lens: dark, and some light from one side."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    glow = 40 + 50 * np.exp(-((x - 512) ** 2 + (y - 72) ** 2) / (2 * 256**2))
    return np.repeat(np.asarray(glow, np.uint8)[..., None], 3, 2)


def infrared(image: Image) -> Image:
    """The picture after the switch to infrared: grey, other contrasts, some of them turned over."""
    blue, green, red = (image[..., part].astype(np.float32) for part in range(3))
    mixed = 0.6 * red + 0.3 * (255 - blue) + 0.1 * green
    return np.repeat(np.asarray(150 * (mixed / 255) ** 0.7, np.uint8)[..., None], 3, 2)


def close_by(image: Image) -> Image:
    """Somebody who stands close: half of the view is a smooth face and a coat."""
    shown = image.copy()
    cv2.ellipse(shown, (320, 190), (130, 170), 0, 0, 360, (120, 150, 190), -1)
    cv2.rectangle(shown, (130, 300), (510, 360), (60, 50, 45), -1)
    return shown


@cache
def noises(sigma: float) -> list[Image]:
    random = np.random.default_rng(5)
    return [np.asarray(random.normal(0, sigma, (*SIZE, 3)), np.int16) for _ in range(5)]


def watch(*parts: tuple[float, Show, float], view: ViewWatch | None = None) -> Told:
    """Show the room until a moment, changed, with noise of some grey levels; return what was told when."""
    view = view or ViewWatch("front")
    told: Told = []
    at_s = 0.0
    for until_s, show, noise in parts:
        while at_s < until_s:
            image = show(ROOM)
            if noise:
                image = cv2.add(image, noises(noise)[round(at_s * FPS) % 5], dtype=0)
            view.look(np.asarray(image, np.uint8), at_s)
            if view.faults != (told[-1][1] if told else ()):
                told.append((at_s, view.faults))
            at_s += 1 / FPS
    return told


BAD = [
    pytest.param(ViewFault.BLACK, plain(0), 0, id="black"),
    pytest.param(ViewFault.BLACK, plain(4), 5, id="black, with the noise of a high gain"),
    pytest.param(ViewFault.COVERED, hand, 2, id="a hand"),
    pytest.param(ViewFault.COVERED, plain(120), 3, id="tape"),
    pytest.param(ViewFault.COVERED, plain(255), 0, id="a lamp"),
    pytest.param(ViewFault.FROZEN, as_it_is, 0, id="frozen"),
    pytest.param(ViewFault.DEFOCUSED, blurred(4), 2, id="out of focus"),
    pytest.param(ViewFault.DEFOCUSED, blurred(10), 2, id="far out of focus"),
    pytest.param(ViewFault.MOVED, shifted(60, 30), 2, id="turned a little"),
    pytest.param(ViewFault.MOVED, lambda image: OTHER_ROOM, 2, id="turned away"),
    pytest.param(ViewFault.MOVED, lambda image: image[::-1], 2, id="upside down"),
]


@pytest.mark.parametrize(("fault", "show", "noise"), BAD)
def test_a_view_of_no_use_is_told_within_five_seconds_and_until_it_is_mended(
    fault: ViewFault, show: Show, noise: float
):
    view = ViewWatch("front")
    told = watch((KNOWN_S, as_it_is, 2), (KNOWN_S + 10, show, noise), (KNOWN_S + 15, as_it_is, 2), view=view)
    assert [faults for _, faults in told] == [(fault,), ()]
    assert told[0][0] - KNOWN_S <= 5
    assert told[1][0] - KNOWN_S - 10 <= 1


@pytest.mark.parametrize(("fault", "show", "noise"), BAD)
def test_nothing_is_decided_by_what_shows_nothing(fault: ViewFault, show: Show, noise: float):
    view = ViewWatch("front")
    watch((KNOWN_S, as_it_is, 2), (KNOWN_S + 10, show, noise), view=view)
    assert view.faults == (fault,)
    assert view.blind == (fault in (ViewFault.BLACK, ViewFault.COVERED, ViewFault.FROZEN))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([(110, as_it_is, 2)], id="a still scene"),
        pytest.param([(110, dimmed(0.06), 4)], id="night"),
        pytest.param([(70, as_it_is, 2), (110, dimmed(0.1), 4)], id="the light goes out"),
        pytest.param([(70, dimmed(0.1), 4), (110, as_it_is, 2)], id="the light goes on"),
        pytest.param([(70, as_it_is, 2), (110, infrared, 4)], id="the switch to infrared"),
        pytest.param([(70, dimmed(0.1), 4), (110, infrared, 4)], id="the switch to infrared at dusk"),
        pytest.param(
            [(70 + at, dimmed(1 - 0.02 * at), 2 + at // 15) for at in range(46)], id="the sun goes down"
        ),
        pytest.param(
            [(70, as_it_is, 2), (100, close_by, 2), (120, as_it_is, 2)], id="somebody stands close by"
        ),
        pytest.param([(25, close_by, 2), (110, as_it_is, 2)], id="somebody stands there when it starts"),
        pytest.param([(70, as_it_is, 2), (72, shifted(60, 30), 2), (90, as_it_is, 2)], id="a blow"),
        pytest.param([(70, as_it_is, 2), (72, plain(0), 2), (90, as_it_is, 2)], id="a lamp switched off"),
        pytest.param([(90, as_it_is, 1)], id="little noise"),
        pytest.param([(90, as_it_is, 6)], id="much noise"),
    ],
)
def test_what_cameras_show_in_a_day_is_no_fault(parts: list[tuple[float, Show, float]]):
    assert watch(*parts) == []


@pytest.mark.parametrize("name", ["single_face.mp4", "no_face.mp4", "bikes.mp4", "WolfgangLanger_Pexels.mp4"])
def test_a_real_clip_is_no_fault(media: Path, name: str):
    clip = ReplayCamera("clip", media / name, clock=SteppedClock(), realtime=False)
    frames = [frame.image for frame in frames_of(clip)][::8]
    there_and_back = [*frames, *frames[-2:0:-1]]
    view = ViewWatch("front")
    for number in range(80):
        view.look(there_and_back[number % len(there_and_back)], float(number))
        assert view.faults == ()


def test_a_new_view_is_the_right_one_after_ten_minutes():
    away = (KNOWN_S + RELEARN_S + 20, lambda image: OTHER_ROOM, 2)
    told = watch((KNOWN_S, as_it_is, 2), away, (KNOWN_S + RELEARN_S + 30, as_it_is, 2))
    moved, settled, back = told
    assert (moved[1], settled[1], back[1]) == ((ViewFault.MOVED,), (), (ViewFault.MOVED,))
    assert RELEARN_S <= settled[0] - KNOWN_S <= RELEARN_S + 10


def test_a_camera_that_sends_a_still_scene_without_noise_is_told_more_and_more_seldom():
    """Some compress what does not change so that frames between two key frames are the same."""
    view, told_s = ViewWatch("front"), []
    for number in range(round(200 * FPS)):
        image = cv2.add(ROOM, np.full_like(ROOM, number // round(12 * FPS) % 2))
        before, at_s = view.faults, number / FPS
        view.look(np.asarray(image, np.uint8), at_s)
        if view.faults and not before:
            told_s.append(at_s)
    assert 1 <= len(told_s) <= 3
    assert FROZEN_MOST_S > 12
    assert all(later - earlier >= 12 for earlier, later in pairwise(told_s))


def test_a_camera_that_was_away_is_not_frozen_and_still_known():
    view = ViewWatch("front")
    watch((KNOWN_S, as_it_is, 2), view=view)
    for at_s in (100.0, 200.0, 300.0):
        view.look(ROOM, at_s)
        assert view.faults == ()
    for at_s in range(301, 306):
        view.look(np.asarray(cv2.add(OTHER_ROOM, at_s % 2), np.uint8), float(at_s))
    assert view.faults == (ViewFault.MOVED,)


def test_a_frame_of_another_size_begins_anew():
    view = ViewWatch("front")
    watch((KNOWN_S, as_it_is, 2), view=view)
    for at_s in range(KNOWN_S, KNOWN_S + 10):
        small = cv2.resize(OTHER_ROOM, (320, 240))
        view.look(np.asarray(cv2.add(small, at_s % 2), np.uint8), float(at_s))
    assert view.faults == ()
