"""What a camera is, and the one that OpenCV reads: V4L2 devices and network streams.

The only file that opens a VideoCapture; replays get theirs from here. Reconnecting is the capture thread's
business: a camera that fails raises and is thrown away.
"""

import logging
import os
import re
from collections.abc import Generator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlunsplit

import cv2
import numpy as np

from edge.camera.buffers import FrameBuffers
from edge.camera.network import ENCRYPTED, HttpBody, RtspRelay, Trust, connect, parse
from edge.core.clock import Clock
from edge.core.errors import CameraError
from edge.core.text import without_credentials
from edge.core.types import Frame, Image

log = logging.getLogger(__name__)

MJPG = cv2.VideoWriter.fourcc(*"MJPG")
"""USB cameras send large frames at full speed only when compressed."""


MAX_PIXEL_ASPECT = 4.0
"""Longer pixels than this are a mistake of who wrote the stream; those of broadcasts go up to 2.2."""

SQUARE = 0.01
"""By how much a pixel may miss being a square."""

LATE_S = 0.5
"""How late a stream's frame may be; what is later is passed over, down to the newest."""

DRAIN_S = 2.0
"""For how long frames are passed over. If the newest has not come by then, decoding is slower than that."""

LATE_MOST_S, WITHOUT_WAIT_MOST_S = 5.0, 10.0
"""A stream is opened anew that is this late, or whose reader had to wait for no frame for this long: what has
piled up goes with the connection."""

DRIFT = 1e-3
"""By how much a camera's clock may be slower or faster than ours: quartz is 20 times better."""

MAX_STEP_S = 5.0
"""A stream's clock that jumps further, or back, has been set anew."""

WAITED_S = 1e-3
"""A read that takes longer has waited for the network; memory is faster."""

UNTIMED = "multipart/x-mixed-replace"
"""MJPEG over HTTP, whose frames have no times of their own. Source: FFmpeg, libavformat/mpjpegdec.c."""

VERIFIED = Trust()
"""The system's authorities, and no redirect."""


class Camera(Protocol):
    """A source of frames. One thread opens, reads and closes it; any other may only interrupt."""

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

    def interrupt(self) -> None:
        """Ask `open` and `read` to give up soon; from any thread. Native code does not listen."""
        ...

    def close(self) -> None:
        """Let go of the device; may be repeated."""
        ...


def frames_of(camera: Camera) -> Generator[Frame]:
    """Open a camera and yield its frames; it is closed when they end, or when the generator is.

    Raises:
        CameraError: It cannot be opened or read.
    """
    camera.open()
    try:
        while (frame := camera.read()) is not None:
            yield frame
    finally:
        camera.close()


def open_capture(source: str | HttpBody, backend: int, options: Mapping[int, int]) -> cv2.VideoCapture:
    """Open a capture with a named backend and properties; it may turn out not to be opened.

    Raises:
        CameraError: OpenCV raised instead of failing.
    """
    flat = [value for pair in options.items() for value in pair]
    try:
        return cv2.VideoCapture(source, backend, flat)  # type: ignore[arg-type]  # a stream, by its stubs none
    except cv2.error as error:
        raise CameraError(f"cannot be opened (OpenCV {error.code})") from None


def grab_capture(capture: cv2.VideoCapture) -> bool:
    """Wait for the next frame; False where there is none: ended, timed out, unplugged, undecodable."""
    try:
        return bool(capture.grab())
    except cv2.error:
        return False


def grabbed_image(capture: cv2.VideoCapture, buffers: FrameBuffers) -> Image | None:
    """Return the frame that was grabbed as BGR, in one of `buffers` where it fits; None: undecodable."""
    try:
        got, image = capture.retrieve(buffers.free())
    except cv2.error:
        return None
    if not got or image is None or not image.size:
        return None
    picture = as_bgr(image)
    if picture is image:
        buffers.keep(picture)
    return picture


