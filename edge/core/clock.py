"""Time as a value that is passed in, so that logic never reads a clock and tests own it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `now` for people and logs, `monotonic` (seconds) for intervals."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever rise."""
        ...


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return utc_now()

    def monotonic(self) -> float:
        """Return seconds that only ever rise."""
        return time.monotonic()
