"""Threads that show progress: errors are survived, counted, told once, and seen by the watchdog."""

import logging
import threading

import pytest

from edge.core.errors import FileError
from edge.core.metrics import Metrics
from edge.core.threads import MAX_FAILURES, Beats, Guard, WorkerThread
from tests.support.clock import SteppedClock
from tests.support.waits import LIMIT_S


def test_a_part_that_makes_no_progress_is_late():
    clock = SteppedClock()
    beats = Beats(clock.monotonic)
    beats.register("inference", 10)
    beats.register("outbox", 60)
    clock.now_s += 11
    assert beats.late() == ["inference"]
    beats.beat("inference")
    assert beats.late() == []
    clock.now_s += 61
    assert beats.late() == ["inference", "outbox"]
    beats.forget("inference")
    assert beats.late() == ["outbox"]


def test_a_declared_pause_is_no_lateness():
    clock = SteppedClock()
    beats = Beats(clock.monotonic)
    beats.register("front", 10)
    beats.beat("front", extra_s=30)
    clock.now_s += 39
    assert beats.late() == []
    clock.now_s += 2
    assert beats.late() == ["front"]


def test_a_beat_of_a_stranger_changes_nothing():
    beats = Beats(SteppedClock().monotonic)
    beats.beat("nobody")
    assert beats.late() == []


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
    clerk.join(LIMIT_S)
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
    clerk.join(LIMIT_S)
    assert seen[: MAX_FAILURES - 1] == list(range(1, MAX_FAILURES))
    assert seen[MAX_FAILURES - 1 :] == [MAX_FAILURES + 6], "silent while it only fails, back when it works"


@pytest.mark.parametrize(
    ("error", "traced"),
    [
        pytest.param(FileError("the disk is full"), False, id="an error of ours"),
        pytest.param(BlockingIOError(11, "no process left"), False, id="the system's"),
        pytest.param(TypeError("nobody thought of it"), True, id="one that nobody thought of"),
    ],
)
def test_what_fails_is_told_once_and_counted(
    error: Exception, traced: bool, caplog: pytest.LogCaptureFixture
):
    metrics = Metrics()
    guard, works = Guard("main", metrics), False

    def part() -> None:
        if not works:
            raise error

    assert [guard.attempt("commands", part) for _ in range(5)] == [False] * 5
    assert metrics.counts()["main.failures"] == 5
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert str(error) in record.getMessage()
    assert bool(record.exc_info) == traced
    works = True
    assert guard.attempt("commands", part)
    works = False
    guard.attempt("commands", part)
    assert len(caplog.records) == 2, "what fails anew is told anew"


def test_an_exit_is_no_failure():
    with pytest.raises(KeyboardInterrupt):
        Guard("main", Metrics()).attempt("commands", _interrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt


class Loop:
    """A loop of two parts, of which one may fail, and what the watchdog looks at."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.beats = Beats(self.clock.monotonic)
        self.guard = Guard("main", Metrics(), self.beats)

    def turn(self, times: int, error: Exception | None) -> list[str]:
        def fail() -> None:
            if error is not None:
                raise error

        for _ in range(times):
            self.clock.now_s += 0.25
            self.guard.attempt("commands", fail)
            self.guard.attempt("gallery", lambda: None)
        return self.beats.late()


def test_a_part_that_fails_for_ever_as_nobody_thought_of_lets_the_watchdog_act(
    caplog: pytest.LogCaptureFixture,
):
    loop, unforeseen = Loop(), TypeError("nobody thought of it")
    assert loop.turn(MAX_FAILURES - 1, unforeseen) == []
    assert loop.turn(100, None) == [], "it works again"
    assert loop.turn(200, unforeseen) == ["main"]
    said = [each.getMessage() for each in caplog.records]
    assert [f"({MAX_FAILURES} times" in each for each in said] == [False, False, True]
    assert loop.turn(1, None) == []


@pytest.mark.parametrize("error", [FileError("the disk is full"), BlockingIOError(11, "no process left")])
def test_a_part_that_fails_for_a_known_reason_restarts_nothing(error: Exception):
    assert Loop().turn(1000, error) == []


def test_a_guard_of_what_others_ask_for_restarts_nothing():
    loop = Loop()
    loop.guard = Guard("main", Metrics())
    loop.beats = Beats(loop.clock.monotonic)
    assert loop.turn(1000, TypeError("nobody thought of it")) == []


def test_what_took_long_elsewhere_makes_no_part_late():
    loop = Loop()
    loop.clock.now_s = 100.0
    late: list[str] = []
    loop.guard.attempt("push", lambda: late.extend(loop.beats.late()))
    assert late == []