class TrueShape:
    """Stretches the frames of captures whose pixels are no squares to what they show.

    Squeezed faces look alike to an embedder. The longer side of a pixel stays, so that nothing is lost.
    """

    def __init__(self) -> None:
        self._buffers = FrameBuffers()
        self._told = False

    def of(self, image: Image, capture: cv2.VideoCapture) -> Image:
        """Return the frame that `capture` has just given, in its true shape."""
        aspect = self._pixel_aspect(capture)
        if abs(aspect - 1) < SQUARE:
            return image
        height, width = image.shape[:2]
        size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
        shown = np.asarray(cv2.resize(image, size, self._buffers.free()), np.uint8)
        self._buffers.keep(shown)
        return shown

    def _pixel_aspect(self, capture: cv2.VideoCapture) -> float:
        """Return width over height of a pixel, as the container or stream says; 1 where it says nothing."""
        wide, high = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        if not (wide > 0 and high > 0):
            return 1.0
        aspect = wide / high
        if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
            return float(aspect)
        if not self._told:
            log.warning("a pixel of %g by %g is not believed: frames are shown as they come", wide, high)
            self._told = True
        return 1.0


class Lateness:
    """How late the frames of a stream come, by the clock of the stream, in seconds.

    The most punctual one of late is taken for punctual: what all frames have in common is not known. That one
    counts for less and less, because no two clocks go alike.
    """

    def __init__(self) -> None:
        self._stamp_s: float | None = None
        self._arrived_s = 0.0
        self._least_s = 0.0

    def of(self, stamp_s: float, arrived_s: float) -> float:
        """Return how late the next frame is: of the moment `stamp_s` of the stream, here at `arrived_s`."""
        before_s, self._stamp_s = self._stamp_s, stamp_s
        behind_s = arrived_s - stamp_s
        if before_s is None or not 0 < stamp_s - before_s <= MAX_STEP_S:
            self._least_s = behind_s
        else:
            self._least_s = min(behind_s, self._least_s + DRIFT * (arrived_s - self._arrived_s))
        self._arrived_s = arrived_s
        return behind_s - self._least_s


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
        trust: Trust = VERIFIED,
    ) -> None:
        """Describe a camera; nothing is opened yet.

        Raises:
            CameraError: The source is neither a device nor a URL of an allowed protocol, or badly written.
        """
        self._name, self._source, self._clock = name, source, clock
        self._timeouts_s = (open_timeout_s, read_timeout_s)
        self._wishes = {  # in this order: the format decides which sizes there are
            cv2.CAP_PROP_FOURCC: MJPG if width else None,
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: fps,
        }
        self._capture: cv2.VideoCapture | None = None
        self._number = 0
        self._buffers, self._shape = FrameBuffers(), TrueShape()
        self.description = without_credentials(source)
        self._url = None if re.fullmatch(r"/dev/[\w./:-]+", source, re.ASCII) else parse(source)
        self._trust = trust
        self._line: HttpBody | RtspRelay | None = None
        self._lateness = Lateness()
        self._waited_s = self._punctual_s = 0.0
        self._drained_in_vain = False
        self.passed_over = 0
        """Frames that were late."""
        if self._url is not None and self._url.scheme in ENCRYPTED and trust.insecure:
            self.description += " (its certificate is not verified)"

    def open(self) -> None:
        """Connect.

        Raises:
            CameraError: The device is absent, or the stream cannot be reached or is no video.
        """
        self._capture = self._open_device() if self._url is None else self._open_stream(self._url)

    def _open_device(self) -> cv2.VideoCapture:
        try:
            Path(self._source).stat()
        except OSError:
            raise CameraError(f"{self._source}: no such device; is the camera plugged in?") from None
        if not os.access(self._source, os.R_OK | os.W_OK):
            raise CameraError(f"{self._source}: no permission; add the service's user to the group video")
        capture = open_capture(self._source, cv2.CAP_V4L2, {})
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"{self._source}: cannot be opened: not a video device, or used by another program"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        for key, value in self._wishes.items():
            if value is not None:
                capture.set(key, value)
        return capture

    def _open_stream(self, url: SplitResult) -> cv2.VideoCapture:
        open_s, read_s = self._timeouts_s
        started_s = self._clock.monotonic()
        try:
            source: str | HttpBody
            if url.scheme in ("http", "https"):
                source = body = HttpBody(url, self._trust, open_timeout_s=open_s, read_timeout_s=read_s)
                self._line = body
            else:
                relay = self._line = RtspRelay(connect(url, self._trust, open_s))
                login = f"{url.netloc.rpartition('@')[0]}@" if "@" in url.netloc else ""
                near = f"{login}127.0.0.1:{relay.port}"
                source = urlunsplit(("rtsp", near, url.path, url.query, ""))
            left_s = open_s - (self._clock.monotonic() - started_s)
            options = {
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: max(1, round(left_s * 1000)),
                cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(read_s * 1000),
                cv2.CAP_PROP_N_THREADS: 1,
            }
            capture = open_capture(source, cv2.CAP_FFMPEG, options)
            if capture.isOpened():
                return capture
            capture.release()
            raise CameraError(self._why_no_video(self._clock.monotonic() - started_s))
        except CameraError as error:
            self.close()
            raise CameraError(f"{self.description}: cannot be opened: {error}") from None

    def _why_no_video(self, taken_s: float) -> str:
        if isinstance(self._line, RtspRelay) and self._line.problem:
            return self._line.problem
        if taken_s >= self._timeouts_s[0]:
            return f"no video within {self._timeouts_s[0]:g} s"
        return "the server answers, but gives no video; check path, user and password"

    def read(self) -> Frame | None:
        """Wait for the next frame.

        Raises:
            CameraError: The stream ended, timed out, or the device is gone.
        """
        if self._capture is None:
            raise CameraError(f"{self.description}: not open")
        started_s = self._clock.monotonic()
        grabbed, late_s = self._grab(self._capture)
        while grabbed and late_s > LATE_S and not self._drained_in_vain:
            self._drained_in_vain = self._clock.monotonic() - started_s >= DRAIN_S
            self.passed_over += 1
            grabbed, late_s = self._grab(self._capture)
        self._drained_in_vain &= late_s > LATE_S
        image = grabbed_image(self._capture, self._buffers) if grabbed else None
        now_s = self._clock.monotonic()
        if image is None:
            raise CameraError(
                f"{self.description}: gave no frame for {now_s - started_s:.1f} s: unplugged, ended or silent"
            )
        untimed = isinstance(self._line, HttpBody) and self._line.kind == UNTIMED
        if late_s > (WITHOUT_WAIT_MOST_S if untimed else LATE_MOST_S):
            raise CameraError(
                f"{self.description}: its frames are {late_s:.0f} s late, it is opened anew; lower its frame "
                "rate or resolution, or look at the network"
            )
        age_s = 0.0 if untimed else late_s
        image = self._shape.of(image, self._capture)
        captured_at = self._clock.now() - timedelta(seconds=age_s)
        frame = Frame(self._name, image, captured_at, now_s - age_s, self._number)
        self._number += 1
        return frame

    def _grab(self, capture: cv2.VideoCapture) -> tuple[bool, float]:
        """Return whether there is a next frame, and how late it is in seconds.

        Of a stream without times it is not known how late, only for how long it was always there already.
        """
        grabbed, line = grab_capture(capture), self._line
        now_s = self._clock.monotonic()
        if not grabbed or line is None:
            return grabbed, 0.0
        if not isinstance(line, HttpBody) or line.kind != UNTIMED:
            return True, self._lateness.of(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, now_s)
        if line.waited_s - self._waited_s > WAITED_S or not self._punctual_s:
            self._punctual_s = now_s
        self._waited_s = line.waited_s
        return True, now_s - self._punctual_s

    def interrupt(self) -> None:
        """Hang up on a network camera. A device does not listen, and released under a reader it crashes."""
        if (line := self._line) is not None:
            line.interrupt()

    def close(self) -> None:
        """Let go of the device."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()
        line, self._line = self._line, None
        if line is not None:
            line.close()


def as_bgr(image: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Image:
    """Return what a decoder gave as BGR uint8 (H, W, 3); grey and alpha are converted."""
    picture = np.asarray(image, np.uint8)
    if picture.ndim == 2 or picture.shape[2] == 1:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8)
    elif picture.shape[2] == 4:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR), np.uint8)
    return picture
