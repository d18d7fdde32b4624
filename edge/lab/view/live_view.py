"""Runs an aiming view: takes pictures from the daemon that runs here, or from the camera where none does."""

import threading
from collections.abc import Callable, Generator
from contextlib import closing

from edge.camera.photo import fitted
from edge.camera.sources import frames_of
from edge.core.clock import Clock, SystemClock
from edge.core.errors import ConfigError, EdgeError
from edge.core.metrics import Metrics
from edge.device.assembly.recognizer import build_camera, build_pipeline, build_recognizer
from edge.device.cameras.feed import PAUSE_S, PRIVACY, SIDE_PX, FeedPicture, watch_daemon
from edge.device.settings.load import Settings
from edge.lab.view.server import Pictures, ViewServer
from edge.recognition.scene import scene_of

STOP_S = 5.0
"""Left for the camera to give its last frame."""


def pictures_of(name: str, settings: Settings) -> tuple[Pictures, bool]:
    """Return the pictures of a camera, and whether they come from the daemon that runs here.

    Raises:
        ConfigError: There is no such camera, privacy mode is on, or the daemon is another user's.
        ModelError, GalleryError: Without a daemon: they cannot be used.
    """
    if name not in settings.cameras:
        known = ", ".join(settings.cameras) or "none"
        raise ConfigError(f"no camera {name!r} is configured (configured: {known})")
    if settings.privacy.anonymous:
        raise ConfigError(PRIVACY)
    served = watch_daemon(settings.state_dir, name)
    return (served, True) if served is not None else (_own(name, settings, SystemClock()), False)


def _own(name: str, settings: Settings, clock: Clock) -> Generator[FeedPicture | None]:
    """Open the camera and yield its pictures, at most ten a second; nothing is published.

    Raises:
        EdgeError: The camera or the models cannot be used.
    """
    recognizer = build_recognizer(settings)
    pipeline = build_pipeline(name, settings, metrics=Metrics(), clock=clock)
    shown_s = -float("inf")
    with closing(frames_of(build_camera(name, settings, clock))) as frames:
        for frame in frames:
            pipeline.process(frame, recognizer)
            if clock.monotonic() - shown_s >= PAUSE_S:
                shown_s = clock.monotonic()
                yield FeedPicture(fitted(frame.image, SIDE_PX), scene_of(frame, pipeline, recognizer))


def show(server: ViewServer, pictures: Pictures, minutes: float, told: Callable[[str], None]) -> None:
    """Serve pictures until their source ends, or for so many minutes; `told` hears the address.

    Raises:
        EdgeError: The source has ended in a way that is to be told.
    """
    failed: list[EdgeError] = []
    ended = threading.Event()

    def follow() -> None:
        try:
            server.latest.follow(pictures)
        except EdgeError as error:
            failed.append(error)
        finally:
            ended.set()

    threading.Thread(target=server.serve_forever, name="view-server", daemon=True).start()
    following = threading.Thread(target=follow, name="view-pictures", daemon=True)
    following.start()
    told(server.address)
    try:
        ended.wait(minutes * 60)
    finally:
        server.latest.end()
        server.shutdown()
        following.join(STOP_S)
    if failed:
        raise failed[0]
