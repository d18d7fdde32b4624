"""Unread: how much of what others publish waits to be looked at. A flood is dropped here, not kept."""

import logging
import threading

from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket

log = logging.getLogger(__name__)

MAX_UNREAD_BYTES = 4 * 1024 * 1024
"""A few of the largest commands, or more acknowledgements than a consumer sends in a minute."""

MESSAGE_BYTES = 1024
"""What an empty message takes up in memory, with its topic."""


class Unread:
    """Counted over all connections. Thread-safe. As many lines as `complaints` lets through are logged."""

    def __init__(self, metrics: Metrics, complaints: TokenBucket) -> None:
        self._metrics = metrics
        self._complaints = complaints
        self._lock = threading.Lock()
        self._bytes = 0
        self._dropped = 0

    def add(self, size: int) -> bool:
        """Return whether there is room for a message with a payload of `size` bytes, and take it."""
        with self._lock:
            if self._bytes + size + MESSAGE_BYTES > MAX_UNREAD_BYTES:
                self._dropped += 1
                self._metrics.count("received.dropped")
                return False
            self._bytes += size + MESSAGE_BYTES
            return True

    def remove(self, size: int) -> None:
        """Give the room of a message back."""
        with self._lock:
            self._bytes -= size + MESSAGE_BYTES
            told = self._bytes == 0 and self._dropped and self._complaints.take()
            dropped, self._dropped = (self._dropped, 0) if told else (0, self._dropped)
        if dropped:
            log.warning("%d messages were dropped: more came than can be looked at", dropped)
