"""PipeCamera: a program that writes frames to its standard output, such as rpicam-vid or ffmpeg.

The way to CSI cameras, which the wheels of OpenCV cannot open. Local configuration only: a command is code.
"""

import os
import select
import shlex
import subprocess
import threading
from collections import deque
from signal import SIGKILL

import cv2
import numpy as np

from edge.camera.sources import as_bgr
from edge.clock import Clock
from edge.errors import CameraError
from edge.redact import scrub
from edge.types import Frame, Image

CHUNK_BYTES = 1 << 16
"""The size of a pipe's buffer on Linux."""

MAX_JPEG_BYTES = 16 * 1024 * 1024
"""A larger frame is not a camera's: the stream is garbage."""

START, END = b"\xff\xd8\xff", b"\xff\xd9"
"""First bytes of a JPEG (SOI and the next marker) and its end (EOI). Source: ITU-T T.81, annex B."""


class PipeCamera:
    """Frames from a child process: MJPEG, or raw BGR of `size` (height, width)."""

    live = True
    paced = True

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        *,
        clock: Clock,
        read_timeout_s: float,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._name, self._command, self._clock = name, command, clock
        self._read_timeout_s = read_timeout_s
        self._size = size
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = bytearray()
        self._said: deque[str] = deque(maxlen=1)
        self._number = 0
        self.description = scrub(shlex.join(command))

    def open(self) -> None:
        """Start the program.

        Raises:
            CameraError: It cannot be started.
        """
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                process_group=0,
            )
        except OSError as error:
            raise CameraError(f"{self._command[0]}: cannot be started: {error.strerror}") from None
        self._pending.clear()
        threading.Thread(target=self._drain, name=f"stderr-{self._name}", daemon=True).start()

    def read(self) -> Frame | None:
        """Wait for the next frame.

        Raises:
            CameraError: The program ended, stalled, or writes something else than frames.
        """
        image = self._raw(self._size) if self._size else self._jpeg()
        frame = Frame(self._name, image, self._clock.now(), self._clock.monotonic(), self._number)
        self._number += 1
        return frame

    def close(self) -> None:
        """Kill the program and whatever it started."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, SIGKILL)
        except ProcessLookupError:
            pass  # it has ended by itself
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def _raw(self, size: tuple[int, int]) -> Image:
        wanted = size[0] * size[1] * 3
        while len(self._pending) < wanted:
            self._fill()
        image = np.frombuffer(bytes(self._pending[:wanted]), np.uint8).reshape(*size, 3)
        del self._pending[:wanted]
        return image

    def _jpeg(self) -> Image:
        searched = 0
        while True:
            start = self._pending.find(START)
            if start > 0:
                del self._pending[:start]
                searched = 0
            end = self._pending.find(END, max(searched, len(START))) if start >= 0 else -1
            if end >= 0:
                data = bytes(self._pending[: end + len(END)])
                del self._pending[: end + len(END)]
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                if image is not None:
                    return as_bgr(image)
                searched = 0
                continue  # a damaged frame: the next one may be whole
            if len(self._pending) > MAX_JPEG_BYTES:
                raise CameraError(
                    f"{self._command[0]}: writes no JPEG frames; check its options and `format`"
                )
            searched = len(self._pending) - 1
            self._fill()

    def _fill(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            raise CameraError(f"{self._command[0]}: not running")
        try:
            ready, _, _ = select.select([process.stdout], [], [], self._read_timeout_s)
            chunk = process.stdout.read(CHUNK_BYTES) if ready else None
        except (OSError, ValueError):
            raise CameraError(f"{self._command[0]}: was closed") from None
        if chunk is None:
            raise CameraError(f"{self._command[0]}: wrote nothing for {self._read_timeout_s:.1f} s")
        if not chunk:
            said = f": {scrub(self._said[-1])}" if self._said else ""
            raise CameraError(f"{self._command[0]}: ended with code {process.wait()}{said}")
        self._pending += chunk

    def _drain(self) -> None:
        """Keep the last line the program complains with, and never let it block on a full pipe."""
        process = self._process
        if process is None or process.stderr is None:
            return
        try:
            for line in process.stderr:
                if text := line.decode(errors="replace").strip():
                    self._said.append(text[:200])
        except (OSError, ValueError):
            return  # closed under us by `close`
