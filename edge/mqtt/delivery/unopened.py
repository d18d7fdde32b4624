"""An outbox whose disk refuses at the start: where it will be, and from which number events count."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.mqtt.delivery.rows import Counts


@dataclass(frozen=True, slots=True)
class Unopened:
    """An outbox that a disk refuses at start; events count from beyond `last_seq`, see `beyond`."""

    path: Path
    max_rows: int
    max_bytes: int
    last_seq: int

    def counts(self) -> Counts:
        """Return that nothing is known to be stored."""
        return Counts(0, 0, None, 0, durable=False)


def beyond(now: datetime) -> int:
    """Return a number higher than any that was given out, for a device that cannot read which was the last.

    Microseconds since 1970 never repeat, also over a restart; 2^40 more are above every number that was
    counted, whatever the clock says. Below 2^53, which every JSON reader keeps exact.
    """
    return (1 << 40) + max(0, int(now.timestamp() * 1e6))
