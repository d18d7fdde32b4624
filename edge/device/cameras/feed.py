"""Hands the pictures of a running daemon to `edge view` on the same machine, while one is connected.

Over a Unix socket in the state directory, for this user and root alone. A picture is of a frame that was just
looked at, reduced, with what was seen there; at most ten a second, and none while nobody looks. A message is
two lengths, a JSON document and the pixels: `FeedPicture`, or a refusal in words.
"""

import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from edge.camera.photo import fitted
from edge.core.clock import Clock
from edge.core.errors import CameraError, ConfigError
from edge.core.files import PRIVATE, daemon_runs, short_path
from edge.core.types import Frame, Image
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer
from edge.recognition.scene import CameraScene, scene_of

log = logging.getLogger(__name__)

SOCKET = "view.sock"

PAUSE_S = 0.1
"""Between two pictures for one view."""

SIDE_PX = 960
"""Longer side that a picture is reduced to."""

MOST_VIEWS = 2
"""Views that get pictures at the same time."""

SILENT_S = 1.0
"""A view that got nothing for this long is told so: the camera may have stopped."""

PATIENCE_S = 5.0
"""How long a view may take to ask, or to take a picture."""

MOST_JSON, MOST_PIXELS = 64 * 1024, 3 * SIDE_PX * SIDE_PX
"""Bytes of the two parts of a message at most."""

_LENGTHS = struct.Struct(">II")
_SCENE = TypeAdapter(CameraScene)

PRIVACY = "privacy.anonymous is set: this door shows its pictures to nobody, an aiming view included"


@dataclass(frozen=True, slots=True, eq=False)
class FeedPicture:
    """A picture, BGR, at most `SIDE_PX` to a side, and what was seen in its frame."""

    image: Image
    scene: CameraScene


