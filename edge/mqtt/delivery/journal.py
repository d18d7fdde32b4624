"""Journal: which waiting row is sent next, and what the broker's answer means for it. Sends nothing.

Rows leave in the order of their seq, some at a time. A row stays in the outbox until the broker has taken
it over for somebody and has lived on for a moment: one that dies takes with it what it has not passed on,
so what it accepted just before is sent again. Where `consumer` is set, a row stays until a consumer has named
it. A topic that the broker refuses for now is paused and probed with one row now and then, so that it neither
spins nor blocks the topics beside it.
"""

import logging
import random
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

from edge.core.metrics import Metrics
from edge.core.pacing import Backoff, Uniform
from edge.mqtt.delivery.outbox import Pending, Row
from edge.mqtt.delivery.outbox_thread import OutboxThread
from edge.mqtt.delivery.receipts import Receipts

log = logging.getLogger(__name__)

PAGE = 64
"""Rows asked for at once: enough to keep the window full while the next page is read."""

UNREAD_PAUSE_S = 1.0
"""Pause before a page that the disk did not give is asked for again."""

WINDOW = 16
"""Rows in flight at once, at most; fewer where the broker takes fewer."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Bounds of the pause before a paused topic is probed: the first, and the longest."""

SETTLE_S = 1.0
"""How long the connection must outlast an acknowledgement before the row is forgotten.

Of 300 rows sent while mosquitto was killed five times, it had acknowledged up to 12 within the last 3 ms
that no subscriber ever saw.
"""

NO_SUBSCRIBER = 0x10
"""PUBACK reason "No matching subscribers": the broker has thrown the message away.

Source: MQTT 5.0, section 3.4.2.1, for this and the following.
"""

REFUSALS = {
    0x80: "the broker refuses it without a reason",
    0x83: "the broker refuses it for a reason of its own",
    0x87: "the broker does not authorise it; allow this device to write to it (deploy/mosquitto/acl)",
    0x97: "a quota of the broker is exceeded; raise it",
}
HOPELESS = {
    0x90: "the broker refuses the topic's name",
    0x95: "the packet is too large for the broker",
    0x99: "the broker refuses the payload's format",
}
"""Reasons that belong to one row and will not pass: the row is undeliverable."""

UNDELIVERABLE = ("outbox.undeliverable", "outbox.quarantined")
PAUSED = ("journal.paused", "journal.held")
"""Counters of `health`: the second of each is its old name, which goes with the next release."""


class _Scan:
    """One reading of the waiting rows in the order of their seq, page by page.

    `token` tells the answers to it from those to others.
    """

    def __init__(self, outbox: OutboxThread, token: int) -> None:
        self._outbox = outbox
        self._token = token
        self._cursor = 0
        self._requested = False
        self.page: deque[Row] = deque()
        """Rows that were read and are not looked at yet."""
        self.more = True
        """There may be rows behind the last page."""
        self._unread = False
        self.due_s: float | None = None
        """When a page that could not be read is asked for again, monotonic seconds."""

    def take(self, pending: Pending) -> None:
        """Take the answer to a request; one that another scan made is ignored.

        What could not be read is left for another request from the same place: nothing is passed over.
        """
        if pending.token != self._token:
            return
        self._requested = False
        self.page.extend(pending.rows)
        self._unread, self.due_s = not pending.read, None
        if pending.rows and pending.read:
            self._cursor = pending.rows[-1].seq
            self.more = self.more or len(pending.rows) == PAGE

    def tick(self, now_s: float) -> None:
        """Let time pass: what could not be read is asked for again."""
        if self._unread and self.due_s is None:
            self.due_s = now_s + UNREAD_PAUSE_S
        elif self.due_s is not None and self.due_s <= now_s:
            self.more, self.due_s = True, None

    def ask(self, without: tuple[str, ...]) -> None:
        """Ask for the next page, without rows on these topics, unless there is none or it was asked for."""
        if self.more and not self._requested:
            self.more, self._requested = False, True
            self._outbox.request(self._token, PAGE, after=self._cursor, without=without)

    @property
    def quiet(self) -> bool:
        """Whether every row was looked at."""
        return not (self.page or self._requested or self.more or self._unread)


class _Stage(Enum):
    """A paused topic waits, then may be probed, then its probe is in flight."""

    WAITING = auto()
    DUE = auto()
    PROBING = auto()


@dataclass(slots=True)
class _Pause:
    """A topic that is paused since `since_s`; WAITING ends at `until_s`. `refused`: it has subscribers."""

    backoff: Backoff
    since_s: float
    refused: bool
    until_s: float = 0.0
    stage: _Stage = _Stage.WAITING


