"""The clock of the tests: time is what the test says."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
"""The UTC time at which a clock that stands still begins."""

EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
"""What a wall clock shows at least, however far it is set back."""


@dataclass
class SteppedClock:
    """Stands still until the test sets `now_s` (of both clocks) or `shift` (of the wall clock alone)."""

    now_s: float = 0.0
    shift: timedelta = timedelta(0)
    start: datetime | None = START

    @classmethod
    def running(cls, shift: timedelta = timedelta(0)) -> Self:
        """A clock that goes on with this machine, for tests of what reads the machine's clock too (TUF)."""
        return cls(shift=shift, start=None)

    def now(self) -> datetime:
        start = datetime.now(UTC) if self.start is None else self.start
        return max(start + timedelta(seconds=self.now_s) + self.shift, EARLIEST)

    def monotonic(self) -> float:
        return self.now_s + (time.monotonic() if self.start is None else 0.0)