class FrameFeed:
    """Listens for views and serves each in a thread of its own, which ends with it.

    `tick` and `close` are called by the main thread, `offer` by the inference thread: it never waits, and
    does nothing while nobody looks. With `anonymous` every view is refused.
    """

    def __init__(self, state_dir: Path, *, anonymous: bool, clock: Clock) -> None:
        self._state_dir = state_dir
        self._anonymous = anonymous
        self._clock = clock
        self._listening: socket.socket | None = None
        self._views: list[_ViewThread] = []

    def listen(self) -> None:
        """Begin to listen. A socket of a daemon that was killed makes room.

        What fails is told: a door works without.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            (self._state_dir / SOCKET).unlink(missing_ok=True)
            with short_path(self._state_dir / SOCKET) as path:
                listening.bind(path)
            (self._state_dir / SOCKET).chmod(PRIVATE)
            listening.listen(MOST_VIEWS)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            log.warning("`edge view` cannot see what this daemon sees: %s", error.strerror)
            return
        self._listening = listening

    def tick(self) -> None:
        """Serve who has come, and forget who has gone."""
        self._views = [view for view in self._views if view.is_alive()]
        with suppress(BlockingIOError):
            while self._listening is not None:
                connection, _ = self._listening.accept()
                self._welcome(connection)

    def offer(self, frame: Frame, pipeline: Pipeline, recognizer: Recognizer) -> None:
        """Take a frame that was just looked at, for the views that wait for one of this camera."""
        waiting = [view for view in self._views if view.wants(frame)]
        if waiting:
            scene = scene_of(frame, pipeline, recognizer)
            for view in waiting:
                view.give(frame, scene)

    def close(self) -> None:
        """End all views, and listen no more."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            with suppress(OSError):
                (self._state_dir / SOCKET).unlink()
        for view in self._views:
            view.end()

    def _welcome(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        uid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if uid not in (0, os.getuid()):
            connection.close()
            return
        refusal = PRIVACY if self._anonymous else None
        if len(self._views) >= MOST_VIEWS:
            refusal = f"{MOST_VIEWS} views are open already; close one"
        view = _ViewThread(connection, self._clock, refusal)
        view.start()
        self._views = [*self._views, view]


class _ViewThread(threading.Thread):
    """Serves one view: hears which camera it wants, and sends what it is given, until either end goes."""

    def __init__(self, connection: socket.socket, clock: Clock, refusal: str | None) -> None:
        super().__init__(name="view", daemon=True)
        self._connection = connection
        self._clock = clock
        self._refusal = refusal
        self._camera = ""
        self._given_s = -float("inf")
        self._next: tuple[Frame, CameraScene] | None = None
        self._changed = threading.Condition()
        self._ending = False

    def wants(self, frame: Frame) -> bool:
        """Return whether this view waits for a frame of this camera."""
        due = self._clock.monotonic() - self._given_s >= PAUSE_S
        return frame.camera == self._camera and self._next is None and due

    def give(self, frame: Frame, scene: CameraScene) -> None:
        """Hand it a frame."""
        with self._changed:
            self._next, self._given_s = (frame, scene), self._clock.monotonic()
            self._changed.notify()

    def end(self) -> None:
        """Let it end."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def run(self) -> None:
        """Serve until the view goes, or the daemon."""
        with self._connection, suppress(OSError):
            self._camera = self._connection.recv(64).decode(errors="replace")
            if self._refusal is not None:
                _send(self._connection, {"refused": self._refusal})
                return
            log.info("a view is open", extra={"camera": self._camera})
            while not self._ending:
                with self._changed:
                    self._changed.wait_for(lambda: self._ending or self._next is not None, SILENT_S)
                    given, self._next = self._next, None
                if given is None:
                    _send(self._connection, {})
                else:
                    frame, scene = given
                    image = fitted(frame.image, SIDE_PX)
                    told = {"shape": image.shape, "scene": _SCENE.dump_python(scene, mode="json")}
                    _send(self._connection, told, np.ascontiguousarray(image))
        log.info("a view was closed", extra={"camera": self._camera})


class DaemonPictures(Iterator[FeedPicture | None]):
    """What a running daemon hands over of a camera, one picture after the other; None where it has none."""

    def __init__(self, connection: socket.socket, camera: str) -> None:
        self._connection = connection
        with suppress(OSError):  # who closed it is told when something is to be read
            connection.sendall(camera.encode())

    def __next__(self) -> FeedPicture | None:
        """Wait for the next.

        Raises:
            ConfigError: The daemon refuses.
            CameraError: It has ended.
        """
        try:
            json_size, size = _LENGTHS.unpack(_read(self._connection, _LENGTHS.size))
            if json_size > MOST_JSON or size > MOST_PIXELS:
                raise ValueError
            told, pixels = json.loads(_read(self._connection, json_size)), _read(self._connection, size)
            if "refused" in told:
                raise ConfigError(str(told["refused"]))
            if not told:
                return None
            image = np.frombuffer(pixels, np.uint8).reshape(told["shape"])
            return FeedPicture(image, _SCENE.validate_python(told["scene"]))
        except (OSError, EOFError):
            raise CameraError("the daemon has ended, and the view with it") from None
        except (ValueError, KeyError, TypeError, ValidationError):
            raise CameraError("the daemon speaks of pictures in another way; restart it") from None

    def close(self) -> None:
        """Look no more."""
        self._connection.close()


def watch_daemon(state_dir: Path, camera: str) -> DaemonPictures | None:
    """Return the pictures of the daemon of a state directory; None: none runs there.

    Raises:
        ConfigError: It is another user's, or hands no pictures over.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(PATIENCE_S)
    try:
        with short_path(state_dir / SOCKET) as path:
            connection.connect(path)
    except PermissionError:
        connection.close()
        raise ConfigError(
            f"state_dir: {state_dir} is of another user's daemon; run this as that user, or by "
            "systemd/edge-command"
        ) from None
    except OSError:
        connection.close()
        if daemon_runs(state_dir):
            raise ConfigError(
                "the daemon that runs here hands no pictures over; see its log, or stop it and run this again"
            ) from None
        return None
    return DaemonPictures(connection, camera)


def _send(connection: socket.socket, told: dict[str, object], image: Image | None = None) -> None:
    document = json.dumps(told).encode()
    connection.sendall(_LENGTHS.pack(len(document), 0 if image is None else image.nbytes) + document)
    if image is not None:
        connection.sendall(image.data)


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        taken = connection.recv_into(left)
        if not taken:
            raise EOFError
        left = left[taken:]
    return data
