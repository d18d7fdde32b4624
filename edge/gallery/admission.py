"""Which subjects of a gallery may pass this door now, and why a known one may not.

Compares no faces. A mask over the subjects, not another gallery: a subject whose hour comes needs no rebuild.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import numpy as np

from edge.core.access import Access, SubjectState, Window, zone
from edge.core.types import Reason, Subject
from edge.gallery.gallery import Gallery
from edge.gallery.search import Mask, Scope


class Admission:
    """Who may pass a door that serves `groups` (none: everybody in the gallery), by its `time_zone`.

    A subject may pass where it shares a group with the door. `open_when_stale`: also by a gallery that
    is past its `not_after`. `time_known` says whether the hour is known; while it is not, no window is open.
    """

    def __init__(
        self,
        gallery: Gallery,
        groups: Iterable[str] = (),
        time_zone: str = "UTC",
        *,
        open_when_stale: bool = False,
        time_known: Callable[[], bool] = lambda: True,
    ) -> None:
        self._time_known = time_known
        self._open_when_stale = open_when_stale
        self._not_after = gallery.not_after
        self._groups = frozenset(groups)
        self._time_zone = time_zone
        self._scope = Scope(gallery)
        subjects = gallery.subjects
        self._here = np.array([self._is_here(subject) for subject in subjects], bool)
        self._from = _seconds((subject.access.not_before for subject in subjects), -np.inf)
        self._until = _seconds((subject.access.not_after for subject in subjects), np.inf)
        schedules = [(subject.access.windows, subject.access.time_zone) for subject in subjects]
        self._schedules = tuple(dict.fromkeys(schedules))
        numbers = {schedule: number for number, schedule in enumerate(self._schedules)}
        self._schedule = np.array([numbers[schedule] for schedule in schedules], np.intp)
        self._always = bool(
            self._here.all()
            and np.isneginf(self._from).all()
            and np.isposinf(self._until).all()
            and not any(windows for windows, _ in self._schedules)
        )

    def of(self, gallery: Gallery) -> "Admission":
        """Return who may pass the same door with another gallery."""
        return Admission(
            gallery,
            self._groups,
            self._time_zone,
            open_when_stale=self._open_when_stale,
            time_known=self._time_known,
        )

    def stale(self, at: datetime) -> bool:
        """Return whether nobody may pass at a moment (aware), because the gallery is too old."""
        return self._not_after is not None and at >= self._not_after and not self._open_when_stale

    def allowed(self, at: datetime) -> Mask | None:
        """Return who may pass at a moment (aware), bool (size,); None: everybody."""
        if self._always:
            return None
        now_s = at.timestamp()
        is_open = np.array([self._open(windows, name, at) for windows, name in self._schedules], bool)
        found: Mask = self._here & (self._from <= now_s) & (now_s < self._until) & is_open[self._schedule]
        return None if found.all() else found

    def scope(self, at: datetime) -> tuple[int, float]:
        """Return how many may pass at a moment (aware), and the comparisons that the threshold follows."""
        return self._scope.measure(self.allowed(at))

    def objection(self, subject: Subject, at: datetime) -> Reason | None:
        """Return why a subject may not pass at a moment, None if it may."""
        access = subject.access
        if not self._is_here(subject):
            return Reason.NOT_ALLOWED_HERE
        if not _valid(access, at):
            return Reason.EXPIRED
        if not self._open(access.windows, access.time_zone, at):
            return Reason.OUTSIDE_WINDOW
        return None

    def _is_here(self, subject: Subject) -> bool:
        if subject.access.state != SubjectState.ACTIVE:
            return False
        return not self._groups or not self._groups.isdisjoint(subject.groups)

    def _open(self, windows: tuple[Window, ...], time_zone: str, at: datetime) -> bool:
        if not windows:
            return True
        if not self._time_known():
            return False
        local = at.astimezone(zone(time_zone or self._time_zone))
        return any(window.open_at(local.weekday(), local.hour * 60 + local.minute) for window in windows)


def _valid(access: Access, at: datetime) -> bool:
    return (access.not_before is None or access.not_before <= at) and (
        access.not_after is None or at < access.not_after
    )


def _seconds(moments: Iterable[datetime | None], missing: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([missing if at is None else at.timestamp() for at in moments], np.float64)
