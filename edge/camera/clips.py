"""ReplayCamera: clips and folders of images as a camera, in real time or as fast as they can be read.

Timestamps are truthful: the distance between two frames is that of the clip's own clock, whatever the speed.
What cannot be decoded is skipped with a warning, as long as something else can.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import cv2

from edge.camera.buffers import FrameBuffers
from edge.camera.photo import SUFFIXES, read_photo
from edge.camera.sources import TrueShape, grab_capture, grabbed_image, open_capture
from edge.core.clock import Clock
from edge.core.errors import CameraError, MediaError
from edge.core.types import Frame, Image

log = logging.getLogger(__name__)

MAX_STEP_S = 5.0
"""A clip's clock that jumps further, or back, is not believed: that step counts as one frame."""

NO_DECODER = {"AV01": "AV1", "VVC1": "VVC"}
"""Codes of videos that the FFmpeg in OpenCV's wheels opens and cannot decode."""

FOLDER_FPS = 10.0
"""Speed of a folder of images unless told otherwise."""

STILL_SUFFIXES = SUFFIXES | {".pgm", ".ppm"}
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"})

LATE_S = 0.25
"""How late a clip's frame may be in real time; what is later is passed over, as by a camera."""

CATCH_UP_S = 1.0
"""After so long of passing frames over the clip goes on from where it is: decoding is slower than life."""

NOTHING_PLAYED = -1.0
"""End of a part before its first frame."""

WHOLE_SHARE = 0.9
"""Less than this of the frames that a clip promises means that it is truncated; promises are estimates."""


def check_playable(path: Path, clock: Clock) -> None:
    """Accept a clip or a folder whose first frame can be decoded.

    Raises:
        CameraError: It is not there, or nothing that plays.
    """
    camera = ReplayCamera("check", path, clock=clock, realtime=False)
    camera.open()
    try:
        camera.read()
    finally:
        camera.close()


