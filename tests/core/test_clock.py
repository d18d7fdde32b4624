"""The time that is known is a floor: no clock is believed to be earlier. One that had run ahead is left."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.core.clock import SLACK, FloorClock, KnownTime
from tests.support.clock import START, SteppedClock

BUILT_AT = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Board:
    """A device whose battery may be empty and whose network may be gone."""

    path: Path
    clock: SteppedClock
    synced: bool = False

    def start(self, shift: timedelta = timedelta(0)) -> FloorClock:
        """Start the daemon while the board's clock is off by `shift`."""
        self.clock.shift = shift
        found = FloorClock(self.clock, self.path, built_at=BUILT_AT, synced=lambda: self.synced)
        found.tick()
        return found


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "clock.json", SteppedClock())


def test_a_clock_that_is_right_is_followed_and_remembered_seldom(board: Board):
    clock = board.start()
    assert (clock.now(), clock.behind, clock.known) == (START, False, True)
    written = board.path.stat().st_mtime_ns
    board.clock.now_s = 3599
    clock.tick()
    assert board.path.stat().st_mtime_ns == written
    board.clock.now_s = 3600
    clock.tick()
    assert KnownTime.model_validate_json(board.path.read_bytes()).seen_at == START + HOUR


def test_after_a_start_with_a_clock_that_is_behind_it_is_at_least_what_was_known(
    board: Board, caplog: pytest.LogCaptureFixture
):
    board.start().save()
    clock = board.start(-100 * HOUR)
    assert (clock.now(), clock.behind, clock.known) == (START, True, False)
    board.clock.now_s = 60
    clock.tick()
    assert clock.now() == START + timedelta(seconds=60), "it goes on"
    assert caplog.text.count("the clock says") == 1
    board.clock.shift = timedelta(0)
    clock.tick()
    assert (clock.now(), clock.behind, clock.known) == (START + timedelta(seconds=60), False, True)


def test_a_clock_that_is_set_back_while_the_door_runs_changes_nothing(board: Board):
    clock = board.start()
    board.clock.now_s = 100
    clock.tick()
    board.clock.shift = -2 * HOUR
    for now_s in (100, 200):
        board.clock.now_s = now_s
        clock.tick()
        assert clock.now() == START + timedelta(seconds=now_s)
        assert (clock.behind, clock.known) == (True, True), "the hour is known by the monotonic clock"


def test_a_correction_is_followed_but_many_do_not_lead_back(board: Board):
    clock = board.start()
    board.clock.shift = -SLACK
    clock.tick()
    assert (clock.now(), clock.behind) == (START - SLACK, False)
    board.clock.shift = -SLACK - timedelta(seconds=1)
    clock.tick()
    assert (clock.now(), clock.behind) == (START, True)


def test_no_clock_is_older_than_the_software(board: Board):
    clock = board.start(BUILT_AT - START - HOUR)
    assert (clock.now(), clock.known) == (BUILT_AT, False)


def test_what_was_confirmed_is_remembered_at_once(board: Board):
    board.start().prove(START + 5 * HOUR)
    assert board.start().now() == START + 5 * HOUR
    clock = board.start()
    clock.prove(START)
    clock.prove(None)
    assert clock.now() == START + 5 * HOUR, "what is older proves nothing"


def test_a_clock_that_had_run_ahead_is_left_for_one_that_a_time_source_sets(board: Board):
    ahead = board.start(9000 * HOUR)
    ahead.save()
    clock = board.start()
    assert clock.behind
    board.synced = True
    clock.tick()
    assert (clock.now(), clock.behind, clock.known) == (START, False, True)
    assert not board.start().behind, "for good"


def test_what_a_time_source_set_or_somebody_confirmed_is_not_left(board: Board):
    board.synced = True
    board.start(10 * HOUR).save()
    clock = board.start()
    assert (clock.behind, clock.now()) == (True, START + 10 * HOUR)
    board.path.unlink()
    board.synced = False
    board.start().prove(START + 20 * HOUR)
    board.synced = True
    clock = board.start()
    assert (clock.behind, clock.now()) == (True, START + 20 * HOUR)


def test_a_damaged_file_is_told_and_the_clock_is_not_older_than_the_software(
    board: Board, caplog: pytest.LogCaptureFixture
):
    board.path.write_text("torn")
    clock = board.start(-100_000 * HOUR)
    assert clock.now() == BUILT_AT
    assert "it is not known what time it was before" in caplog.text
    board.clock.shift = timedelta(0)
    clock.tick()
    assert KnownTime.model_validate_json(board.path.read_bytes()).seen_at == START


def test_a_disk_that_cannot_be_written_stops_nothing(board: Board, caplog: pytest.LogCaptureFixture):
    board.path.mkdir()
    clock = board.start()
    for now_s in range(10):
        board.clock.now_s = now_s
        clock.tick()
    assert clock.now() == START + timedelta(seconds=9)
    assert caplog.text.count("the time is not remembered") == 1
