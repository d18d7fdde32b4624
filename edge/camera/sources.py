"""What a camera is, and the one that OpenCV reads: V4L2 devices and network streams.

The only file that opens a VideoCapture; replays get theirs from here. Reconnecting is the capture thread's
business: a camera that fails raises and is thrown away.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np

from edge.clock import Clock
from edge.errors import CameraError
from edge.redact import without_credentials
from edge.types import Frame, Image

SCHEMES = ("rtsp", "rtsps", "http", "https")
"""Protocols of network cameras. Others (file, concat, subfile, pipe) could read files of this device."""


class Camera(Protocol):
    """A source of frames. Used by one thread; `open` comes first, `close` may be called at any time."""

    description: str
    """What it is, safe to log: no credentials."""

    live: bool
    """Whether it goes on for ever; a clip ends."""

    paced: bool
    """Whether frames come at their own speed and may be dropped when nobody takes them."""

    def open(self) -> None:
        """Connect. Raises: CameraError."""
        ...

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end of a clip. Raises: CameraError."""
        ...

    def close(self) -> None:
        """Let go of the device; may be repeated."""
        ...


def open_capture(source: str, backend: int, options: Mapping[int, int]) -> cv2.VideoCapture:
    """Open a capture with a named backend and properties; it may turn out not to be opened.

    Raises:
        CameraError: OpenCV raised instead of failing.
    """
    flat = [value for pair in options.items() for value in pair]
    try:
        return cv2.VideoCapture(source, backend, flat)
    except cv2.error as error:
        line = str(error).strip().splitlines()[0]
        raise CameraError(f"{without_credentials(source)}: cannot be opened: {line}") from None


class OpenCVCamera:
    """A V4L2 device or a network stream.

    Timeouts are seconds; FFMPEG honours them for streams (without: 30 s), a V4L2 driver for reads.
    """

    live = True
    paced = True

    def __init__(
        self,
        name: str,
        source: str,
        *,
        clock: Clock,
        open_timeout_s: float,
        read_timeout_s: float,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
    ) -> None:
        """Describe a camera; nothing is opened yet.

        Raises:
            CameraError: The source is neither a device nor a URL of an allowed protocol.
        """
        self._name, self._source, self._clock = name, source, clock
        self._timeouts_s = (open_timeout_s, read_timeout_s)
        self._wishes = {
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: fps,
        }
        self._capture: cv2.VideoCapture | None = None
        self._number = 0
        self.description = without_credentials(source)
        self._is_device = bool(re.fullmatch(r"/dev/[A-Za-z0-9_./-]+", source))
        if not self._is_device and urlsplit(source).scheme not in SCHEMES:
            raise CameraError(
                f"{self.description}: not a camera; use /dev/videoN, or a URL of {', '.join(SCHEMES)}"
            )

    def open(self) -> None:
        """Connect.

        Raises:
            CameraError: The device is absent, or the stream cannot be reached or is no video.
        """
        if self._is_device:
            if not Path(self._source).exists():
                raise CameraError(f"{self._source}: no such device; is the camera plugged in?")
            capture = open_capture(self._source, cv2.CAP_V4L2, {})
        else:
            open_ms, read_ms = (round(limit_s * 1000) for limit_s in self._timeouts_s)
            options = {
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: open_ms,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC: read_ms,
                cv2.CAP_PROP_N_THREADS: 1,
            }
            capture = open_capture(self._source, cv2.CAP_FFMPEG, options)
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"{self.description}: cannot be opened as a camera: not reachable, or not a video"
            )
        if self._is_device:
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            for key, value in self._wishes.items():
                if value is not None:
                    capture.set(key, value)
        self._capture = capture

    def read(self) -> Frame | None:
        """Wait for the next frame.

        Raises:
            CameraError: The stream ended, timed out, or the device is gone.
        """
        if self._capture is None:
            raise CameraError(f"{self.description}: not open")
        got, image = self._capture.read()
        if not got or image is None:
            raise CameraError(f"{self.description}: gave no frame: unplugged, ended or silent")
        frame = Frame(self._name, as_bgr(image), self._clock.now(), self._clock.monotonic(), self._number)
        self._number += 1
        return frame

    def close(self) -> None:
        """Let go of the device."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()


def as_bgr(image: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Image:
    """Return what a decoder gave as BGR uint8 (H, W, 3); grey and alpha are converted."""
    picture = np.asarray(image, np.uint8)
    if picture.ndim == 2 or picture.shape[2] == 1:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8)
    elif picture.shape[2] == 4:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR), np.uint8)
    return picture
