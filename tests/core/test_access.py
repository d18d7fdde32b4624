"""When a subject may pass: windows as people write them, over midnight, over a clock change."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, reset_tzpath

import pytest

from edge.core.access import Access, Window, zone

BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param("mon-fri 07:00-18:00", "mon,tue,wed,thu,fri 07:00-18:00", id="a working week"),
        pytest.param("sat,sun 22:00-06:00", "sat,sun 22:00-06:00", id="nights"),
        pytest.param("fri-mon 00:00-24:00", "mon,fri,sat,sun 00:00-24:00", id="over the weekend"),
        pytest.param("mon-sun,mon 08:15-08:16", "mon,tue,wed,thu,fri,sat,sun 08:15-08:16", id="twice"),
    ],
)
def test_a_window_is_read_and_written_as_people_do(text: str, written: str):
    window = Window.parse(text)
    assert str(window) == written
    assert Window.parse(written) == window


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("always", id="a word"),
        pytest.param("mon 7:00-18:00", id="one digit"),
        pytest.param("mon 25:00-26:00", id="after the day's end"),
        pytest.param("mon 24:00-06:00", id="starts at the end"),
        pytest.param("mon 07:60-18:00", id="minute 60"),
        pytest.param("monday 07:00-18:00", id="a day's long name"),
        pytest.param("abc 07:00-18:00", id="no day"),
        pytest.param("mon-abc 07:00-18:00", id="to no day"),
        pytest.param("mon 07:00-18:00\n", id="a second line"),
    ],
)
def test_what_is_no_window_is_refused(text: str):
    with pytest.raises(ValueError, match="window"):
        Window.parse(text)


@pytest.mark.parametrize(
    ("text", "weekday", "minute", "is_open"),
    [
        pytest.param("mon 07:00-18:00", 0, 7 * 60, True, id="the first minute"),
        pytest.param("mon 07:00-18:00", 0, 18 * 60, False, id="the end is outside"),
        pytest.param("mon 07:00-18:00", 0, 7 * 60 - 1, False, id="a minute early"),
        pytest.param("mon 07:00-18:00", 1, 12 * 60, False, id="another day"),
        pytest.param("sun 22:00-06:00", 6, 23 * 60, True, id="before midnight"),
        pytest.param("sun 22:00-06:00", 0, 5 * 60 + 59, True, id="after midnight, in the next week"),
        pytest.param("sun 22:00-06:00", 0, 6 * 60, False, id="after the night"),
        pytest.param("sun 22:00-06:00", 6, 5 * 60, False, id="the night before has no window"),
        pytest.param("mon 00:00-24:00", 0, 24 * 60 - 1, True, id="the whole day"),
        pytest.param("mon 08:00-08:00", 1, 7 * 60, True, id="a day from eight to eight"),
    ],
)
def test_a_window_is_open_between_its_ends(text: str, weekday: int, minute: int, is_open: bool):
    assert Window.parse(text).open_at(weekday, minute) is is_open


def test_moments_are_utc_and_in_order():
    now = datetime(2026, 11, 24, tzinfo=UTC)
    later = now + timedelta(days=1)
    assert Access(not_before=now, not_after=later).problem() is None
    assert "later" in str(Access(not_before=later, not_after=now).problem())
    assert "UTC" in str(Access(not_before=datetime(2026, 11, 24)).problem())
    assert "UTC" in str(Access(not_after=now.astimezone(timezone(timedelta(hours=1)))).problem())
    assert "at most 8" in str(Access(windows=(Window.parse("mon 07:00-08:00"),) * 9).problem())


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "Europe", "Europe/Berlin\0", "x" * 49])
def test_a_time_zone_that_is_none_is_named(name: str):
    assert "time zone" in str(Access(time_zone=name).problem())
    assert Access(time_zone=BERLIN).problem() is None


def test_a_zone_is_found_without_the_system_s_database():
    zone.cache_clear()
    ZoneInfo.clear_cache()
    reset_tzpath(to=())
    try:
        assert zone(BERLIN).utcoffset(datetime(2026, 7, 1)) == timedelta(hours=2)
    finally:
        reset_tzpath()
