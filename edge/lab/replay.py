"""Run a clip or a folder of images through the same pipeline as the daemon, without a broker.

As fast as it goes; time in the events is the clip's own. Can draw what the pipeline saw onto the frames and
write them as a video: boxes, landmarks, tracks, decisions. Dark frames are lifted as for the detector, far
faces are shown enlarged. The daemon never draws.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.camera.clips import ReplayCamera
from edge.core.errors import MediaError
from edge.core.types import FaceEvent, FloatArray, Frame, Image, Track
from edge.face.lighting import lift_of_scene
from edge.lab.drawing import COLOURS, WAITING, Colour, write
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer
from edge.recognition.scene import describe

CAPTION_S = 2.5
"""How long an event stays in the caption line."""

MIN_WIDTH_PX = 480
"""Smaller footage is enlarged so that the writing can be read."""

LIGHT_STEP = 8
"""Whether a frame is dark is judged by every so many pixels of a line, and lines, as by the detector."""

FAR_BELOW_PX = 60
"""Faces that are narrower in the video have nothing drawn on them and are shown enlarged beside."""

ENLARGED_PX, MOST_ENLARGED = 160, 4
"""Sides of these pictures, in the upper right corner, and how many there are at most."""


class AnnotatedVideo:
    """A video file that frames are drawn into; use as a context manager."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._captions: list[tuple[float, FaceEvent]] = []

    def __enter__(self) -> "AnnotatedVideo":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def add(
        self, frame: Frame, tracks: Iterable[tuple[Track, FaceEvent | None]], events: Iterable[FaceEvent]
    ) -> None:
        """Draw one frame: its tracks, each with the event that decided its visit, and what has just happened.

        Raises:
            MediaError: The file cannot be written.
        """
        scale = max(1.0, MIN_WIDTH_PX / frame.image.shape[1])
        enlarged = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        image = np.array(enlarged, np.uint8)
        lift = lift_of_scene(image, LIGHT_STEP)
        if lift is not None:
            image = lift.apply(image)
        clean = image.copy()
        far: list[Image] = []
        for track, decided in tracks:
            _draw_track(image, track, decided, scale)
            if _is_far(track, scale):
                far.append(_enlarged(clean, track, decided, scale))
        for number, picture in enumerate(far[:MOST_ENLARGED]):
            left = image.shape[1] - (number + 1) * (ENLARGED_PX + 8)
            if left >= 0 and image.shape[0] >= ENLARGED_PX + 8:
                image[8 : 8 + ENLARGED_PX, left : left + ENLARGED_PX] = picture
        self._captions += [(frame.monotonic_s, event) for event in events]
        self._captions = [
            (at_s, event) for at_s, event in self._captions if frame.monotonic_s - at_s <= CAPTION_S
        ]
        for line, (_, event) in enumerate(self._captions[-4:]):
            write(image, describe(event), (8, image.shape[0] - 10 - 20 * line), COLOURS[event.event_type])
        write(image, f"#{frame.number}{' lifted' if lift is not None else ''}", (8, 18), WAITING)
        self._put(image)

    def _put(self, image: Image) -> None:
        if self._writer is None:
            self._size = (image.shape[1], image.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), codec, self._fps, self._size)
            if not self._writer.isOpened():
                raise MediaError(
                    f"{self._path}: cannot write a video there; use a writable path that ends in .mp4"
                )
        if (image.shape[1], image.shape[0]) != self._size:
            image = np.asarray(cv2.resize(image, self._size), np.uint8)
        self._writer.write(image)


def _draw_track(image: Image, track: Track, decided: FaceEvent | None, scale: float) -> None:
    colour = COLOURS[decided.event_type] if decided else WAITING
    far = _is_far(track, scale)
    beside = 4 if far else 0
    x1, y1, x2, y2 = (round(float(value) * scale) for value in track.box)
    thickness = 2 if track.detection and not far else 1
    corners = (x1 - beside, y1 - beside), (x2 + beside, y2 + beside)
    cv2.rectangle(image, *corners, colour, thickness, cv2.LINE_AA)
    if track.detection is not None and not far:
        _draw_points(image, track.detection.landmarks * scale, colour)
    write(
        image,
        f"{track.track_id} {describe(decided) if decided else '...'}",
        (x1, max(14, y1 - 6 - beside)),
        colour,
    )


def _is_far(track: Track, scale: float) -> bool:
    """Return whether a face is so small that what is drawn on it would hide it."""
    return bool((track.box[2] - track.box[0]) * scale < FAR_BELOW_PX)


def _enlarged(image: Image, track: Track, decided: FaceEvent | None, scale: float) -> Image:
    """Return the neighbourhood of a face, two faces wide, as a picture of ENLARGED_PX to a side."""
    colour = COLOURS[decided.event_type] if decided else WAITING
    x1, y1, x2, y2 = track.box * scale
    factor = float(ENLARGED_PX / (2 * max(x2 - x1, y2 - y1)))
    shift = ENLARGED_PX / 2 - factor * np.array([(x1 + x2) / 2, (y1 + y2) / 2], np.float32)
    matrix = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]], np.float32)
    size = (ENLARGED_PX, ENLARGED_PX)
    picture = np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC), np.uint8)
    if track.detection is not None:
        _draw_points(picture, factor * scale * track.detection.landmarks + shift, colour)
    cv2.rectangle(picture, (0, 0), (ENLARGED_PX - 1, ENLARGED_PX - 1), colour, 2)
    write(picture, str(track.track_id), (4, ENLARGED_PX - 8), colour)
    return picture


def _draw_points(image: Image, points: FloatArray, colour: Colour) -> None:
    for x, y in points:
        cv2.circle(image, (round(float(x)), round(float(y))), 2, colour, -1, cv2.LINE_AA)


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """Frames run, the length of the footage in seconds by its own time, and the events by type."""

    frames: int
    footage_s: float
    events: dict[str, int]


def replay(
    camera: ReplayCamera,
    pipeline: Pipeline,
    recognizer: Recognizer,
    on_event: Callable[[FaceEvent], None],
    *,
    annotate: Path | None = None,
    on_frame: Callable[[int, float], None] = lambda number, played: None,
) -> ReplaySummary:
    """Feed every frame of `camera` to `pipeline`, events to `on_event` as they happen, and end all visits.

    `on_frame` hears how many frames are done, and which share of the footage that is, 0 to 1. The annotated
    video has the footage's own speed.

    Raises:
        CameraError: The footage cannot be read.
        MediaError: The annotated video cannot be written.
    """
    counts: dict[str, int] = {}
    frames, first_s, end_s = 0, 0.0, 0.0

    def tell(events: list[FaceEvent]) -> None:
        for event in events:
            counts[event.event_type] = counts.get(event.event_type, 0) + 1
            on_event(event)

    camera.open()
    try:
        with ExitStack() as stack:
            video = None
            while (frame := camera.read()) is not None:
                if not frames:
                    first_s = frame.monotonic_s
                    if annotate is not None:
                        video = stack.enter_context(AnnotatedVideo(annotate, 1 / camera.frame_s))
                end_s = frame.monotonic_s + camera.frame_s
                frames += 1
                events = pipeline.process(frame, recognizer)
                tell(events)
                on_frame(frames, camera.played)
                if video is not None:
                    video.add(frame, pipeline.scene(), events)
    finally:
        camera.close()
    tell(pipeline.flush(recognizer))
    return ReplaySummary(frames, end_s - first_s, counts)
