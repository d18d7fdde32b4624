"""The main loop goes on whatever one of its parts does, and says what failed once."""

import logging

import pytest

from edge.errors import FileError
from edge.guard import Guard
from edge.metrics import Metrics


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
