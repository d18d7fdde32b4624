"""OutboxThread: the only thread that waits for the disk.

Takes rows and answers when they are safe; whatever is queued meanwhile goes into one transaction. While the
disk refuses, rows wait in memory and are tried again. What rows mean and when they are sent is not its
business.
"""

import logging
import queue
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edge.clock import Clock
from edge.errors import OutboxDamagedError, OutboxError
from edge.health import Beats
from edge.metrics import Metrics
from edge.mqtt.outbox import Outbox, set_aside
from edge.mqtt.rows import Changes, Pending, Row, Stored
from edge.worker import WorkerThread

log = logging.getLogger(__name__)

BEAT = "outbox"
BEAT_LIMIT_S = 60.0
"""A disk that takes longer for one commit than this will not come back without a restart."""

IDLE_S = 1.0
MAX_GROUP = 16
GROUP_S = 0.02
"""New rows are committed at once. Acknowledgements, which nobody waits for, are gathered this long."""

RETRY_S = 1.0
"""Pause between two tries while the disk refuses."""

MAX_UNSAVED = 1000
"""Rows kept in memory while the disk refuses: about a megabyte."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Done:
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Quarantine:
    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class _Request:
    token: int
    limit: int
    after: int
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Work = Row | _Done | _Quarantine | _Request | _Stop


class OutboxThread(WorkerThread):
    """Owns `outbox` from construction on, and closes it. Answers go to `answers`.

    Every method may be called from any thread and returns at once; what they ask for is done in their order.
    """

    def __init__(
        self,
        outbox: Outbox,
        answers: "queue.SimpleQueue[Any]",
        *,
        beats: Beats,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        super().__init__(BEAT, beat_limit_s=BEAT_LIMIT_S, beats=beats, metrics=metrics)
        self._outbox: Outbox | None = outbox
        self._answers = answers
        self._clock = clock
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._path, self._max_rows = outbox.path, outbox.max_rows
        self._changes = Changes()
        self._untold: list[int] = []
        self._failing_since_s: float | None = None
        self.last_seq = outbox.last_seq
        """The highest seq given out before this thread began."""
        if outbox.set_aside is not None:
            self._tell_damage(f"{outbox.path}: damaged", outbox.set_aside)
        self._stored = outbox.counts()
        self.counts = self._stored
        """What waits, on the disk and in memory; not `durable` while the disk refuses."""

    def put(self, row: Row) -> None:
        """Keep `row`. Answered by `Stored`."""
        self._work.put(row)

    def done(self, *seqs: int) -> None:
        """Forget rows that were delivered."""
        self._work.put(_Done(seqs))

    def quarantine(self, seq: int, why: str) -> None:
        """Keep a row that can never be delivered out of the way."""
        self._work.put(_Quarantine(seq, why))

    def request(self, token: int, limit: int, *, after: int = 0, without: tuple[str, ...] = ()) -> None:
        """Ask for waiting rows as `Outbox.pending` gives them. Answered by `Pending` with `token`."""
        self._work.put(_Request(token, limit, after, without))

    def stop(self, timeout_s: float) -> bool:
        """Write what is queued, close the database, and say whether that was done in time."""
        self._work.put(_Stop())
        self.join(timeout_s)
        return not self.is_alive()

    def turn(self) -> bool:
        """Take what is queued, write it, answer; returns whether to go on."""
        requests, going = self._gather()
        self._flush()
        for request in requests:
            self._answers.put(Pending(request.token, tuple(self._pending(request))))
        if not going:
            self._close()
        return going

    def _gather(self) -> tuple[list[_Request], bool]:
        """Move queued work into the changes, waiting only while nobody waits for it."""
        requests: list[_Request] = []
        wait_s = IDLE_S if self._failing_since_s is None else RETRY_S
        until_s: float | None = None
        for _ in range(MAX_GROUP):
            try:
                work = self._work.get(timeout=wait_s) if wait_s > 0 else self._work.get_nowait()
            except queue.Empty:
                break
            match work:
                case Row():
                    self._changes.puts[work.seq] = work
                    self._changes.last_seq = max(self._changes.last_seq, work.seq)
                    self._untold.append(work.seq)
                case _Done():
                    for seq in work.seqs:
                        if self._changes.puts.pop(seq, None) is None:
                            self._changes.done.add(seq)
                case _Quarantine():
                    self._changes.quarantined[work.seq] = work.why
                case _Request():
                    requests.append(work)
                case _Stop():
                    return requests, False
            now_s = self._clock.monotonic()
            until_s = now_s + GROUP_S if until_s is None else until_s
            wait_s = 0.0 if requests or self._untold else until_s - now_s
        return requests, True

    def _flush(self) -> None:
        """Write the changes; where that fails, keep them for the next turn."""
        failing = self._failing_since_s is not None
        if self._changes == Changes() and not failing:
            return
        try:
            dropped = self._attempt(lambda outbox: outbox.write(self._changes))
            self._changes = Changes()
            self._stored = self._attempt(Outbox.counts)
        except OutboxError as error:
            self._fail(error)
        else:
            if failing:
                self._recover()
            if dropped:
                self._metrics.count("outbox.dropped", dropped)
                log.warning("outbox full: dropped %d of the oldest events", dropped)
        self._count()
        if self._untold:
            self._answers.put(Stored(tuple(self._untold), self.counts.durable))
            self._untold = []

    def _pending(self, request: _Request) -> list[Row]:
        """Return what waits on the disk and in memory."""
        gone = self._changes.done | self._changes.quarantined.keys()
        limit = request.limit + len(gone)
        try:
            rows = self._attempt(
                lambda outbox: outbox.pending(limit, after=request.after, without=request.without)
            )
        except OutboxError as error:
            self._fail(error)
            rows = []
        unsaved = self._changes.puts.values()
        rows += [row for row in unsaved if row.seq > request.after and row.topic not in request.without]
        return sorted((row for row in rows if row.seq not in gone), key=lambda row: row.seq)[: request.limit]

    def _attempt(self, action: Callable[[Outbox], _T]) -> _T:
        """Do `action`; if the database turns out to be damaged, move it aside and do it in a new one."""
        try:
            return action(self._opened())
        except OutboxDamagedError as error:
            if self._path is None:
                raise
            if self._outbox is not None:
                self._outbox.close()
                self._outbox = None
            target = set_aside(self._path, self._clock.now())
            self._tell_damage(str(error), target)
            return action(self._opened())

    def _tell_damage(self, what: str, target: Path) -> None:
        self._metrics.count("outbox.set_aside")
        log.error("%s; moved to %s, a new outbox begins", what, target.name)

    def _opened(self) -> Outbox:
        if self._outbox is None:
            if self._path is None:
                raise OutboxError("outbox in memory: closed")
            self._outbox = Outbox.open(self._path, max_rows=self._max_rows, now=self._clock.now)
        return self._outbox

    def _fail(self, error: OutboxError) -> None:
        self._metrics.count("outbox.failures")
        if self._failing_since_s is None:
            self._failing_since_s = self._clock.monotonic()
            log.error("events are kept in memory only: %s", error)
        puts = self._changes.puts
        for seq in sorted(puts, key=lambda seq: (puts[seq].vital, seq))[: max(0, len(puts) - MAX_UNSAVED)]:
            del puts[seq]
            self._changes.dropped += 1
            self._metrics.count("outbox.dropped")

    def _recover(self) -> None:
        if self._failing_since_s is not None:
            lasted_s = self._clock.monotonic() - self._failing_since_s
            self._failing_since_s = None
            log.info("the outbox is on the disk again after %.0f s", lasted_s)

    def _count(self) -> None:
        """Refresh `counts`: what is stored, changed by what is not written yet."""
        waiting = self._changes
        self.counts = replace(
            self._stored,
            depth=max(0, self._stored.depth + len(waiting.puts) - len(waiting.done)),
            dropped=self._stored.dropped + waiting.dropped,
            durable=self._stored.durable and self._failing_since_s is None,
        )

    def _close(self) -> None:
        if self._changes.puts:
            log.error("%d events were never written to the disk and are lost", len(self._changes.puts))
        if self._outbox is not None:
            self._outbox.close()
