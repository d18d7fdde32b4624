"""Apply configuration pushes to a running daemon, watch the door, and go back where it does not work."""

import logging
from collections.abc import Callable
from typing import Any

from edge.clock import Clock
from edge.config import Settings
from edge.configuring import ConfigDesk
from edge.errors import ConfigError, EdgeError
from edge.probation import Probation, Seen

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Pause before what a disk refused is tried again."""


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
        self._before = settings()
        self._goes_back = False
        self._retry_s = -float("inf")
        self._told = ""

    def take(self, layer: str, data: bytes) -> None:
        """Take a push that came in for a layer."""
        settings = self._desk.take(layer, data)
        if settings is not None:
            self._try(settings)
        self.tell()

    def tick(self) -> None:
        """Keep or take back what is tried, when it is time; try again what could not be done."""
        if self._clock.monotonic() < self._retry_s:
            return
        try:
            ended = self._judge()
            if self._goes_back:
                self._apply(self._good())
                self._goes_back, ended = False, True
            if ended:
                self.tell()
                for layer, data in self._desk.resume():
                    self.take(layer, data)
            self._desk.write()
        except (EdgeError, OSError) as error:
            self._retry_s = self._clock.monotonic() + RETRY_S
            if str(error) != self._told:
                log.error("pushed configuration: %s", error)
            self._told = str(error)
        else:
            self._told = ""

    def tell(self) -> None:
        """Show what came of the last push, and what is in force."""
        self._publish(self._desk.told(self._settings()))

    def _judge(self) -> bool:
        """Return whether what is tried was kept; where it has to go, it is forgotten and `_goes_back` is set.

        Raises:
            FileError: It cannot be kept yet; it is watched on.
        """
        if self._probation is None:
            return False
        seen = self._seen()
        if not self._probation.over(self._clock.monotonic(), seen):
            return False
        why = self._probation.objection(seen)
        if why is None:
            self._desk.keep()
        else:
            self._desk.drop(why)
            self._goes_back = True
        self._probation = None
        return why is None

    def _try(self, settings: Settings) -> None:
        seen, before = self._seen(), self._settings()
        try:
            self._apply(settings)
        except (EdgeError, OSError) as error:
            self._desk.drop(str(error), rejected=True)
            return
        self._before, self._goes_back = before, False
        self._probation = Probation(self._clock.monotonic(), settings.push.probation_s, seen)

    def _good(self) -> Settings:
        """Return the settings to go back to: those of before where edge.toml cannot be read any more."""
        try:
            return self._desk.settings()
        except ConfigError as error:
            log.error("edge.toml cannot be read, what was in force before goes on: %s", error)
            return self._before
