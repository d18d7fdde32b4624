"""PipeCamera: a program that writes frames to its standard output, such as rpicam-vid or ffmpeg.

The way to CSI cameras, which the wheels of OpenCV cannot open. Local configuration only: a command is code.
Frames are raw or JPEG; where a JPEG ends is found by walking its markers, because thumbnails inside a picture
have ends of their own.
"""

import os
import re
import select
import subprocess
import threading
from collections.abc import Mapping
from typing import IO

import cv2
import numpy as np

from edge.camera.buffers import FrameBuffers
from edge.camera.sources import as_bgr
from edge.core.clock import Clock
from edge.core.errors import CameraError
from edge.core.process import kill_group
from edge.core.text import scrub
from edge.core.types import Frame, Image

MAX_JPEG_BYTES = 16 * 1024 * 1024
"""A larger frame is not a camera's: the stream is garbage."""

START = b"\xff\xd8\xff"
"""SOI and the first byte of the marker after it. Source: ITU-T T.81, annex B, as for all below."""

SOI, EOI, SOS, TEM = 0xD8, 0xD9, 0xDA, 0x01
RESTARTS = range(0xD0, 0xD8)
"""Markers of the start and the end of a picture, of the start of a scan, and those that stand alone."""

END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker that ends entropy-coded data: no stuffed byte, no restart, no fill byte."""

CHUNK_BYTES = 1 << 16
"""The size of a pipe's buffer on Linux. Source: pipe(7)."""

LAST_WORDS_BYTES = 4096
LINE_CHARS = 200
"""Kept of what a program complains, and shown of it."""

EXIT_S = 0.5
"""How long a program that has closed its output may take to exit and its last words to arrive."""


