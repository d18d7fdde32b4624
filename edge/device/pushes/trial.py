"""Apply configuration pushes to a running daemon, watch the door, and go back where it does not work.

Whether the door works under a configuration that was just pushed. Pure: told what is seen, and when.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.core.clock import Clock
from edge.core.errors import ConfigError, EdgeError
from edge.device.pushes.desk import ConfigDesk
from edge.device.pushes.push import effective_hash
from edge.device.settings.load import Settings

SETTLE = 0.5
"""Share of the time allowed that has to pass before a configuration is kept: threads are late after 10 s."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How the door does: frames looked at by camera, who delivers, the broker, threads that are late."""

    frames: Mapping[str, int]
    delivering: frozenset[str]
    connected: bool
    late: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Probation:
    """Begins at `began_s`, monotonic, with what was seen until then, and takes up to `limit_s`."""

    began_s: float
    limit_s: float
    before: Seen

    def objection(self, seen: Seen) -> str | None:
        """Return what does not work that worked before, None where nothing does."""
        still = sorted(
            camera
            for camera in self.before.delivering
            if seen.frames.get(camera, 0) <= self.before.frames.get(camera, 0)
        )
        if still:
            return f"no frame of {', '.join(still)} was looked at"
        if self.before.connected and not seen.connected:
            return "the connection to the broker is lost"
        new = sorted(set(seen.late) - set(self.before.late))
        return f"threads are late: {', '.join(new)}" if new else None

    def over(self, now_s: float, seen: Seen) -> bool:
        """Return whether it has ended: well, or because the time is up."""
        spent_s = now_s - self.began_s
        if spent_s >= self.limit_s:
            return True
        return spent_s >= SETTLE * self.limit_s and self.objection(seen) is None


log = logging.getLogger(__name__)

TELL_AGAIN_S = 1.0
"""Between two reports about pushes that are not believed, which anybody may send in any number."""
RETRY_S = 5.0
"""Pause before what a disk refused is tried again."""


class PushRunner:
    """One push at a time. Used by the main thread.

    `apply` puts settings in force or raises an EdgeError and changes nothing; `settings` returns those in
    force; `seen` says how the door does; `self_test` raises an EdgeError where a model computes something
    else than it should; `publish` shows what came of a push.
    """

    def __init__(
        self,
        desk: ConfigDesk,
        *,
        apply: Callable[[Settings], None],
        settings: Callable[[], Settings],
        seen: Callable[[], Seen],
        self_test: Callable[[], None],
        publish: Callable[[dict[str, Any]], None],
        clock: Clock,
    ) -> None:
        self._desk = desk
        self._apply = apply
        self._settings = settings
        self._seen = seen
        self._self_test = self_test
        self._publish = publish
        self._clock = clock
        self._probation: Probation | None = None
        self._before = settings()
        self._goes_back = False
        self._behind = desk.unread is not None or effective_hash(self._good()) != effective_hash(settings())
        self._retry_s = -float("inf")
        self._complaint = ""
        self._told_s = -float("inf")
        self._told_refused = desk.refused

    def take(self, layer: str, data: bytes) -> None:
        """Take a push that came in for a layer."""
        self._catch_up()
        before = self._desk.report
        settings = self._desk.take(layer, data)
        if settings is not None:
            self._try(settings)
        if self._desk.report is before:
            self._tell_refused()
        else:
            self.tell()

    def tick(self) -> None:
        """Keep or take back what is tried, when it is time; try again what could not be done."""
        self._tell_refused()
        if self._clock.monotonic() < self._retry_s:
            return
        if self._behind and not self._look_again():
            self._retry_s = self._clock.monotonic() + RETRY_S
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
            if str(error) != self._complaint:
                log.error("pushed configuration: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = ""

    def tell(self) -> None:
        """Show what came of the last push, and what is in force."""
        self._told_s, self._told_refused = self._clock.monotonic(), self._desk.refused
        self._publish(self._desk.told(self._settings()))

    def _catch_up(self) -> None:
        """Put in force what was pushed before the start where the disk gives it only now."""
        if self._behind and self._look_again():
            self._retry_s = -float("inf")
            self.tick()

    def _look_again(self) -> bool:
        """Return whether what was pushed before is known; it is to be put in force then."""
        if self._desk.read_again():
            self._behind, self._goes_back = False, True
        return not self._behind

    def _tell_refused(self) -> None:
        if self._goes_back:
            return  # what is in force is not what the desk says
        if self._desk.refused != self._told_refused:
            if self._clock.monotonic() - self._told_s >= TELL_AGAIN_S:
                self.tell()

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
        why = self._probation.objection(seen) or self._failure()
        if why is None:
            self._desk.keep()
        else:
            self._desk.drop(why)
            self._goes_back = True
        self._probation = None
        return why is None

    def _failure(self) -> str | None:
        """Return what is wrong with models that a push has changed: a still scene asks them nothing."""
        now, before = self._settings(), self._before
        if (now.recognition, now.liveness) == (before.recognition, before.liveness):
            return None
        try:
            self._self_test()
        except EdgeError as error:
            return str(error)
        return None

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
            log.error("edge.toml and the pushes make no settings, what was in force goes on: %s", error)
            return self._before
