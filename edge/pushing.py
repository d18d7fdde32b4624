"""Apply configuration pushes to a running daemon, watch the door, and go back where it does not work."""

import logging
from collections.abc import Callable
from typing import Any

from edge.clock import Clock
from edge.config import Settings
from edge.configuring import ConfigDesk
from edge.errors import EdgeError
from edge.probation import Probation, Seen

log = logging.getLogger(__name__)

TELL_AGAIN_S = 1.0
"""Between two reports about pushes that are not believed, which anybody may send in any number."""


class PushRunner:
    """One push at a time. Used by the main thread.

    `apply` puts settings in force or raises an EdgeError and changes nothing; `settings` returns those in
    force; `seen` says how the door does; `publish` shows what came of a push.
    """

    def __init__(
        self,
        desk: ConfigDesk,
        *,
        apply: Callable[[Settings], None],
        settings: Callable[[], Settings],
        seen: Callable[[], Seen],
        publish: Callable[[dict[str, Any]], None],
        clock: Clock,
    ) -> None:
        self._desk = desk
        self._apply = apply
        self._settings = settings
        self._seen = seen
        self._publish = publish
        self._clock = clock
        self._probation: Probation | None = None
        self._told_s = -float("inf")
        self._told_refused = desk.refused

    def take(self, layer: str, data: bytes) -> None:
        """Take a push that came in for a layer."""
        before = self._desk.report
        settings = self._desk.take(layer, data)
        if settings is not None:
            try:
                self._try(settings)
            except EdgeError as error:  # not even the refusal can be written down: a restart takes it back
                log.error("pushed configuration: %s", error)
        if self._desk.report is before:
            self._tell_refused()
        else:
            self.tell()

    def tick(self) -> None:
        """Keep or take back what is tried, when it is time; show what was refused meanwhile."""
        self._tell_refused()
        if self._probation is None:
            return
        seen = self._seen()
        if not self._probation.over(self._clock.monotonic(), seen):
            return
        why = self._probation.objection(seen)
        self._probation = None
        try:
            if why is None:
                self._desk.keep()
            else:
                self._apply(self._desk.drop(why))
        except EdgeError as error:
            log.error("pushed configuration: %s", error)
        self.tell()
        for layer, data in self._desk.resume():
            self.take(layer, data)

    def tell(self) -> None:
        """Show what came of the last push, and what is in force."""
        self._told_s, self._told_refused = self._clock.monotonic(), self._desk.refused
        self._publish(self._desk.told(self._settings()))

    def _tell_refused(self) -> None:
        if self._desk.refused != self._told_refused:
            if self._clock.monotonic() - self._told_s >= TELL_AGAIN_S:
                self.tell()

    def _try(self, settings: Settings) -> None:
        before = self._seen()
        try:
            self._apply(settings)
        except EdgeError as error:
            self._desk.drop(str(error), rejected=True)
            return
        limit_s = settings.push.probation_s
        self._probation = Probation(self._clock.monotonic(), limit_s, before)
