"""The worker thread: errors are survived, counted, logged once, and in the end shown to the watchdog."""

import logging
import threading

import pytest

from edge.core.metrics import Metrics
from edge.core.process import Beats
from edge.core.threads import MAX_FAILURES, WorkerThread
from tests.support.clock import SteppedClock


class Clerk(WorkerThread):
    """Fails in the turns that it is told to, and ends after the last."""

    def __init__(self, fails: list[bool], beats: Beats, metrics: Metrics) -> None:
        super().__init__("clerk", beat_limit_s=10, beats=beats, metrics=metrics)
        self.fails = fails
        self.turns = 0
        self.finished = threading.Event()

    def turn(self) -> bool:
        self.turns += 1
        if self.fails[self.turns - 1]:
            raise ValueError("ink is out")
        return self.turns < len(self.fails)

    def finish(self) -> None:
        self.finished.set()


def work(fails: list[bool], beats: Beats | None = None) -> tuple[Clerk, Metrics]:
    metrics = Metrics()
    clerk = Clerk(fails, beats or Beats(), metrics)
    clerk.start()
    clerk.join(10)
    assert not clerk.is_alive()
    return clerk, metrics


def test_it_works_until_a_turn_says_that_it_is_done():
    clerk, metrics = work([False] * 5)
    assert clerk.turns == 5
    assert clerk.finished.is_set()
    assert metrics.counts() == {}


def test_a_turn_that_fails_is_survived_counted_and_logged_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.ERROR)
    clerk, metrics = work([False, True, True, True, False])
    assert clerk.finished.is_set()
    assert metrics.counts() == {"clerk.failures": 3}
    assert caplog.text.count("clerk failed") == 1
    assert "ink is out" in caplog.text


def test_a_thread_that_only_fails_stops_beating(monkeypatch: pytest.MonkeyPatch):
    clock = SteppedClock()
    beats = Beats(clock.monotonic)
    clerk = Clerk([True] * (MAX_FAILURES + 5) + [False], beats, Metrics())
    monkeypatch.setattr(clerk, "_pause", threading.Event())
    clerk._pause.set()
    original = beats.beat
    seen: list[int] = []
    monkeypatch.setattr(beats, "beat", lambda name, extra_s=0.0: (seen.append(clerk.turns), original(name)))
    clerk.start()
    clerk.join(10)
    assert seen[: MAX_FAILURES - 1] == list(range(1, MAX_FAILURES))
    assert seen[MAX_FAILURES - 1 :] == [MAX_FAILURES + 6], "silent while it only fails, back when it works"
