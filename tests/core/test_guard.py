"""The main loop goes on whatever one of its parts does, and says what failed once."""

import logging

import pytest

from edge.core.errors import FileError
from edge.core.metrics import Metrics
from edge.core.process import Beats
from edge.core.threads import MAX_FAILURES, Guard
from tests.support.clock import SteppedClock


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
    loop.guard.attempt("pushed configuration", lambda: late.extend(loop.beats.late()))
    assert late == []
