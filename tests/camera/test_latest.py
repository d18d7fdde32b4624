"""One place per camera: newest wins, nobody starves, replays lose nothing."""

import threading
from datetime import UTC, datetime

import numpy as np

from edge.camera.latest import LatestFrames
from edge.core.types import Frame
from tests.support.waits import LIMIT_S


def frame(camera: str, number: int) -> Frame:
    return Frame(camera, np.zeros((2, 2, 3), np.uint8), datetime(2026, 1, 1, tzinfo=UTC), number / 10, number)


def test_a_newer_frame_replaces_the_untaken_one_and_is_counted():
    frames = LatestFrames()
    for number in range(5):
        frames.put(frame("front", number))
    assert frames.take(0).number == 4
    assert frames.take(0) is None
    assert frames.replaced == {"front": 4}


def test_the_camera_that_waited_longest_comes_first():
    frames = LatestFrames()
    frames.put(frame("slow", 0))
    for number in range(10):
        frames.put(frame("fast", number))
    assert [frames.take(0).camera, frames.take(0).camera] == ["slow", "fast"]


def test_a_fast_camera_does_not_starve_a_slow_one():
    frames = LatestFrames()
    taken = []
    for number in range(50):
        frames.put(frame("fast", number))
        if number % 5 == 0:
            frames.put(frame("slow", number))
        taken.append(frames.take(0).camera)
    assert taken.count("slow") >= 9


def test_a_waiting_replay_loses_no_frame():
    frames = LatestFrames()

    def play() -> None:
        for number in range(100):
            frames.put(frame("clip", number), wait=True)

    player = threading.Thread(target=play)
    player.start()
    numbers = [frames.take(2).number for _ in range(100)]
    player.join()
    assert numbers == list(range(100))
    assert frames.replaced == {}


def test_close_wakes_takers_and_waiting_players():
    frames = LatestFrames()
    frames.put(frame("clip", 0))
    threads = [threading.Thread(target=frames.put, args=(frame("clip", 1),), kwargs={"wait": True})]
    threads[0].start()
    frames.close()
    threads[0].join(LIMIT_S)
    assert not threads[0].is_alive()
    assert frames.take(5) is None


def test_a_player_that_waits_no_longer_keeps_its_frame():
    frames = LatestFrames()
    assert frames.put(frame("clip", 0), wait=True, timeout_s=0.05)
    assert not frames.put(frame("clip", 1), wait=True, timeout_s=0.05)
    assert frames.take(0).number == 0
    assert frames.put(frame("clip", 1), wait=True, timeout_s=0.05)
    assert frames.take(0).number == 1
    assert frames.replaced == {}
