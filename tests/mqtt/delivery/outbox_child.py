"""A process that stores rows as fast as it can and says which are safe, until it is killed."""

import queue
import sys
from pathlib import Path
from typing import Any

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.mqtt.delivery.outbox import Outbox, Stored
from edge.mqtt.delivery.outbox_thread import OutboxThread
from tests.support.door import make_row, now
from tests.support.waits import LIMIT_S


def main(path: Path) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    outbox = OutboxThread(
        Outbox.open(path, max_rows=1_000_000, now=now),
        answers,
        beats=Beats(),
        metrics=Metrics(),
        clock=SystemClock(),
    )
    outbox.start()
    seq = outbox.last_seq
    while True:
        for _ in range(5):
            seq += 1
            outbox.put(make_row(seq, payload=b"x" * 500))
        stored = answers.get(timeout=LIMIT_S)
        assert isinstance(stored, Stored)
        if stored.durable:
            print(*stored.seqs, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
