"""Scenes in which somebody comes into view: clips of the demo, and faces of photos that walk into them.

Synthetic: nobody here really walked up to a door. A face has a plain body beneath it and stands behind
whoever is near the camera in the clip.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from edge.camera.clips import ReplayCamera
from edge.camera.photo import SUFFIXES, read_photo
from edge.core.clock import SystemClock
from edge.core.errors import MediaError
from edge.core.types import Detection, FloatArray, Frame, Image
from edge.device.settings.load import Settings
from edge.lab.demo.media import ORL_SUBJECTS, media_dir, orl_photo
from edge.lab.photos.protocol import subjects
from edge.recognition.recognizer import Recognizer

FPS = 15
WARM_UP = 60
"""Frames before somebody comes into view: a door camera has long seen what usually moves."""

CLIPS = {
    "title": ("no_face.mp4", 0.0, 4.0),
    "near man": ("face_noface.mov", 0.0, 2.5),
    "street": ("bikes.mp4", 5.6, 7.4),
    "passer-by": ("bikes.mp4", 7.6, 9.6),
}
"""The demo's clip of each scene, and from when to when it shows it, in seconds."""

CLIP_S = 4.0
"""For so long other clips are shown, from their beginning."""

BODY_WIDTH, BODY_HEIGHT = 2.6, 6.0
"""In face sizes."""

IN_SIGHT_S = 0.5
"""A walk starts so that the face is not hidden for this long."""

TRIES = 100
"""Walks that are drawn for that, at most."""

Clip = tuple[Path, float, float]
"""A file, and from when to when it is shown, in seconds."""

Box = tuple[int, int, int, int]
"""xyxy in pixels."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A face cut out of a photo: BGR, its opacity (H, W, 1) in [0, 1], its size and its middle in pixels."""

    image: Image
    opacity: FloatArray
    size_px: float
    middle: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """The pictures of a clip at `FPS`, and of each the parts that somebody near the camera covers."""

    pictures: list[Image]
    covered: list[list[Box]]

    def at(self, number: int) -> tuple[Image, list[Box]]:
        """Return a picture and what is covered in it; after the last one the clip runs backwards."""
        place = number % max(1, 2 * len(self.pictures) - 2)
        if place >= len(self.pictures):
            place = 2 * len(self.pictures) - 2 - place
        return self.pictures[place], self.covered[place]


def clips_of(settings: Settings, paths: Sequence[Path]) -> dict[str, Clip]:
    """Return clips by the names of their scenes: those of the demo where there are no others."""
    if paths:
        return {path.stem: (path, 0.0, CLIP_S) for path in paths}
    media = media_dir(settings)
    return {name: (media / file, start_s, end_s) for name, (file, start_s, end_s) in CLIPS.items()}


def load_scene(recognizer: Recognizer, clip: Clip, size: tuple[int, int]) -> Scene:
    """Return a clip, enlarged to (width, height)."""
    path, start_s, end_s = clip
    camera = ReplayCamera("scene", path, clock=SystemClock(), realtime=False)
    camera.open()
    pictures: list[Image] = []
    begun_s: float | None = None
    try:
        while (frame := camera.read()) is not None:
            begun_s = frame.monotonic_s if begun_s is None else begun_s
            at_s = frame.monotonic_s - begun_s
            if at_s >= start_s + len(pictures) / FPS:
                pictures.append(np.asarray(cv2.resize(frame.image, size), np.uint8))
            if at_s >= end_s:
                break
    finally:
        camera.close()
    return Scene(pictures, [_covered(recognizer.detect(picture), size) for picture in pictures])


def _covered(near: Sequence[Detection], size: tuple[int, int]) -> list[Box]:
    """Return what heads and bodies cover in a picture (width, height): nobody far is before them."""
    boxes: list[Box] = []
    for face in near:
        x1, y1, x2, y2 = face.box.tolist()
        wide, high = x2 - x1, y2 - y1
        head = (x1 - 0.15 * wide, y1 - 0.4 * high, x2 + 0.15 * wide, y2 + 0.2 * high)
        body = (x1 - 0.8 * wide, y2 + 0.2 * high, x2 + 0.8 * wide, size[1])
        for left, top, right, bottom in (head, body):
            boxes.append((max(0, int(left)), max(0, int(top)), int(right), int(bottom)))
    return boxes


def cut_out(recognizer: Recognizer, photos: Iterator[Image], most: int) -> list[Cutout]:
    """Return up to `most` faces of photos that show one.

    Raises:
        MediaError: There is none.
    """
    found: list[Cutout] = []
    for photo in photos:
        faces = recognizer.detect(photo)
        if len(faces) != 1:
            continue
        size, (x, y) = faces[0].size_px, (faces[0].box[:2] + faces[0].box[2:]) / 2
        x1, y1 = max(0, int(x - size)), max(0, int(y - 1.1 * size))
        image = photo[y1 : int(y + size), x1 : int(x + size)]
        opacity = np.zeros(image.shape[:2], np.float32)
        middle, axes = (int(x - x1), int(y - y1)), (int(0.7 * size), int(0.9 * size))
        cv2.ellipse(opacity, middle, axes, 0, 0, 360, 1.0, -1)
        soft = np.asarray(cv2.GaussianBlur(opacity, (0, 0), 0.05 * size), np.float32)
        found.append(Cutout(image, soft[..., None], size, (x - x1, y - y1)))
        if len(found) == most:
            break
    if not found:
        raise MediaError("no photo shows exactly one face; name a folder of portraits with --images")
    return found