class ReplayCamera:
    """A clip, or a folder whose images and clips are played in the order of their names.

    `realtime` keeps the clip's own speed: frames that are late are passed over, and where that does not help
    the clip pauses. Otherwise frames come as fast as they are taken. `loop` starts again at the end. The
    first frame is at `started_at` (UTC), or at the moment of `open`. Where a clip changes its resolution,
    OpenCV scales the rest to the size it began with; parts of a folder keep theirs.
    """

    live = False

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        clock: Clock,
        realtime: bool = True,
        loop: bool = False,
        fps: float | None = None,
        started_at: datetime | None = None,
    ) -> None:
        self._name, self._path, self._clock = name, path, clock
        self._started_at = started_at
        self._loop, self._fps = loop, fps
        self._frames: Generator[tuple[float, Image]] | None = None
        self._started: tuple[datetime, float] | None = None
        self._end_s = NOTHING_PLAYED
        """Where the part that is played has come to."""
        self._behind_since_s: float | None = None
        self.passed_over = 0
        """Frames that were late."""
        self._number = 0
        self._step_s = 0.0
        self._played = 0.0
        self._interrupted = threading.Event()
        self._buffers, self._shape = FrameBuffers(), TrueShape()
        self.paced = realtime
        self.description = str(path)

    @property
    def frame_s(self) -> float:
        """How long the frame lasts that was read last, in seconds."""
        return self._step_s

    @property
    def played(self) -> float:
        """The share of the material that has been played, 0 to 1, by the frames that clips promise."""
        return self._played

    def open(self) -> None:
        """Find the material.

        Raises:
            CameraError: There is nothing that can be played.
        """
        try:
            if not self._path.exists():
                raise CameraError(f"{self._path}: no such clip or folder")
            parts = self._parts()
        except OSError as error:
            raise CameraError(f"{self._path}: cannot be read: {error.strerror}") from None
        if not parts:
            raise CameraError(f"{self._path}: the folder has no images or clips to play")
        self._frames = self._play(parts)
        self._started = (self._started_at or self._clock.now(), self._clock.monotonic())

    def read(self) -> Frame | None:
        """Return the next frame when it is due, or None at the end.

        Raises:
            CameraError: The material cannot be decoded at all.
        """
        if self._frames is None or self._started is None:
            raise CameraError(f"{self._path}: not open")
        step = next(self._frames, None)
        if step is None:
            return None
        offset_s, image = step
        started_at, started_s = self._started
        due_s = started_s + offset_s
        if self.paced:
            self._interrupted.wait(max(0.0, due_s - self._clock.monotonic()))
        frame = Frame(self._name, image, started_at + timedelta(seconds=offset_s), due_s, self._number)
        self._number += 1
        return frame

    def interrupt(self) -> None:
        """Wake a read that waits for its moment; from now on nothing is waited for."""
        self._interrupted.set()

    def close(self) -> None:
        """Stop playing."""
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.close()

    def _parts(self) -> list[Path]:
        if self._path.is_file():
            return [self._path]
        kinds = STILL_SUFFIXES | VIDEO_SUFFIXES
        return sorted(path for path in self._path.iterdir() if path.suffix.lower() in kinds)

    def _play(self, parts: list[Path]) -> Generator[tuple[float, Image]]:
        """Yield (seconds since the start, image), one part after the other."""
        start_s = 0.0
        while True:
            begun_s, problem = start_s, None
            for number, part in enumerate(parts):
                self._end_s = NOTHING_PLAYED
                try:
                    for offset_s, share, image in self._part(part, start_s):
                        self._played = (number + share) / len(parts)
                        yield start_s + offset_s, image
                except CameraError as error:
                    if len(parts) == 1:
                        raise
                    problem = problem or error
                    log.warning("skipped: %s", error)
                if self._end_s != NOTHING_PLAYED:
                    start_s += self._end_s + self._step_s
            if start_s == begun_s:
                raise problem or CameraError(f"{self._path}: nothing could be decoded")
            if not self._loop:
                return

    def _passes_over(self, offset_s: float) -> bool:
        """Return whether a frame is too late to be shown; where all stay so, the clip goes on from here."""
        if not self.paced or self._started is None:
            return False
        started_at, started_s = self._started
        now_s = self._clock.monotonic()
        late_s = now_s - started_s - offset_s
        if late_s <= LATE_S:
            self._behind_since_s = None
            return False
        if self._behind_since_s is None:
            self._behind_since_s = now_s
        if now_s - self._behind_since_s >= CATCH_UP_S:
            self._started = (started_at + timedelta(seconds=late_s), started_s + late_s)
            self._behind_since_s = None
            log.warning("%s: decoding is slower than life; it pauses for %.1f s", self._path, late_s)
            return False
        self.passed_over += 1
        return True

    def _part(self, path: Path, start_s: float) -> Iterator[tuple[float, float, Image]]:
        """Yield (seconds since its start, share of it played so far, image)."""
        if path.suffix.lower() not in STILL_SUFFIXES:
            yield from self._clip(path, start_s)
            return
        self._step_s = 1 / (self._fps or FOLDER_FPS)
        self._end_s = 0.0
        if self._passes_over(start_s):
            return
        try:
            yield 0.0, 1.0, read_photo(path)
        except MediaError as error:
            self._end_s = NOTHING_PLAYED
            raise CameraError(str(error)) from None

    def _clip(self, path: Path, start_s: float) -> Iterator[tuple[float, float, Image]]:
        """Decode one clip. A truncated one plays as far as it goes."""
        # An absolute path: FFmpeg takes what stands before a colon for a protocol.
        capture = open_capture(str(path.absolute()), cv2.CAP_FFMPEG, {cv2.CAP_PROP_N_THREADS: 1})
        try:
            if not capture.isOpened():
                raise CameraError(f"{path}: cannot be decoded; not a video, or damaged")
            fps = self._fps or capture.get(cv2.CAP_PROP_FPS) or FOLDER_FPS
            self._step_s = 1 / fps
            promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less where a clip promises none
            number, offset_s, last_stamp_s, jumped = 0, 0.0, 0.0, False
            while grab_capture(capture):
                stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                # Some containers give no times, or one for all frames; the clocks of some cameras jump.
                step_s = stamp_s - last_stamp_s
                believed = not self._fps and (0 < step_s <= MAX_STEP_S or (number == 0 and step_s == 0))
                offset_s += step_s if believed else self._step_s * min(number, 1)
                last_stamp_s, jumped = stamp_s, jumped or not believed
                number += 1
                self._end_s = offset_s
                if self._passes_over(start_s + offset_s):
                    continue
                image = grabbed_image(capture, self._buffers)
                if image is None:
                    break
                shown = self._shape.of(image, capture)
                yield offset_s, min(1.0, number / promised) if promised > 0 else 0.0, shown
            if number == 0:
                code = (
                    int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin-1")
                )
                if codec := NO_DECODER.get(code.upper()):
                    raise CameraError(f"{path}: there is no decoder for {codec} here; save the clip as H.264")
                raise CameraError(f"{path}: holds no frame that can be decoded; damaged, or not a video")
            if number < WHOLE_SHARE * promised and not jumped:  # promises are made of the clip's clock
                log.warning("%s: truncated or damaged: %d of %d frames", path, number, promised)
        finally:
            capture.release()
