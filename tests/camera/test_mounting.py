"""Frames are shown upright and in their true shape, whatever hangs the wrong way round or is squeezed."""

import logging
from pathlib import Path

import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.camera.mounting import MountedCamera, turned
from edge.camera.sources import OpenCVCamera
from edge.core.clock import SystemClock
from edge.core.types import Frame, Image
from tests.support.streams import MjpegServer, make_clip

CORNERS = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[..., None].repeat(3, axis=2)
"""A picture of 2 x 3 pixels, each of another shade."""


class Pictures:
    """A camera that shows pictures of rising brightness, each in memory that the next one is written to."""

    description, live, paced = "pictures", False, False

    def __init__(self, count: int = 1) -> None:
        self._left, self._image, self.closed = count, CORNERS.copy(), False

    def open(self) -> None:
        self._image = CORNERS.copy()

    def read(self) -> Frame | None:
        if not self._left:
            return None
        self._left -= 1
        self._image += 10
        return Frame("front", self._image, SystemClock().now(), 0.0, 0)

    def interrupt(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True


def shades(image: Image) -> list[list[int]]:
    return image[..., 0].astype(int).tolist()


@pytest.mark.parametrize(
    ("rotate", "flip", "shown"),
    [
        (0, True, [[13, 12, 11], [16, 15, 14]]),
        (90, False, [[14, 11], [15, 12], [16, 13]]),
        (180, False, [[16, 15, 14], [13, 12, 11]]),
        (270, False, [[13, 16], [12, 15], [11, 14]]),
        (90, True, [[11, 14], [12, 15], [13, 16]]),
    ],
)
def test_a_frame_is_turned_clockwise_and_then_mirrored(rotate: int, flip: bool, shown: list[list[int]]):
    camera = MountedCamera(Pictures(), rotate=rotate, flip=flip)
    camera.open()
    frame = camera.read()
    assert frame is not None
    assert shades(frame.image) == shown
    assert camera.read() is None


def test_a_picture_that_is_turned_four_times_is_as_it_was():
    assert shades(turned(CORNERS, 0)) == shades(CORNERS)
    assert shades(turned(turned(CORNERS, 90), 270)) == shades(CORNERS)
    assert shades(turned(turned(CORNERS, 180), 180)) == shades(CORNERS)


def test_frames_that_are_held_are_not_written_over():
    camera = MountedCamera(Pictures(8), rotate=90, flip=True)
    camera.open()
    held = [frame.image for _ in range(8) if (frame := camera.read()) is not None]
    assert [int(image[0, 0, 0]) for image in held] == [11 + 10 * number for number in range(8)]


def test_what_is_asked_of_a_mounted_camera_reaches_the_camera():
    inner = Pictures()
    camera = MountedCamera(inner, rotate=180)
    assert (camera.description, camera.live, camera.paced) == ("pictures", False, False)
    camera.interrupt()
    assert inner.closed
    inner.closed = False
    camera.close()
    assert inner.closed


@pytest.mark.parametrize(
    ("pixel", "shape"),
    [("1/1", (240, 320)), ("4/3", (240, 427)), ("1/2", (480, 320)), ("201/200", (240, 320))],
)
def test_a_clip_is_shown_in_its_true_shape(tmp_path: Path, pixel: str, shape: tuple[int, int]):
    clip = make_clip(tmp_path / "clip.mp4", pixel=pixel, seconds=0.2)
    camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
    camera.open()
    frames = [frame for _ in range(3) if (frame := camera.read()) is not None]
    camera.close()
    assert [frame.image.shape for frame in frames] == [(*shape, 3)] * 3


def test_a_pixel_that_no_camera_has_is_told_once_and_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    clip = make_clip(tmp_path / "clip.mp4", pixel="100/1", seconds=0.2)
    camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
    camera.open()
    with caplog.at_level(logging.WARNING):
        shapes = {frame.image.shape for _ in range(3) if (frame := camera.read()) is not None}
    camera.close()
    assert shapes == {(240, 320, 3)}
    assert [record.message for record in caplog.records] == [
        "a pixel of 100 by 1 is not believed: frames are shown as they come"
    ]


def test_a_stream_is_shown_in_its_true_shape():
    with MjpegServer(pixel=(2, 1)) as server:
        camera = OpenCVCamera("front", server.url, clock=SystemClock(), open_timeout_s=5, read_timeout_s=5)
        camera.open()
        frame = camera.read()
        camera.close()
    assert frame is not None
    assert frame.image.shape == (120, 320, 3)
