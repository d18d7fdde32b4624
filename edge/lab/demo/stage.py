"""Clips of harder visits, made on the spot out of the fetched ones: by night, far away, two people at once.

What is made is as synthetic as it sounds: levels are reduced and noise is added, a person is cut out and made
small, two clips stand side by side. The faces and their movements are those of the clips.
"""

from collections.abc import Iterable, Iterator
from itertools import cycle, islice, repeat
from pathlib import Path

import cv2
import numpy as np

from edge.camera.clips import ReplayCamera
from edge.camera.sources import MJPG
from edge.core.clock import SystemClock
from edge.core.errors import MediaError
from edge.core.types import FloatArray, Image
from edge.lab.photos.degrade import DARK_GAIN_NOISE, dim

FPS = 15

DARK_GAIN = 0.12
"""Times the levels by night: an exposure of an eighth, in which people make out hardly anything."""

DARK_SIZE, FAR_SIZE, HALF_SIZE = (640, 360), (1280, 720), (640, 360)
"""(width, height) in pixels: of the dark clip, of the far one, and of each half of the clip of two people."""

DARK_AFTER_S = 2.5
"""How much of the beginning of the clip, in which nobody is there, is left out."""

PAUSE_FPS, PAUSE_SIZE = 2, (160, 90)

EMPTY_S, FAR_S, TWO_S = 1.0, 7.0, 5.0
"""How long nobody is there before a walk and after it, and how long the walk and the two people last."""

FAR_FACE_PX = (26.0, 42.0)
"""Width of the face at the beginning and at the end of the walk, in a frame of FAR_SIZE."""

FAR_WALK, FAR_HEIGHT = (0.2, 0.75), 0.45
"""Where the face is: at the beginning and the end in widths of the frame, and in heights."""

MAN_S, MAN_SIZE = 2.2, (960, 540)
"""How long the man stands in his clip, which then shows something else, and its (width, height) in pixels."""

FACE, FACE_WIDTH = (440, 280), 230.0
"""Middle and width of his face, in pixels of MAN_SIZE."""

HEAD, HEAD_AXES = (440, 262), (150, 222)
"""Middle and half axes of an ellipse around his head."""

SHOULDERS = ((360, 420), (520, 420), (700, 540), (180, 540))
"""Corners of his shoulders."""

SOFT_PX = 6.0
"""How soft his outline is: standard deviation of a Gaussian."""


def make_pause(media: Path, clip: Path, *, seconds: float) -> None:
    """Write a clip in which nothing moves, of few and small pictures, so that a camera begins later.

    Raises:
        MediaError: It cannot be written.
    """
    nothing = np.full((*PAUSE_SIZE[::-1], 3), 90, np.uint8)
    _write(clip, repeat(nothing, round(seconds * PAUSE_FPS)), PAUSE_FPS)


def make_dark(media: Path, clip: Path) -> None:
    """Write how the enrolled man comes by night: `DARK_GAIN` times the levels, and the noise of a sensor.

    Raises:
        MediaError: A clip cannot be read or written.
    """
    pictures = islice(_pictures(media / "noface_face.mov", DARK_SIZE), round(DARK_AFTER_S * FPS), None)
    _write(clip, (dim(picture, DARK_GAIN, DARK_GAIN_NOISE) for picture in pictures))


def make_far(media: Path, clip: Path) -> None:
    """Write a walk of the man far away, from one side to the other and a little closer.

    Raises:
        MediaError: A clip cannot be read or written.
    """
    _write(clip, _walk(_man(media, MAN_SIZE), list(_pictures(media / "no_face.mp4", FAR_SIZE))))


def make_two(media: Path, clip: Path) -> None:
    """Write a clip of the man and a stranger side by side.

    Raises:
        MediaError: A clip cannot be read or written.
    """
    stranger = islice(_pictures(media / "WolfgangLanger_Pexels.mp4", HALF_SIZE), round(TWO_S * FPS))
    pairs = zip(_to_and_fro(_man(media, HALF_SIZE)), stranger, strict=False)
    _write(clip, (np.hstack(pair) for pair in pairs))


def _man(media: Path, size: tuple[int, int]) -> list[Image]:
    return list(islice(_pictures(media / "face_noface.mov", size), round(MAN_S * FPS)))


def _walk(man: list[Image], scene: list[Image]) -> Iterator[Image]:
    opacity = _opacity()
    first, last = round(EMPTY_S * FPS), round((EMPTY_S + FAR_S) * FPS)
    pictures = zip(range(last + first), _to_and_fro(scene), _to_and_fro(man), strict=False)
    for number, background, picture in pictures:
        image = background.copy()
        if first <= number < last:
            share = (number - first) / (last - first)
            size_px = FAR_FACE_PX[0] + share * (FAR_FACE_PX[1] - FAR_FACE_PX[0])
            x = FAR_WALK[0] + share * (FAR_WALK[1] - FAR_WALK[0])
            middle = x * image.shape[1], FAR_HEIGHT * image.shape[0]
            _draw(image, picture, opacity, size_px / FACE_WIDTH, middle)
        yield image


def _opacity() -> FloatArray:
    """Return what of the man's picture is he, MAN_SIZE in [0, 1]."""
    opacity = np.zeros(MAN_SIZE[::-1], np.float32)
    cv2.ellipse(opacity, HEAD, HEAD_AXES, 0, 0, 360, 1.0, -1)
    cv2.fillPoly(opacity, [np.array(SHOULDERS, np.int32)], 1.0)
    return np.asarray(cv2.GaussianBlur(opacity, (0, 0), SOFT_PX), np.float32)


def _draw(
    image: Image, picture: Image, opacity: FloatArray, scale: float, middle: tuple[float, float]
) -> None:
    """Draw the man into an image, `scale` times as large, with the middle of his face at a place (x, y).

    He goes on below the edge of his picture, as far as the image reaches.
    """
    left, top = (round(at - scale * of) for at, of in zip(middle, FACE, strict=True))
    whole = []
    for part in (picture, opacity):
        small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        below = image.shape[0] - top - small.shape[0]
        whole.append(cv2.copyMakeBorder(small, 0, below, 0, 0, cv2.BORDER_REPLICATE))
    man, share = whole[0], whole[1][..., None]
    under = image[top:, left : left + man.shape[1]]
    under[:] = (under * (1 - share) + man * share).astype(np.uint8)


def _pictures(clip: Path, size: tuple[int, int]) -> Iterator[Image]:
    """Yield the pictures of a clip at FPS, as large as `size` (width, height)."""
    camera = ReplayCamera("stage", clip, clock=SystemClock(), realtime=False)
    camera.open()
    try:
        begun_s: float | None = None
        number = 0
        while (frame := camera.read()) is not None:
            begun_s = frame.monotonic_s if begun_s is None else begun_s
            if frame.monotonic_s - begun_s >= number / FPS:
                number += 1
                yield np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    finally:
        camera.close()


def _to_and_fro(pictures: list[Image]) -> Iterator[Image]:
    return cycle([*pictures, *pictures[-2:0:-1]])


def _write(clip: Path, pictures: Iterable[Image], fps: float = FPS) -> None:
    """Write pictures of one size as a clip in which each is a JPEG, so that noise stays as it is."""
    writer: cv2.VideoWriter | None = None
    try:
        for picture in pictures:
            if writer is None:
                writer = cv2.VideoWriter(str(clip), MJPG, fps, picture.shape[1::-1])
                if not writer.isOpened():
                    raise MediaError(f"{clip}: cannot write a clip there")
            writer.write(picture)
    finally:
        if writer is not None:
            writer.release()
