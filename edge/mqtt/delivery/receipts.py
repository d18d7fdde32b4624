"""Receipts: which rows the broker has taken over and no consumer has named yet, and when they go again.

Only for delivery to a consumer. Bounded, whatever the consumer does: a row that nobody names is remembered
for a minute; later it is only known to lie in the outbox, and all such rows are read and sent again in a
sweep. Sends nothing.
"""

from edge.mqtt.delivery.outbox import Row

ACK_WINDOW = 500
"""Rows on their way to the consumer at once: as many as one acknowledgement can name.

A broker keeps only some for a consumer that is slower than the devices: mosquitto 1,000 by default
(max_queued_messages), and throws away what comes on top.
"""

SLOT_S = 10.0
"""How long a row takes up the window: a consumer that is away slows the journal to 50 rows/s, no more."""

ACK_S = 60.0
LONGEST_ACK_S = 900.0
"""A row goes again after the first of these; while rows stay unnamed, sweeps grow apart up to the second."""

MOST_REFUSED = 64
"""Refused rows of a topic that are remembered.

What is in flight together, at most 16, can be refused before its topic is paused. Each one after that is a
probe of the oldest that still waits: those below it have gone.
"""


class Receipts:
    """Used by one thread; `now_s` is monotonic seconds throughout."""

    def __init__(self) -> None:
        self._fresh: dict[str, tuple[int, float]] = {}
        self._stale: dict[str, tuple[int, float]] = {}
        self._seqs: set[int] = set()
        self._passed: dict[str, int] = {}
        self._refused: dict[str, set[int]] = {}
        self._highest = self._earlier = 0
        self._overdue = 0
        self._sweep_s: float | None = None
        self._not_before_s = 0.0
        self._pause_s = ACK_S
        self._heard = self._dead = False

    def end(self) -> None:
        """Forget a connection: on the next one every row goes again."""
        self._fresh.clear()
        self._stale.clear()
        self._seqs.clear()
        self._passed.clear()
        self._refused.clear()
        self._earlier = self._highest
        self._overdue, self._sweep_s = 0, None
        self._not_before_s, self._pause_s = 0.0, ACK_S
        self._heard = self._dead = False

    def sent(self, row: Row) -> None:
        """Note that `row` was sent."""
        self._highest = max(self._highest, row.seq)

    def accepted(self, row: Row, now_s: float) -> None:
        """Note that the broker has taken `row` over."""
        self._fresh[row.event_id] = (row.seq, now_s)
        self._seqs.add(row.seq)
        self._passed[row.topic] = max(row.seq, self._passed.get(row.topic, 0))
        self._refused.get(row.topic, set()).discard(row.seq)

    def refused(self, row: Row) -> None:
        """Note that the broker refused `row`, whether it takes later ones over before or after that."""
        rows = self._refused.setdefault(row.topic, set())
        rows.add(row.seq)
        if len(rows) > MOST_REFUSED:
            rows.remove(min(rows))

    def named(self, event_ids: tuple[str, ...], now_s: float) -> tuple[str, ...]:
        """Note what a consumer has; returns those of the ids that were on their way.

        A consumer that was silent for long gets the rest at once.
        """
        known = []
        for event_id in event_ids:
            if receipt := self._fresh.pop(event_id, None) or self._stale.pop(event_id, None):
                known.append(event_id)
                self._seqs.discard(receipt[0])
        if self._dead:
            self._sweep_s, self._pause_s = now_s, ACK_S
        elif not (self._fresh or self._stale or self._overdue):
            self._pause_s = ACK_S
        self._heard, self._dead = True, False
        return tuple(known)

    def waits(self, row: Row) -> bool:
        """Return whether `row` is with the broker, and its time is not over."""
        return row.seq in self._seqs

    def passed(self, row: Row) -> bool:
        """Return whether the broker has taken `row` over on this connection, however long ago."""
        over = row.seq <= self._passed.get(row.topic, 0)
        return over and row.seq not in self._refused.get(row.topic, ())

    def sent_before(self, row: Row) -> bool:
        """Return whether `row` was, or may have been, sent before: now it is repeated."""
        return row.seq <= self._earlier or self.passed(row)

    @property
    def crowded(self) -> bool:
        """Whether as many rows are on their way as may be."""
        return len(self._fresh) >= ACK_WINDOW

    @property
    def due_s(self) -> float | None:
        """When `sweep` is to be asked next, or None."""
        due_s = [at_s + SLOT_S for _, at_s in list(self._fresh.values())[:1]]
        due_s += [at_s + ACK_S for _, at_s in list(self._stale.values())[:1]]
        if self._sweep_s is not None:
            due_s.append(self._sweep_s)
        return min(due_s, default=None)

    def sweep(self, now_s: float, *, sweeping: bool) -> bool:
        """Let time pass; returns whether to begin a sweep. `sweeping`: the last one has not ended."""
        _move(self._fresh, self._stale, now_s - SLOT_S)
        overdue: dict[str, tuple[int, float]] = {}
        _move(self._stale, overdue, now_s - ACK_S)
        self._seqs.difference_update(seq for seq, _ in overdue.values())
        self._overdue += len(overdue)
        if self._overdue and self._sweep_s is None:
            self._sweep_s = max(now_s, self._not_before_s)
        if self._sweep_s is None or self._sweep_s > now_s:
            return False
        if sweeping:
            self._sweep_s = now_s + SLOT_S
            return False
        self._sweep_s, self._overdue = None, 0
        self._pause_s = min(2 * self._pause_s, LONGEST_ACK_S)
        self._not_before_s = now_s + self._pause_s
        self._dead, self._heard = not self._heard, False
        return True


def _move(source: dict[str, tuple[int, float]], target: dict[str, tuple[int, float]], until_s: float) -> None:
    """Move what came until then; both are in the order of time."""
    for event_id, (seq, at_s) in list(source.items()):
        if at_s > until_s:
            break
        target[event_id] = (seq, at_s)
        del source[event_id]