class Journal:
    """The rows of `outbox` on their way. Used by one thread; `now_s` is monotonic seconds throughout.

    `consumer`: a row is forgotten when a consumer has named it, not when the broker has taken it over.
    `unclaimed_s`: to which age in seconds rows are kept while nobody subscribes to them; None: for ever.
    """

    def __init__(
        self,
        outbox: OutboxThread,
        metrics: Metrics,
        uniform: Uniform = random.uniform,
        *,
        consumer: bool = False,
        unclaimed_s: float | None = None,
    ) -> None:
        self._outbox = outbox
        self._metrics = metrics
        self._uniform = uniform
        self._window = 0
        self._in_flight: dict[int, Row] = {}
        self._settling: dict[int, float] = {}
        self._paused: dict[str, _Pause] = {}
        self._unclaimed_s = unclaimed_s
        self._unclaimed: set[str] = set()
        self._consumer = consumer
        self._receipts = Receipts()
        self._token = 0
        self._scan = _Scan(outbox, self._token)
        self._sweep: _Scan | None = None

    def begin(self, receive_maximum: int) -> None:
        """Start from the oldest row: there is a connection."""
        self.end()
        self._window = min(WINDOW, receive_maximum)
        self._rescan()

    def end(self) -> None:
        """Stop: the connection is gone; what is in flight or was only just accepted will be sent again."""
        self._window = 0
        self._in_flight.clear()
        self._settling.clear()
        self._paused.clear()
        self._receipts.end()
        self._sweep = None

    def tick(self, now_s: float) -> None:
        """Let time pass: forget rows that were accepted long enough ago, and let paused topics be probed.

        Rows that a consumer should have named by now are sent again.
        """
        self._end_waits(now_s)
        for scan in self._scans():
            scan.tick(now_s)
        sweeping = self._sweep is not None and not self._sweep.quiet
        if self._window and self._receipts.sweep(now_s, sweeping=sweeping):
            log.warning("no consumer has acknowledged some events; they are sent again")
            self._metrics.count("journal.sweeps")
            self._sweep = self._new_scan()
        self.settle(now_s)

    def settle(self, now_s: float) -> None:
        """Forget rows that the broker has accepted long enough ago."""
        settled = []
        for seq, due_s in self._settling.items():
            if due_s > now_s:
                break
            settled.append(seq)
        if settled:
            self._outbox.done(*settled)
            for seq in settled:
                del self._settling[seq]

    def stored(self) -> None:
        """Note that there are new rows."""
        self._scan.more = True

    def take(self, pending: Pending) -> None:
        """Take the answer to a request; one that was asked before a new start is ignored."""
        for scan in self._scans():
            scan.take(pending)

    def acknowledged(self, event_ids: tuple[str, ...], now_s: float) -> None:
        """Forget the rows of these events: a consumer has them.

        Ids that were not on their way may be of rows that went long ago, or of none: these are looked up, but
        not more than some at a time.
        """
        known = self._receipts.named(event_ids, now_s)
        if known:
            self._outbox.acknowledge(known)
        unsure = tuple(sorted(set(event_ids).difference(known)))
        if unsure and not self._outbox.look_up(unsure):
            self._metrics.count("ack.dropped")

    def next(self, now_s: float) -> Row | None:
        """Return the row to send now, or None while the window is full or nothing is at hand.

        Rows that were never sent go before those that go again.
        """
        self._end_waits(now_s)
        if len(self._in_flight) >= self._window or self._receipts.crowded:
            return None
        row = self._next_of(self._scan, again=False)
        if row is None and self._sweep is not None:
            row = self._next_of(self._sweep, again=True)
        return row

    def _next_of(self, scan: _Scan, *, again: bool) -> Row | None:
        flying = {row.seq for row in self._in_flight.values()}
        while scan.page:
            row = scan.page.popleft()
            pause = self._paused.get(row.topic)
            sent = row.seq in flying or row.seq in self._settling or self._receipts.waits(row)
            if sent or self._receipts.passed(row) != again:
                continue
            if pause is not None and pause.stage != _Stage.DUE:
                continue
            if pause is not None:
                pause.stage = _Stage.PROBING
            return row
        scan.ask(tuple(topic for topic, pause in self._paused.items() if pause.stage != _Stage.DUE))
        return None

    def again(self, row: Row) -> bool:
        """Return whether `row` is sent to a consumer that did not name it the first time."""
        return self._consumer and self._receipts.sent_before(row)

    def sent(self, mid: int, row: Row) -> None:
        """Note that `row` is in flight as message `mid`."""
        self._in_flight[mid] = row
        self._receipts.sent(row)

    def answered(self, mid: int, reason: int, now_s: float) -> bool:
        """Take the broker's answer to message `mid`; returns False when it is none of ours."""
        row = self._in_flight.pop(mid, None)
        if row is None:
            return False
        if reason == NO_SUBSCRIBER:
            self._unclaimed.add(row.topic)
            if self._unclaimed_s is not None:
                self._outbox.forget_unclaimed(row.topic, self._unclaimed_s)
        else:
            self._unclaimed.discard(row.topic)
        if reason == 0:
            if self._consumer:
                self._receipts.accepted(row, now_s)
            else:
                self._settling[row.seq] = now_s + SETTLE_S
            if self._paused.pop(row.topic, None) is not None:
                log.info("journal accepted again", extra={"topic": row.topic})
                self._rescan()
        elif reason in HOPELESS:
            self.undeliverable(row, HOPELESS[reason])
        else:
            self._receipts.refused(row)
            self._pause(row.topic, reason, now_s)
        return True

    def undeliverable(self, row: Row, why: str) -> None:
        """Keep `row`, which can never be delivered, out of the way of the others."""
        for name in UNDELIVERABLE:
            self._metrics.count(name)
        log.error("event undeliverable: %s", why, extra={"event_id": row.event_id, "topic": row.topic})
        self._outbox.undeliverable(row.seq, why)
        pause = self._paused.get(row.topic)
        if pause is not None and pause.stage == _Stage.PROBING:
            pause.stage = _Stage.DUE
            self._rescan()

    @property
    def in_flight(self) -> int:
        """How many rows the broker has not answered."""
        return len(self._in_flight)

    @property
    def idle(self) -> bool:
        """Whether everything that may be sent now was sent and answered."""
        return self._window == 0 or (not self._in_flight and self._scan.quiet)

    @property
    def due_s(self) -> float | None:
        """When the next row is settled or goes again, or the next paused topic may be probed, or None."""
        due_s = [pause.until_s for pause in self._paused.values() if pause.stage == _Stage.WAITING]
        due_s.extend(islice(self._settling.values(), 1))
        due_s.extend(scan.due_s for scan in self._scans() if scan.due_s is not None)
        if self._window and self._receipts.due_s is not None:
            due_s.append(self._receipts.due_s)
        return min(due_s, default=None)

    def refused_s(self, now_s: float) -> float:
        """Return for how long the broker has been refusing a topic, other than for want of a subscriber."""
        return max((now_s - pause.since_s for pause in self._paused.values() if pause.refused), default=0.0)

    @property
    def unclaimed(self) -> bool:
        """Whether somebody was missing for a topic when it was tried last: nobody keeps the journal.

        That is known also while there is no connection.
        """
        return bool(self._unclaimed)

    def _pause(self, topic: str, reason: int, now_s: float) -> None:
        """Pause `topic`; answers to what was in flight with the first refusal change nothing."""
        pause = self._paused.get(topic)
        if pause is not None and pause.stage == _Stage.WAITING:
            return
        if pause is None:
            backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S, self._uniform)
            pause = self._paused[topic] = _Pause(backoff, now_s, reason != NO_SUBSCRIBER)
            for name in PAUSED:
                self._metrics.count(name)
            if reason == NO_SUBSCRIBER:
                kept = "" if self._unclaimed_s is None else f" for {self._unclaimed_s / 3600:g} h"
                level = logging.WARNING if self._unclaimed_s is None else logging.INFO
                log.log(
                    level,
                    "nobody subscribes to the journal; its events are kept%s",
                    kept,
                    extra={"topic": topic},
                )
            else:
                why = REFUSALS.get(reason, f"reason code {reason:#04x}")
                log.error("journal refused: %s; its events are kept", why, extra={"topic": topic})
        pause.stage, pause.until_s = _Stage.WAITING, now_s + pause.backoff.next_s()

    def _end_waits(self, now_s: float) -> None:
        due = [
            pause
            for pause in self._paused.values()
            if pause.stage == _Stage.WAITING and pause.until_s <= now_s
        ]
        for pause in due:
            pause.stage = _Stage.DUE
        if due:
            self._rescan()

    def _rescan(self) -> None:
        """Read the outbox from its oldest row again; rows in flight are passed over."""
        self._scan = self._new_scan()

    def _scans(self) -> list[_Scan]:
        return [self._scan] if self._sweep is None else [self._scan, self._sweep]

    def _new_scan(self) -> _Scan:
        self._token += 1
        return _Scan(self._outbox, self._token)
