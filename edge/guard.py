"""Guard: does the parts of a loop one by one; one that fails ends neither the loop nor the others."""

import logging
from collections.abc import Callable

from edge.errors import EdgeError
from edge.metrics import Metrics

log = logging.getLogger(__name__)


class Guard:
    """Used by one thread. Failures are counted as `<name>.failures`."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self._counter = f"{name}.failures"
        self._metrics = metrics
        self._told: dict[str, str] = {}

    def attempt(self, part: str, action: Callable[[], object]) -> bool:
        """Do `action`; returns whether it was done. What fails is told once until that part works again.

        An error that nobody thought of is told with where it came from.
        """
        try:
            action()
        except Exception as error:
            self._metrics.count(self._counter)
            if self._told.get(part) != str(error):
                self._told[part] = str(error)
                unforeseen = None if isinstance(error, EdgeError | OSError) else error
                log.error("%s: %s", part, error, exc_info=unforeseen)
            return False
        self._told.pop(part, None)
        return True
