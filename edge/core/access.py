"""When somebody enrolled may pass: state, validity, weekly windows. Knows no gallery and no door's groups.

Windows are local time of a place: "mon-fri 07:00-18:00" opens at seven on both sides of a clock change.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
MAX_WINDOWS = 8
MAX_ZONE_CHARS = 48
"""The longest name in the time zone database has 32."""

WINDOW = re.compile(r"([a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*) (\d\d):(\d\d)-(\d\d):(\d\d)")


class SubjectState(StrEnum):
    """Whether a subject may pass at all. Who is revoked for good is removed; a state can be taken back."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week: on `days` (0 = Monday) from minute `start_min` until before `end_min` of the day.

    An end that is not after the start is on the next day.
    """

    days: tuple[int, ...]
    start_min: int
    end_min: int

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Read a window as people write it: `mon-fri 07:00-18:00`, `sat,sun 22:00-06:00`.

        Raises:
            ValueError: It is none; says how one is written.
        """
        found = WINDOW.fullmatch(text)
        if found is None:
            raise ValueError("a window is written like mon-fri 07:00-18:00 or sat,sun 22:00-06:00")
        hours = [int(part) for part in found.groups()[1:]]
        start_min, end_min = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if max(hours[1], hours[3]) > 59 or start_min >= DAY_MIN or end_min > DAY_MIN:
            raise ValueError("a window's times lie between 00:00 and 24:00")
        return cls(tuple(sorted(set(_days(found[1])))), start_min, end_min)

    def __str__(self) -> str:
        """Return the window as `parse` reads it."""
        days = ",".join(DAYS[day] for day in self.days)
        start, end = (f"{at // 60:02}:{at % 60:02}" for at in (self.start_min, self.end_min))
        return f"{days} {start}-{end}"

    def open_at(self, weekday: int, minute: int) -> bool:
        """Return whether the window is open at a minute of a day of the week, both local."""
        if self.start_min < self.end_min:
            return weekday in self.days and self.start_min <= minute < self.end_min
        yesterday = (weekday - 1) % 7
        return (weekday in self.days and minute >= self.start_min) or (
            yesterday in self.days and minute < self.end_min
        )


@dataclass(frozen=True, slots=True)
class Access:
    """When a subject may pass; by default always. Moments are UTC; `not_after` is the first one too late.

    `windows` none: at any time of the week; `time_zone` is theirs, empty: that of the door.
    """

    state: SubjectState = SubjectState.ACTIVE
    not_before: datetime | None = None
    not_after: datetime | None = None
    windows: tuple[Window, ...] = ()
    time_zone: str = ""

    def problem(self) -> str | None:
        """Say what is wrong with it, None if nothing is."""
        for moment in (self.not_before, self.not_after):
            if moment is not None and moment.utcoffset() != UTC.utcoffset(None):
                return "not_before and not_after must be in UTC"
        if self.not_before is not None and self.not_after is not None and self.not_before >= self.not_after:
            return "not_after must be later than not_before"
        if len(self.windows) > MAX_WINDOWS:
            return f"at most {MAX_WINDOWS} windows are allowed"
        return zone_problem(self.time_zone) if self.time_zone else None


ALWAYS = Access()


def zone_problem(name: str) -> str | None:
    """Say what is wrong with a time zone's name, None if nothing is."""
    if len(name) > MAX_ZONE_CHARS:
        return "the name of its time zone is too long"
    try:
        zone(name)
    except ValueError as error:
        return str(error)
    return None


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory
        raise ValueError("its time zone is not known here; use for example Europe/Berlin") from None


def _days(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last and last not in DAYS):
            raise ValueError(f"the days of a window are {', '.join(DAYS)}")
        start = DAYS.index(first)
        found += [(start + step) % 7 for step in range((DAYS.index(last or first) - start) % 7 + 1)]
    return found
