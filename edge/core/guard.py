"""Guard: does the parts of a loop one by one; one that fails ends neither the loop nor the others."""

import logging
from collections.abc import Callable

from edge.core.errors import EdgeError
from edge.core.metrics import Metrics
from edge.core.process import Beats
from edge.core.threads import MAX_FAILURES

log = logging.getLogger(__name__)

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
