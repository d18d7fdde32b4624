"""What the courier is asked to carry: the items of its queue that come from this process. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from edge.core.types import FaceEvent


@dataclass(frozen=True, slots=True)
class Decided:
    """An event that was decided at `decided_s`, monotonic."""

    event: FaceEvent
    decided_s: float


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """Whether a camera delivers, and why."""

    camera: str
    online: bool
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Documents:
    """Retained documents by topic; an empty one takes back what was shown."""

    documents: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class CameraGone:
    """A camera was taken out of the settings."""

    camera: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A consumer has these events of the journal."""

    event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a command, for whoever asked."""

    topic: str
    payload: bytes
    correlation: bytes | None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for now or never."""

    topic: str
    jpeg: bytes


class Again:
    """Everything retained is to be sent once more."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Take leave: deliver until `drain_until_s`, be gone by `deadline_s`."""

    drain_until_s: float
    deadline_s: float
