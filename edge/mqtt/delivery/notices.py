"""DropNotice: tells subscribers that decisions were dropped before they could be delivered."""

from collections.abc import Callable
from datetime import datetime

from edge.mqtt.contract.encode import encode, to_millisecond
from edge.mqtt.contract.payloads_ack import OutboxDroppedPayload
from edge.mqtt.contract.topics import Topics

PAUSE_S = 1.0
"""Between two notices: a full outbox drops one decision for every new one."""


class DropNotice:
    """A retained document with the count so far; there is none on a device that never dropped anything."""

    def __init__(self, topics: Topics, retain: Callable[[str, bytes], None]) -> None:
        self._topic = topics.outbox_dropped
        self._retain = retain
        self._told = 0
        self._not_before_s = 0.0

    def look(self, dropped: int, now_s: float, at: datetime) -> None:
        """Tell how many were dropped, if that has changed since it was told last."""
        if dropped != self._told and now_s >= self._not_before_s:
            self._told, self._not_before_s = dropped, now_s + PAUSE_S
            self._retain(self._topic, encode(OutboxDroppedPayload(at=to_millisecond(at), dropped=dropped)))
