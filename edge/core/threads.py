"""Threads that show progress: the beats a watchdog looks at, work in turns, parts of a loop that may fail."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic

from edge.core.errors import EdgeError, ToldOnce
from edge.core.metrics import Metrics

log = logging.getLogger(__name__)

MAX_FAILURES = 20
"""Failed turns in a row after which a thread stops beating, so that the watchdog restarts the process."""

FAILURE_PAUSE_S = 0.1
"""After a failed turn: what failed once may fail at once again, and must not take the processor with it."""

GUARD_BEAT_LIMIT_S = 10.0
"""How long one part of a guarded loop may take."""


class Beats:
    """When each part that must make progress last did. Thread-safe; `clock` is monotonic seconds.

    A part registers with a limit and beats; the watchdog is fed only while nobody is late.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due_s: dict[str, float] = {}
        self._limit_s: dict[str, float] = {}

    def register(self, name: str, limit_s: float) -> None:
        """Expect a beat of `name` at least every `limit_s` seconds from now on."""
        with self._lock:
            self._limit_s[name] = limit_s
            self._due_s[name] = self._clock() + limit_s

    def beat(self, name: str, extra_s: float = 0.0) -> None:
        """Note progress of `name`; `extra_s` grants a declared pause, such as a back-off, on top."""
        with self._lock:
            if name in self._limit_s:
                self._due_s[name] = self._clock() + self._limit_s[name] + extra_s

    def forget(self, name: str) -> None:
        """Stop expecting beats of `name`."""
        with self._lock:
            self._limit_s.pop(name, None)
            self._due_s.pop(name, None)

    def late(self) -> list[str]:
        """Return the names that are overdue, sorted."""
        now_s = self._clock()
        with self._lock:
            return sorted(name for name, due_s in self._due_s.items() if now_s > due_s)


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


class Guard:
    """Does the parts of one thread's loop; one that fails ends neither the loop nor the others.

    Failures are counted as `<name>.failures`. With `beats` it beats as `name` before and after every part,
    until one of them has failed `MAX_FAILURES` times in a row in a way that nobody thought of: then the
    watchdog restarts the process, unless that part works again. Without it nothing that fails restarts
    anything: what others ask for must not.
    """

    def __init__(self, name: str, metrics: Metrics, beats: Beats | None = None) -> None:
        self._name = name
        self._metrics = metrics
        self._beats = beats
        self._told = ToldOnce()
        self._unforeseen: dict[str, int] = {}
        if beats is not None:
            beats.register(name, GUARD_BEAT_LIMIT_S)

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
            if self._told.is_new(error, part) or row == MAX_FAILURES:
                often = f" ({row} times in a row)" if row > 1 else ""
                log.error("%s: %s%s", part, error, often, exc_info=None if foreseen else error)
            return False
        self._told.forget(part)
        self._unforeseen.pop(part, None)
        return True
