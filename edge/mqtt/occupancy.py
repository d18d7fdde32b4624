"""Occupancy: who is present before one camera, as the events tell it. Publishes nothing."""

from collections.abc import Callable
from datetime import datetime

from edge.mqtt.codec import to_millisecond
from edge.mqtt.payloads import LastPart, PresentPart, StatePayload, SubjectPart
from edge.types import EventType, FaceEvent, Subject


class Occupancy:
    """The visits of one camera that were decided and have not ended.

    `shown` says what may be published about a subject.
    """

    def __init__(self, shown: Callable[[Subject | None], SubjectPart | None]) -> None:
        self._shown = shown
        self._present: dict[str, PresentPart] = {}
        self._state = StatePayload()

    def note(self, event: FaceEvent) -> StatePayload:
        """Take an event in and return the state after it; a revised decision keeps its visit's beginning."""
        at = to_millisecond(event.captured_at)
        if event.event_type == EventType.LEFT:
            self._present.pop(event.visit, None)
            return self._become(self._state.last, None if self._present else at)
        subject = self._shown(event.subject)
        known = self._present.get(event.visit)
        self._present[event.visit] = PresentPart(
            visit=event.visit,
            event_id=event.event_id,
            event_type=event.event_type,
            subject=subject,
            since=known.since if known else at,
        )
        last = LastPart(
            event_id=event.event_id, event_type=event.event_type, reason=event.reason, subject=subject, at=at
        )
        return self._become(last, None)

    def clear(self) -> StatePayload:
        """Forget everybody and return the state that says so."""
        self._present.clear()
        self._state = StatePayload()
        return self._state

    def _become(self, last: LastPart | None, until: datetime | None) -> StatePayload:
        present = tuple(self._present.values())
        since = min((part.since for part in present), default=None)
        if present and self._state.since is not None:
            since = self._state.since
        self._state = StatePayload(present=present, last=last, since=since, until=until)
        return self._state
