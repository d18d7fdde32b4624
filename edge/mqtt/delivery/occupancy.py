"""Who is present before a camera, and the retained documents that show it. Sends nothing itself."""

from collections.abc import Callable
from datetime import datetime

from edge.core.types import EventType, FaceEvent, Subject
from edge.mqtt.contract.encode import encode, to_millisecond
from edge.mqtt.contract.messages import CameraInfoPayload, LastPart, PresentPart, StatePayload, SubjectPart
from edge.mqtt.contract.topics import Topics


class Occupancy:
    """The visits of one camera that were decided and have not ended.

    `shown` says what may be published about a subject. A picture of a subject is not its presence.
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
        subject = None if event.event_type == EventType.SPOOF else self._shown(event.subject)
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


class CameraDocuments:
    """The status, info and state of every camera. `retain` gets each document with its topic."""

    def __init__(
        self,
        topics: Topics,
        shown: Callable[[Subject | None], SubjectPart | None],
        retain: Callable[[str, bytes], None],
    ) -> None:
        self._topics = topics
        self._shown = shown
        self._retain = retain
        self._occupancy: dict[str, Occupancy] = {}
        self._gone: set[str] = set()

    def status(self, camera: str, online: bool, why: str, at: datetime) -> None:
        """Show whether a camera delivers, and why, since `at`."""
        self._gone.discard(camera)
        self._known(camera)
        info = CameraInfoPayload(
            camera=camera, status="online" if online else "offline", why=why, at=to_millisecond(at)
        )
        self._retain(self._topics.camera_status(camera), info.status.encode())
        self._retain(self._topics.camera_info(camera), encode(info))

    def event(self, event: FaceEvent) -> None:
        """Show who is present after `event`; of a camera that is gone nothing is shown any more."""
        if event.camera in self._gone:
            return
        state = self._known(event.camera).note(event)
        self._retain(self._topics.state(event.camera), encode(state))

    def forget(self, camera: str) -> None:
        """Take back what was shown of a camera that was taken out."""
        self._gone.add(camera)
        self._occupancy.pop(camera, None)
        for topic in self._topics.camera_documents(camera):
            self._retain(topic, b"")

    def close(self, at: datetime) -> None:
        """Show that nobody is watched any more."""
        for camera, occupancy in self._occupancy.items():
            self._retain(self._topics.state(camera), encode(occupancy.clear()))
            self.status(camera, False, "stopped", at)

    def _known(self, camera: str) -> Occupancy:
        """Return a camera's occupancy; on first sight its state is cleared of what an earlier run left."""
        if camera not in self._occupancy:
            occupancy = self._occupancy[camera] = Occupancy(self._shown)
            self._retain(self._topics.state(camera), encode(occupancy.clear()))
        return self._occupancy[camera]