def paste(frame: Image, face: Cutout, size_px: float, x: float, y: float) -> None:
    """Put a face of `size_px` with its middle at (x, y) into a frame, and a plain body beneath."""
    scale = size_px / face.size_px
    width, height = (max(1, round(side * scale)) for side in face.image.shape[1::-1])
    body = np.full((round(BODY_HEIGHT * size_px), round(BODY_WIDTH * size_px), 3), (90, 70, 60), np.uint8)
    body[:: max(2, round(size_px / 4))] += 30  # stripes, so that it moves when it moves
    _blend(frame, body, None, x - body.shape[1] / 2, y + 0.55 * size_px)
    small = np.asarray(cv2.resize(face.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    opacity = np.asarray(cv2.resize(face.opacity, (width, height)), np.float32)[..., None]
    _blend(frame, small, opacity, x - face.middle[0] * scale, y - face.middle[1] * scale)


def _blend(frame: Image, patch: Image, opacity: FloatArray | None, x: float, y: float) -> None:
    left, top = round(x), round(y)
    x1, y1 = max(0, left), max(0, top)
    x2, y2 = min(frame.shape[1], left + patch.shape[1]), min(frame.shape[0], top + patch.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    part = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    if opacity is None:
        frame[y1:y2, x1:x2] = patch[part]
        return
    under = frame[y1:y2, x1:x2]
    frame[y1:y2, x1:x2] = (under * (1 - opacity[part]) + patch[part] * opacity[part]).astype(np.uint8)


def portraits(settings: Settings, images: Path | None, seed: int) -> Iterator[Image]:
    """Yield the photos of a folder in a mixed order, or one of each subject of the demo."""
    if images is None:
        for subject in range(1, ORL_SUBJECTS + 1):
            photo = read_photo(orl_photo(media_dir(settings), subject, 1))
            yield np.asarray(cv2.resize(photo, None, fx=2, fy=2))
        return
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
    random.Random(seed).shuffle(paths)
    yield from (read_photo(path) for path in paths)


def two_each(settings: Settings, images: Path | None, seed: int) -> Iterator[tuple[str, Image, Image]]:
    """Yield subjects in a mixed order with two photos of each: of a folder that has them, or of the demo.

    Raises:
        MediaError: The folder has no sub-folders of photos.
    """
    if images is None:
        for subject in range(1, ORL_SUBJECTS + 1):
            paths = [orl_photo(media_dir(settings), subject, number) for number in (1, 2)]
            first, second = (
                np.asarray(cv2.resize(read_photo(path), None, fx=2, fy=2), np.uint8) for path in paths
            )
            yield str(subject), first, second
        return
    found = [(name, photos) for name, photos in subjects(images).items() if len(photos) > 1]
    random.Random(seed).shuffle(found)
    for name, photos in found:
        yield name, read_photo(photos[0]), read_photo(photos[1])


def walk(
    scene: Scene, face: Cutout | None, size_px: int, dice: random.Random, frames: int
) -> Iterator[tuple[Frame, tuple[float, float] | None]]:
    """Yield `WARM_UP` frames from anywhere in a scene, then `frames` in which somebody walks.

    With each goes the middle of the face: None before it comes into view, and always where `face` is None.
    """
    begin = dice.randrange(len(scene.pictures))
    path = _path(scene, begin + WARM_UP, size_px, dice, frames)
    for number in range(WARM_UP + frames):
        image, covered = scene.at(begin + number)
        place = None
        if face is not None and number >= WARM_UP:
            picture, image = image, image.copy()
            place = path[number - WARM_UP]
            paste(image, face, size_px, *place)
            for x1, y1, x2, y2 in covered:
                image[y1:y2, x1:x2] = picture[y1:y2, x1:x2]
        at_s = number / FPS
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)
        yield Frame("range", image, at, at_s, number), place


def _path(
    scene: Scene, begin: int, size_px: int, dice: random.Random, frames: int
) -> list[tuple[float, float]]:
    """Return where the face is in each frame from picture `begin` on, in sight for `IN_SIGHT_S` at first."""
    height, width = scene.pictures[0].shape[:2]
    for _ in range(TRIES):
        x, y = dice.uniform(0.15, 0.85) * width, dice.uniform(0.12, 0.6) * height
        step = dice.uniform(0.1, 0.5) * size_px * dice.choice((-1, 1))
        path = []
        for number in range(frames):
            x, y = x + step, y + 0.05 * size_px * math.sin(number)
            path.append((x, y))
        first = path[: math.ceil(IN_SIGHT_S * FPS) + 1]
        if all(_in_sight(scene, begin + number, place, size_px) for number, place in enumerate(first)):
            break
    return path


def _in_sight(scene: Scene, number: int, place: tuple[float, float], size_px: int) -> bool:
    height, width = scene.pictures[0].shape[:2]
    x, y = place
    if not (size_px <= x <= width - size_px and size_px <= y <= height - size_px):
        return False
    return not any(
        x1 - size_px < x < x2 + size_px and y1 - size_px < y < y2 + size_px
        for x1, y1, x2, y2 in scene.at(number)[1]
    )
