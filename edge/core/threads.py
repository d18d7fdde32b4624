"""A thread that does its work in turns, survives a turn that fails, and shows that it makes progress.

Guard: does the parts of a loop one by one; one that fails ends neither the loop nor the others.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from edge.core.errors import EdgeError
from edge.core.metrics import Metrics
from edge.core.process import Beats

log = logging.getLogger(__name__)

MAX_FAILURES = 20
"""Failed turns in a row after which the thread stops beating, so that the watchdog restarts the process."""

FAILURE_PAUSE_S = 0.1
"""After a failed turn: what failed once may fail at once again, and must not take the processor with it."""


class WorkerThread(threading.Thread, ABC):
    """Repeats `turn` until it returns False. `name` is also its beat and the prefix of its counters."""

    def __init__(self, name: str, *, beat_limit_s: float, beats: Beats, metrics: Metrics) -> None:
        super().__init__(name=name, daemon=True)
        self._beat_limit_s = beat_limit_s
        self._beats = beats
        self._metrics = metrics
        self._pause = threading.Event()

    @abstractmethod
    def turn(self) -> bool:
        """Do a piece of work; returns whether to go on."""

    def finish(self) -> None:
        """Do what is left after the last turn."""

    def run(self) -> None:
        """Work until done. An error is logged once per row of them and counted."""
        self._beats.register(self.name, self._beat_limit_s)
        failures, going = 0, True
        while going:
            try:
                going = self.turn()
                failures = 0
            except Exception:
                failures += 1
                self._metrics.count(f"{self.name}.failures")
                if failures in (1, MAX_FAILURES):
                    log.exception("%s failed (%d times in a row)", self.name, failures)
                self._pause.wait(FAILURE_PAUSE_S)
            if failures < MAX_FAILURES:
                self._beats.beat(self.name)
        self.finish()
        self._beats.forget(self.name)


BEAT_LIMIT_S = 10.0


class Guard:
    """Used by one thread. Failures are counted as `<name>.failures`.

    With `beats` it beats as `name` before and after every part, until one of them has failed `MAX_FAILURES`
    times in a row in a way that nobody thought of: then the watchdog restarts the process, unless that part
    works again. Without it nothing that fails restarts anything: what others ask for must not.
    """

    def __init__(self, name: str, metrics: Metrics, beats: Beats | None = None) -> None:
        self._name = name
        self._metrics = metrics
        self._beats = beats
        self._told: dict[str, str] = {}
        self._unforeseen: dict[str, int] = {}
        if beats is not None:
            beats.register(name, BEAT_LIMIT_S)

    def attempt(self, part: str, action: Callable[[], object]) -> bool:
        """Do `action`; returns whether it was done. What fails is told once until that part works again.

        An error that nobody thought of is told with where it came from.
        """
        self._beat()  # a part may ask who is late
        done = self._do(part, action)
        self._beat()
        return done

    def _beat(self) -> None:
        if self._beats is not None and max(self._unforeseen.values(), default=0) < MAX_FAILURES:
            self._beats.beat(self._name)

    def _do(self, part: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except Exception as error:
            self._metrics.count(f"{self._name}.failures")
            foreseen = isinstance(error, EdgeError | OSError)
            row = self._unforeseen[part] = 0 if foreseen else self._unforeseen.get(part, 0) + 1
            if self._told.get(part) != str(error) or row == MAX_FAILURES:
                self._told[part] = str(error)
                often = f" ({row} times in a row)" if row > 1 else ""
                log.error("%s: %s%s", part, error, often, exc_info=None if foreseen else error)
            return False
        self._told.pop(part, None)
        self._unforeseen.pop(part, None)
        return True
