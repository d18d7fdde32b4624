"""Time as a value that is passed in, so that logic never reads a clock and tests own it."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from edge.core.errors import FileError
from edge.core.files import StateFile

log = logging.getLogger(__name__)


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


SLACK = timedelta(minutes=5)
"""How far a clock may be behind without a word: corrections by NTP after a start without a network."""

SAVE_EVERY = timedelta(hours=1)
"""How often the time is written down while it goes on: the card of a small board wears out."""

PROVEN_EVERY = timedelta(minutes=1)
"""The same of a time that somebody trusted has confirmed."""

MAX_BYTES = 4096


class KnownTime(BaseModel):
    """What is remembered, in UTC: the latest time that was confirmed, and the latest that was shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    proven_at: AwareDatetime | None = None
    seen_at: AwareDatetime | None = None
    seen_synced: bool = False
    """Whether a time source set the clock when it showed `seen_at`."""


class FloorClock:
    """A clock that is never believed to be earlier than what was known already, over restarts too.

    That is the making of this software (`built_at`), the latest time that something signed confirmed
    (`prove`), and the latest that the clock showed while the daemon ran (`tick`); on from there by the
    monotonic clock. Below it by more than `SLACK` the clock is *behind*:

    - `now` is then the earliest that it can be. What had expired by then has expired, and nothing else has.
    - `known` says whether that is also the time of the day: not after a start with a clock that is behind,
      until it has been right once.
    - What an unsynchronised clock showed is given up for a synchronised one that is behind it: that clock had
      run ahead. What was confirmed is never given up.

    `synced` says whether a time source sets the clock now. Any thread may read it; one calls `tick`.
    """

    def __init__(self, clock: Clock, path: Path, *, built_at: datetime, synced: Callable[[], bool]) -> None:
        self._clock = clock
        self._synced = synced
        mend = "remove it once the clock is right"
        self._file = StateFile(path, KnownTime, MAX_BYTES, FileError, mend)
        found = self._read()
        self._saved = found
        self._proven = max(built_at, found.proven_at or built_at)
        self._seen, self._seen_synced = found.seen_at, found.seen_synced
        self._begin_at(max(self._proven, self._seen or self._proven))
        self._known = False
        self._told = False

    def now(self) -> datetime:
        """Return the time in UTC, or the earliest that it can be where the clock is behind."""
        shown, least = self._clock.now(), self.least()
        return least if shown < least - SLACK else shown

    def monotonic(self) -> float:
        """Return seconds that only ever rise."""
        return self._clock.monotonic()

    def least(self) -> datetime:
        """Return the earliest that it can be now."""
        at, since_s = self._base
        return at + timedelta(seconds=max(0.0, self._clock.monotonic() - since_s))

    @property
    def behind(self) -> bool:
        """Whether the clock shows a time that has passed already."""
        return self._clock.now() < self.least() - SLACK

    @property
    def known(self) -> bool:
        """Whether `now` is the time of the day, and not only the earliest that it can be."""
        return self._known or not self.behind

    def prove(self, at: datetime | None) -> None:
        """Take note that somebody trusted confirmed a time; None: nobody did."""
        if at is None or at <= self._proven:
            return
        self._proven = at
        self._begin_at(max(at, self.least()))
        if self._saved.proven_at is None or at - self._saved.proven_at >= PROVEN_EVERY:
            self.save()

    def tick(self) -> None:
        """Take note of what the clock shows; tell once when it is behind, and when it is not any more."""
        shown = self._clock.now()
        if self.behind and not self._seen_synced and shown >= self._proven - SLACK and self._synced():
            log.warning("the clock had run ahead while nothing set it; the time of now is taken for right")
            self._seen = None
            self._begin_at(max(self._proven, shown))
            self.save()
        if self.behind:
            if not self._told:
                log.error(
                    "the clock says %s UTC, but it was %s before; set the clock, or remove %s if it had run "
                    "ahead",
                    f"{shown:%Y-%m-%d %H:%M}",
                    f"{self.least():%Y-%m-%d %H:%M}",
                    self._file.path,
                )
            self._told = True
            return
        if self._told:
            log.info("the clock is right again")
        self._told, self._known, self._seen_synced = False, True, self._synced()
        self._begin_at(max(shown, self.least()))
        if self._saved.seen_at is None or shown - self._saved.seen_at >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write down what is known; where that fails the last that was written stays, which is told."""
        if not self.behind:
            self._seen, self._seen_synced = self._clock.now(), self._synced()
        known = KnownTime(proven_at=self._proven, seen_at=self._seen, seen_synced=self._seen_synced)
        try:
            self._file.write(known)
            self._saved = known
        except FileError as error:
            log.warning("the time is not remembered: %s", error)
            self._saved = known.model_copy(update={"seen_at": known.seen_at or self._proven})

    def _begin_at(self, at: datetime) -> None:
        self._base = at, self._clock.monotonic()

    def _read(self) -> KnownTime:
        try:
            return self._file.read() or KnownTime()
        except FileError as error:
            log.error("it is not known what time it was before: %s", error)
            return KnownTime()