class JpegSplitter:
    """Cuts a stream of JPEG pictures: feed it bytes as they come, take pictures as they are whole.

    `skipped_bytes` counts what belonged to no picture since the last whole one.
    """

    def __init__(self, max_bytes: int = MAX_JPEG_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self._at: int | None = None
        """Where in the picture the walk stands; None while its start is searched."""
        self._in_scan = False
        self.skipped_bytes = 0

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._pending += data

    def take(self) -> bytes | None:
        """Return the next whole picture, or None until more has been fed."""
        while self._at is not None or self._find_start():
            end = self._walk()
            if end is not None:
                picture = bytes(self._pending[:end])
                self._drop(end)
                self.skipped_bytes = 0
                return picture
            if self._at is not None:  # all that there is has been walked
                if len(self._pending) > self._max_bytes:
                    self._skip(len(START))
                    continue
                return None
        return None

    def _find_start(self) -> bool:
        start = self._pending.find(START)
        self._skip(start if start >= 0 else max(0, len(self._pending) - len(START) + 1))
        if start < 0:
            return False
        self._at, self._in_scan = 2, False
        return True

    def _walk(self) -> int | None:
        """Return where the picture ends. None: more is needed, or (`_at` None) it is damaged and skipped."""
        data = self._pending
        while self._at is not None:
            at = self._at
            if self._in_scan:
                found = END_OF_SCAN.search(data, at)
                if found is None:
                    self._at = max(at, len(data) - 1)
                    return None
                self._at, self._in_scan = found.start(), False
                continue
            if len(data) < at + 2:
                return None
            mark, code = data[at], data[at + 1]
            if mark != 0xFF or code == SOI:
                self._skip(at)  # the end was lost; the next picture may begin here
            elif code == EOI:
                return at + 2
            elif code == 0xFF:
                self._at = at + 1
            elif code == TEM or code in RESTARTS:
                self._at = at + 2
            elif len(data) < at + 4:
                return None
            else:
                self._at = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
                self._in_scan = code == SOS
        return None

    def _skip(self, count: int) -> None:
        self.skipped_bytes += count
        self._drop(count)

    def _drop(self, count: int) -> None:
        del self._pending[:count]
        self._at = None


class PipeCamera:
    """Frames from a child process: MJPEG, or raw BGR of `size` (height, width).

    A program may take `open_timeout_s` to its first frame and `read_timeout_s` to each further one.
    `environment` replaces the one of this process.
    """

    live = True
    paced = True

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        *,
        clock: Clock,
        read_timeout_s: float,
        open_timeout_s: float = 5.0,
        size: tuple[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name, self._command, self._clock = name, command, clock
        self._open_timeout_s, self._read_timeout_s = open_timeout_s, read_timeout_s
        self._size, self._environment = size, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._last_words: _LastWordsThread | None = None
        self._interrupted = threading.Event()
        self._splitter = JpegSplitter()
        self._first: Frame | None = None
        self._buffers = FrameBuffers()
        self._number = 0
        self.description = f"program {command[0]}"
        """Not its arguments: they may hold anything."""

    def open(self) -> None:
        """Start the program and wait for its first frame.

        Raises:
            CameraError: It cannot be started, ends, or writes no frame.
        """
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                process_group=0,
                env=self._environment,
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise CameraError(f"{self._command[0]}: cannot be started: {why}") from None
        self._process, self._splitter, self._number = process, JpegSplitter(), 0
        if process.stderr is not None:
            self._last_words = _LastWordsThread(process.stderr, f"stderr-{self._name}")
            self._last_words.start()
        try:
            self._first = self._next(self._open_timeout_s)
        except CameraError:
            self.close()
            raise

    def read(self) -> Frame | None:
        """Wait for the next frame.

        Raises:
            CameraError: The program ended, fell silent, or writes something else.
        """
        frame, self._first = self._first, None
        return frame or self._next(self._read_timeout_s)

    def interrupt(self) -> None:
        """Kill the program, so that its output ends."""
        self._interrupted.set()
        if (process := self._process) is not None:
            kill_group(process.pid)

    def close(self) -> None:
        """Kill the program and whatever it started."""
        process, self._process = self._process, None
        self._first = None
        if process is None:
            return
        kill_group(process.pid)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if self._last_words is not None:
            self._last_words.join(EXIT_S)

    def _next(self, timeout_s: float) -> Frame:
        until_s = self._clock.monotonic() + timeout_s
        image = self._raw(self._size, until_s) if self._size else self._jpeg(until_s)
        frame = Frame(self._name, image, self._clock.now(), self._clock.monotonic(), self._number)
        self._number += 1
        return frame

    def _raw(self, size: tuple[int, int], until_s: float) -> Image:
        image = self._buffers.free()
        if image is None:
            image = np.empty((*size, 3), np.uint8)
            self._buffers.keep(image)
        bytes_ = image.data.cast("B")
        filled = 0
        while filled < len(bytes_):
            output = self._wait(until_s, f"{filled} of {len(bytes_)} bytes of a frame; check its size")
            count = os.readv(output, [bytes_[filled:]])
            if count == 0:
                raise self._ended()
            filled += count
        return image

    def _jpeg(self, until_s: float) -> Image:
        while True:
            while (data := self._splitter.take()) is not None:
                if (image := _decode(data)) is not None:
                    return image  # else it is damaged, and the next one may be whole
            if self._splitter.skipped_bytes > MAX_JPEG_BYTES:
                raise CameraError(
                    f"{self._command[0]}: writes no JPEG frames; check its options and `format`"
                )
            output = self._wait(until_s, "no whole JPEG frame; check its options and `format`")
            chunk = os.read(output, CHUNK_BYTES)
            if not chunk:
                raise self._ended()
            self._splitter.feed(chunk)

    def _wait(self, until_s: float, so_far: str) -> int:
        """Return the descriptor of the program's output once there is something to read, or its end."""
        process = self._process
        if process is None or process.stdout is None or self._interrupted.is_set():
            raise CameraError(f"{self._command[0]}: not running")
        left_s = until_s - self._clock.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            raise CameraError(f"{self._command[0]}: too slow or silent: {so_far}")
        return process.stdout.fileno()

    def _ended(self) -> CameraError:
        """Return what to say about the end of the program's output."""
        how = "closed its output"
        if self._process is not None:
            try:
                how = f"ended with code {self._process.wait(EXIT_S)}"
            except subprocess.TimeoutExpired:
                pass  # it goes on without output; `close` will kill it
        said = self._last_words.line(EXIT_S) if self._last_words else ""
        return CameraError(f"{self._command[0]}: {how}{': ' if said else ''}{said}")


class _LastWordsThread(threading.Thread):
    """Drains what a program complains, so that it never blocks, and keeps the end of it."""

    def __init__(self, stderr: IO[bytes], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._stderr = stderr
        self._tail = b""

    def run(self) -> None:
        with self._stderr:
            while chunk := self._stderr.read(LAST_WORDS_BYTES):
                self._tail = (self._tail + chunk)[-LAST_WORDS_BYTES:]

    def line(self, timeout_s: float) -> str:
        """Return the last line, once all has arrived or after `timeout_s`; "" where nothing was said."""
        self.join(timeout_s)
        text = self._tail.decode(errors="replace").strip()
        return scrub(text.splitlines()[-1])[:LINE_CHARS] if text else ""


def _decode(data: bytes) -> Image | None:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # such as more pixels than the limit
        return None
    return None if image is None else as_bgr(image)
