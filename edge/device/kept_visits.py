"""StrangerKeeper: keeps the visits that the pipelines hand over for a while, off the inference thread.

Those of strangers, to enrol them, and matches, to deny them.
"""

import logging
import queue
from datetime import timedelta

from edge.core.clock import Clock
from edge.core.errors import EdgeError
from edge.core.metrics import Metrics
from edge.gallery.store.kept_visits import KeptVisit, VisitStore

log = logging.getLogger(__name__)

MAX_WAITING = 64
EXPIRE_EVERY = timedelta(minutes=10)


class StrangerKeeper:
    """`hand_over` is called by the inference thread and never waits; the rest by the main thread."""

    def __init__(self, store: VisitStore, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._queue: queue.Queue[KeptVisit] = queue.Queue(MAX_WAITING)
        self._expired_s = -float("inf")
        self._told = ""

    def use(self, store: VisitStore) -> None:
        """Keep them there from now on: the device's key may have moved."""
        self._store = store

    def hand_over(self, visit: KeptVisit) -> None:
        """Take a visit that has ended."""
        try:
            self._queue.put_nowait(visit)
        except queue.Full:
            self._metrics.count("strangers.dropped")

    def tick(self) -> None:
        """Write what has come, and delete what is too old. What fails is told once."""
        try:
            while not self._queue.empty():
                self._store.put(self._queue.get_nowait())
                self._metrics.count("strangers.kept")
            now_s = self._clock.monotonic()
            if now_s - self._expired_s >= EXPIRE_EVERY.total_seconds():
                self._expired_s = now_s
                self._store.expire(self._clock.now())
        except EdgeError as error:
            self._metrics.count("strangers.failed")
            if str(error) != self._told:
                self._told = str(error)
                log.error("visits cannot be kept: %s", error)
