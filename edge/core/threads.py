"""A thread that does its work in turns, survives a turn that fails, and shows that it makes progress."""

import logging
import threading
from abc import ABC, abstractmethod

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
