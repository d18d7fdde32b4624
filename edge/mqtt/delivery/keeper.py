"""Keeper: an outbox that is mended when its disk fails it. Knows nothing of threads, rows or the network."""

import logging
from collections.abc import Callable
from typing import TypeVar

from edge.core.clock import Clock
from edge.core.errors import OutboxDamagedError, OutboxDiskError, OutboxError, OutboxFullError
from edge.core.metrics import Metrics
from edge.mqtt.delivery.ballast import Ballast
from edge.mqtt.delivery.outbox import Outbox, set_aside
from edge.mqtt.delivery.unopened import Unopened

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Keeper:
    """Owns `outbox` from construction on, opens it where it is not, and closes it. Used by one thread."""

    def __init__(self, outbox: Outbox | Unopened, metrics: Metrics, clock: Clock) -> None:
        self._outbox = outbox if isinstance(outbox, Outbox) else None
        self._metrics = metrics
        self._clock = clock
        self._path, self.max_rows, self._max_bytes = outbox.path, outbox.max_rows, outbox.max_bytes
        self._ballast = Ballast(outbox.path)
        if isinstance(outbox, Outbox) and outbox.set_aside is not None:
            self._tell_damage(f"{outbox.path}: damaged", outbox.set_aside.name)

    def tend(self) -> None:
        """Lay the ballast where it is missing; to be called now and then."""
        self._ballast.tend(self._clock.monotonic())

    def attempt(self, action: Callable[[Outbox], _T]) -> _T:
        """Do `action`; where the disk fails it, mend what can be mended and do it once more.

        A full disk gets the ballast's room. After a disk error the database is closed, opened again and
        checked: what SQLite and the kernel still hold of it may not be what is on the disk. A damaged one is
        moved aside, and a new one begins.

        Raises:
            OutboxError: It failed again, or cannot be mended.
        """
        try:
            return action(self._opened())
        except OutboxFullError:
            if not self._ballast.release(self._clock.monotonic()):
                raise
            return action(self._opened())
        except OutboxDiskError as error:
            self._metrics.count("outbox.reopened")
            log.debug("%s; closing, opening again and checking", error)
            self._shut()
            return action(self._opened())
        except OutboxDamagedError as error:
            self._shut()
            self._tell_damage(str(error), set_aside(self._path, self._clock.now()).name)
            return action(self._opened())

    def close(self) -> None:
        """Close the database.

        Raises:
            OutboxError: It did not close cleanly.
        """
        if self._outbox is not None:
            self._outbox.close()

    def _tell_damage(self, what: str, target: str) -> None:
        self._metrics.count("outbox.set_aside")
        log.error("%s; moved to %s, a new outbox begins", what, target)

    def _opened(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox.open(
                self._path, max_rows=self.max_rows, max_bytes=self._max_bytes, now=self._clock.now
            )
            if self._outbox.set_aside is not None:
                self._tell_damage(f"{self._path}: damaged", self._outbox.set_aside.name)
        return self._outbox

    def _shut(self) -> None:
        """Close the database, whatever state it is in; `_opened` opens it again."""
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            try:
                outbox.close()
            except OutboxError as error:
                log.warning("the outbox did not close cleanly: %s", error)
