"""The pictures that a running daemon hands to a view: to whom, how many, and when none."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from time import sleep

import numpy as np
import pytest

from edge.core.clock import SystemClock
from edge.core.errors import ConfigError
from edge.core.files import sole_daemon
from edge.core.metrics import Metrics
from edge.core.types import Frame, Image
from edge.device.assembly.recognizer import build_pipeline
from edge.device.cameras.feed import (
    MOST_VIEWS,
    PAUSE_S,
    SIDE_PX,
    SOCKET,
    FeedPicture,
    FrameFeed,
    watch_daemon,
)
from edge.device.settings.load import load
from edge.recognition.recognizer import Recognizer
from tests.support.waits import wait_until


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FrameFeed]:
    made = FrameFeed(tmp_path, anonymous=False, clock=SystemClock())
    made.listen()
    yield made
    made.close()


@pytest.fixture
def offer(feed: FrameFeed, recognizer: Recognizer) -> Callable[[Image, str], None]:
    """Looks at a frame of a camera, and lets the feed do what the daemon's loop lets it do."""
    clock = SystemClock()
    pipelines = {
        name: build_pipeline(name, load(), metrics=Metrics(), clock=clock) for name in ("front", "back")
    }

    def look(image: Image, camera: str = "front") -> None:
        frame = Frame(camera, image, datetime.now(UTC), clock.monotonic(), 0)
        pipelines[camera].process(frame, recognizer)
        feed.offer(frame, pipelines[camera], recognizer)
        feed.tick()

    return look


def received(
    directory: Path, act: Callable[[], object], number: int, camera: str = "front"
) -> list[FeedPicture | None]:
    """What a view gets while `act` is done again and again, until it has so much."""
    pictures = watch_daemon(directory, camera)
    assert pictures is not None
    found: list[FeedPicture | None] = []

    def read() -> None:
        with closing(pictures):
            while len(found) < number:
                found.append(next(pictures))

    reader = Thread(target=read)
    reader.start()
    wait_until(lambda: (act(), not reader.is_alive())[1])
    return found


def test_a_view_gets_what_was_seen_in_a_reduced_picture(
    tmp_path: Path, offer: Callable[..., None], man: Image
):
    large = np.asarray(np.kron(man, np.ones((3, 3, 1), np.uint8)))
    [shown] = received(tmp_path, lambda: offer(large), 1)
    assert shown is not None
    assert max(shown.image.shape) == SIDE_PX
    assert (shown.scene.width, shown.scene.height) == large.shape[1::-1]
    [face] = [*shown.scene.faces, *received(tmp_path, lambda: offer(large), 1)[0].scene.faces][:1]
    assert face.face_px > 300
    assert 0 < face.box[0] < face.box[2] < 1


def test_it_gets_ten_pictures_a_second_at_most_and_of_its_camera_alone(
    tmp_path: Path, offer: Callable[..., None], man: Image
):
    clock, began_s = SystemClock(), SystemClock().monotonic()

    def both() -> None:
        offer(man, "back")
        offer(man, "front")

    found = received(tmp_path, both, 4)
    assert {each.scene.camera for each in found if each is not None} == {"front"}
    assert clock.monotonic() - began_s >= 3 * PAUSE_S


def test_a_camera_that_is_silent_is_said_to_be(tmp_path: Path, feed: FrameFeed):
    assert received(tmp_path, feed.tick, 1) == [None]


def test_one_view_too_many_is_refused_and_a_place_becomes_free(
    tmp_path: Path, feed: FrameFeed, offer: Callable[..., None], man: Image
):
    views = [watch_daemon(tmp_path, "front") for _ in range(MOST_VIEWS + 1)]
    wait_until(lambda: (feed.tick(), len(feed._views) == MOST_VIEWS)[1])
    *_, last = views
    assert last is not None
    with pytest.raises(ConfigError, match="views are open already"):
        next(last)
    for each in views:
        assert each is not None
        each.close()


def test_privacy_mode_refuses_in_words(tmp_path: Path):
    feed = FrameFeed(tmp_path, anonymous=True, clock=SystemClock())
    feed.listen()
    pictures = watch_daemon(tmp_path, "front")
    assert pictures is not None
    feed.tick()
    with pytest.raises(ConfigError, match=r"privacy\.anonymous is set"):
        next(pictures)
    pictures.close()
    feed.close()
    assert not (tmp_path / SOCKET).exists()


def test_without_a_daemon_there_is_nobody_to_ask_and_one_without_pictures_is_told(tmp_path: Path):
    assert watch_daemon(tmp_path / "nothing", "front") is None
    (tmp_path / SOCKET).touch()
    assert watch_daemon(tmp_path, "front") is None
    with sole_daemon(tmp_path), pytest.raises(ConfigError, match="hands no pictures over"):
        watch_daemon(tmp_path, "front")


def test_a_socket_left_by_a_killed_daemon_and_a_long_path_keep_it_from_nothing(tmp_path: Path):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    (long / SOCKET).touch()
    feed = FrameFeed(long, anonymous=False, clock=SystemClock())
    feed.listen()
    assert received(long, feed.tick, 1) == [None]
    feed.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_is_told_whose_daemon_it_is_and_gets_no_picture(tmp_path: Path):
    ask = (
        "import os, sys; from pathlib import Path; from edge.device.cameras.feed import watch_daemon; "
        f"os.chdir({str(tmp_path)!r}); os.setuid(65534); next(watch_daemon(Path(), 'front'))"
    )
    for mode, told in ((0o600, "another user's daemon"), (0o666, "the daemon has ended")):
        feed = FrameFeed(tmp_path, anonymous=False, clock=SystemClock())
        feed.listen()
        tmp_path.chmod(0o711)
        (tmp_path / SOCKET).chmod(mode)
        child = subprocess.Popen([sys.executable, "-c", ask], stderr=subprocess.PIPE, text=True)
        while child.poll() is None:
            feed.tick()
            sleep(0.01)
        assert told in child.communicate()[1]
        feed.close()
