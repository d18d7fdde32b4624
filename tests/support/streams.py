"""Things that look like cameras: clips made by ffmpeg, and servers that behave well, badly or not at all."""

import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np


def make_clip(
    path: Path, *, size: str = "320x240", seconds: float = 1.0, fps: int = 20, pixel: str = "1/1"
) -> Path:
    """Encode a moving test picture whose pixels are declared to be as wide over high as `pixel`."""
    source = f"testsrc=size={size}:rate={fps}:duration={seconds},setsar={pixel}"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


JFIF_PIXEL = b"JFIF\0\1\1\0"
"""What stands before the width and height of a pixel in a JPEG that OpenCV writes. Source: JFIF 1.02."""


def jpeg(shade: int, size: tuple[int, int] = (120, 160), pixel: tuple[int, int] = (1, 1)) -> bytes:
    """A plain picture of one shade, whose pixels are declared to be of a shape (wide, high).

    Without a unit, the densities that JFIF declares are the shape.
    """
    data = cv2.imencode(".jpg", np.full((*size, 3), shade, np.uint8))[1].tobytes()
    square = JFIF_PIXEL + bytes((0, 1, 0, 1))
    assert square in data
    return data.replace(square, JFIF_PIXEL + bytes((0, pixel[0], 0, pixel[1])))


class MjpegServer:
    """An HTTP camera, whose first frame comes after `first_s`.

    After `stall_after` frames it keeps the connection and falls silent.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        stall_after: int | None = None,
        fps: float = 25,
        first_s: float = 0,
        pixel: tuple[int, int] = (1, 1),
    ) -> None:
        stopping = self._stopping = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                stopping.wait(first_s)
                while not stopping.is_set():
                    if stall_after is not None and number >= stall_after:
                        stopping.wait(30)
                        return
                    body = jpeg(40 + number % 200, pixel=pixel)
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + body + b"\r\n")
                    except OSError:
                        return
                    number += 1
                    time.sleep(1 / fps)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video.mjpg"

    def __enter__(self) -> "MjpegServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class SilentServer:
    """Accepts connections and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)

    def _accept(self) -> None:
        while True:
            try:
                self.taken.append(self._socket.accept()[0])
            except OSError:
                return

    def __enter__(self) -> "SilentServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for taken in self.taken:
            taken.close()
