"""PipeCamera: a program that writes frames to its standard output, such as rpicam-vid or ffmpeg.

The way to CSI cameras, which the wheels of OpenCV cannot open. Local configuration only: a command is code.
"""

import os
import select
import subprocess
import threading
from collections.abc import Mapping
from signal import SIGKILL
from typing import IO

import cv2
import numpy as np

from edge.camera.buffers import FrameBuffers
from edge.camera.mjpeg import MAX_JPEG_BYTES, JpegSplitter
from edge.camera.sources import as_bgr
from edge.core.clock import Clock
from edge.core.errors import CameraError
from edge.core.redact import scrub
from edge.core.types import Frame, Image

CHUNK_BYTES = 1 << 16
"""The size of a pipe's buffer on Linux. Source: pipe(7)."""

LAST_WORDS_BYTES = 4096
LINE_CHARS = 200
"""Kept of what a program complains, and shown of it."""

EXIT_S = 0.5
"""How long a program that has closed its output may take to exit and its last words to arrive."""


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
            _kill(process)

    def close(self) -> None:
        """Kill the program and whatever it started."""
        process, self._process = self._process, None
        self._first = None
        if process is None:
            return
        _kill(process)
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


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, SIGKILL)
    except ProcessLookupError:
        pass  # it has ended by itself
