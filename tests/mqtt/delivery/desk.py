"""A journal over an outbox, and a broker played by the test."""

from collections.abc import Callable
from pathlib import Path

from edge.core.metrics import Metrics
from edge.mqtt.delivery.journal import Journal
from edge.mqtt.delivery.outbox import Changes, Outbox, Pending
from tests.support.door import make_row, now

NO_SUBSCRIBER, NOT_AUTHORIZED, TOO_LARGE = 0x10, 0x87, 0x95


class Desk:
    """A journal over an outbox, and a broker played by the test."""

    def __init__(
        self,
        directory: Path,
        rows: int,
        topic: Callable[[int], str] = lambda seq: "front",
        *,
        consumer: bool = False,
    ) -> None:
        self.outbox = Outbox.open(directory / "outbox.sqlite", max_rows=100_000, now=now)
        self.outbox.write(Changes(puts={seq: make_row(seq, topic=topic(seq)) for seq in range(1, rows + 1)}))
        self.requests: list[tuple[int, int, int, tuple[str, ...]]] = []
        self.metrics = Metrics()
        self.journal = Journal(
            self,  # type: ignore[arg-type]
            self.metrics,
            uniform=lambda low, high: high,
            consumer=consumer,
        )
        self.mids = 0
        self.flying: dict[int, int] = {}

    def request(self, token: int, limit: int, *, after: int = 0, without: tuple[str, ...] = ()) -> None:
        self.requests.append((token, limit, after, without))

    def done(self, *seqs: int) -> None:
        self.outbox.write(Changes(done=set(seqs)))

    def undeliverable(self, seq: int, why: str) -> None:
        self.outbox.write(Changes(undeliverable={seq: why}))

    def serve(self) -> None:
        while self.requests:
            token, limit, after, without = self.requests.pop(0)
            rows = self.outbox.pending(limit, after=after, without=without)
            self.journal.take(Pending(token, tuple(rows)))

    def send(self, now_s: float = 0.0) -> list[int]:
        """Send everything that may be sent; returns the seqs."""
        sent: list[int] = []
        while True:
            row = self.journal.next(now_s)
            if row is not None:
                self.mids += 1
                self.journal.sent(self.mids, row)
                self.flying[row.seq] = self.mids
                sent.append(row.seq)
            elif self.requests:
                self.serve()
            else:
                return sent

    def answer(self, seq: int, reason: int = 0, now_s: float = 0.0) -> None:
        assert self.journal.answered(self.flying.pop(seq), reason, now_s)

    def depth(self, now_s: float) -> int:
        self.journal.tick(now_s)
        return self.outbox.counts().depth
