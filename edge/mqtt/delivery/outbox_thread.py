"""OutboxThread: the only thread that waits for the disk.

Takes rows and answers when they are safe; whatever is queued meanwhile goes into one transaction. While the
disk refuses, rows wait in memory and are tried again. What rows mean and when they are sent is not its
business.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edge.core import files
from edge.core.clock import Clock
from edge.core.errors import OutboxDamagedError, OutboxDiskError, OutboxError, OutboxFullError
from edge.core.metrics import Metrics
from edge.core.threads import Beats, WorkerThread
from edge.mqtt.delivery.outbox import Changes, Outbox, Pending, Row, Stored, Unopened, set_aside

log = logging.getLogger(__name__)

BALLAST_BYTES = 1024 * 1024
"""As much as the outbox's write-ahead log may grow to."""

SPARE = 8
"""How many times its own size must be free before it is laid: a nearly full disk is left to others."""

TEND_S = 60.0


class Ballast:
    """A file beside the database at `outbox` whose removal lets a full disk take what frees it again.

    On a full disk even a deletion fails, because its log needs room: delivered rows could not be forgotten,
    and the space they take would never come back. Used by one thread.
    """

    def __init__(self, outbox: Path) -> None:
        self._path = outbox.with_name("outbox.ballast")
        self._due_s = 0.0

    def tend(self, now_s: float) -> None:
        """Lay the file where it is missing and there is room; looks once a minute (monotonic seconds)."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + TEND_S
        try:
            if self._path.exists():
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < SPARE * BALLAST_BYTES:
                return
            with os.fdopen(files.open_regular(self._path, os.O_WRONLY | os.O_CREAT), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError as error:
            log.info("no ballast for a full disk: %s", error)
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def release(self, now_s: float) -> bool:
        """Give the room to the database; returns False when there was none left to give."""
        self._due_s = now_s + TEND_S
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("the disk is full: the outbox's ballast of %d KiB was given up", BALLAST_BYTES // 1024)
        return True


_T = TypeVar("_T")


class Keeper:
    """An outbox that is mended when its disk fails it. Used by one thread.

    Owns `outbox` from construction on, opens it where it is not, and closes it.
    """

    def __init__(self, outbox: Outbox | Unopened, metrics: Metrics, clock: Clock) -> None:
        self._outbox = outbox if isinstance(outbox, Outbox) else None
        self._metrics = metrics
        self._clock = clock
        self._path, self.max_rows, self._max_bytes = outbox.path, outbox.max_rows, outbox.max_bytes
        self._ballast = Ballast(outbox.path)
        if isinstance(outbox, Outbox) and outbox.set_aside is not None:
            self._tell_damage(f"{outbox.path}: damaged", outbox.set_aside.name)

    def tend(self) -> None:
        """Lay the ballast where it is missing; to be called now and then."""
        self._ballast.tend(self._clock.monotonic())

    def attempt(self, action: Callable[[Outbox], _T]) -> _T:
        """Do `action`; where the disk fails it, mend what can be mended and do it once more.

        A full disk gets the ballast's room. After a disk error the database is closed, opened again and
        checked: what SQLite and the kernel still hold of it may not be what is on the disk. A damaged one is
        moved aside, and a new one begins.

        Raises:
            OutboxError: It failed again, or cannot be mended.
        """
        try:
            return action(self._opened())
        except OutboxFullError:
            if not self._ballast.release(self._clock.monotonic()):
                raise
            return action(self._opened())
        except OutboxDiskError as error:
            self._metrics.count("outbox.reopened")
            log.debug("%s; closing, opening again and checking", error)
            self._shut()
            return action(self._opened())
        except OutboxDamagedError as error:
            self._shut()
            self._tell_damage(str(error), set_aside(self._path, self._clock.now()).name)
            return action(self._opened())

    def close(self) -> None:
        """Close the database.

        Raises:
            OutboxError: It did not close cleanly.
        """
        if self._outbox is not None:
            self._outbox.close()

    def _tell_damage(self, what: str, target: str) -> None:
        self._metrics.count("outbox.set_aside")
        log.error("%s; moved to %s, a new outbox begins", what, target)

    def _opened(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox.open(
                self._path, max_rows=self.max_rows, max_bytes=self._max_bytes, now=self._clock.now
            )
            if self._outbox.set_aside is not None:
                self._tell_damage(f"{self._path}: damaged", self._outbox.set_aside.name)
        return self._outbox

    def _shut(self) -> None:
        """Close the database, whatever state it is in; `_opened` opens it again."""
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            try:
                outbox.close()
            except OutboxError as error:
                log.warning("the outbox did not close cleanly: %s", error)


BEAT = "outbox"
BEAT_LIMIT_S = 60.0
"""A disk that takes longer for one commit than this will not come back without a restart."""

IDLE_S = 1.0
MAX_GROUP = 16
"""Pieces of work in one transaction."""

GROUP_S = 0.02
"""New rows are committed at once. Acknowledgements, which nobody waits for, are gathered this long."""

RETRY_S = 1.0
"""Pause between two tries while the disk refuses."""

MAX_UNSAVED = 1000
"""Rows kept in memory while the disk refuses: about a megabyte."""

MAX_LOOKED_UP = 4000
"""Event ids that wait to be looked up: a new row waits behind them, about 20 ms."""


@dataclass(frozen=True, slots=True)
class _Done:
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Acknowledged:
    event_ids: tuple[str, ...]
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class _Undeliverable:
    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class _Unclaimed:
    topic: str
    before_ms: int


@dataclass(frozen=True, slots=True)
class _Request:
    token: int
    limit: int
    after: int
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Work = Row | _Done | _Acknowledged | _Undeliverable | _Unclaimed | _Request | _Stop


class OutboxThread(WorkerThread):
    """Owns `outbox` from construction on, and closes it; opens it where it is not. Answers go to `answers`.

    Every method may be called from any thread and returns at once; what they ask for is done in their order.
    """

    def __init__(
        self,
        outbox: Outbox | Unopened,
        answers: "queue.SimpleQueue[Any]",
        *,
        beats: Beats,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        super().__init__(BEAT, beat_limit_s=BEAT_LIMIT_S, beats=beats, metrics=metrics)
        self._keeper = Keeper(outbox, metrics, clock)
        self._answers = answers
        self._clock = clock
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._changes = Changes()
        self._untold: list[int] = []
        self._unsure = 0
        self._unsure_lock = threading.Lock()
        self._failing_since_s = clock.monotonic() if isinstance(outbox, Unopened) else None
        self.last_seq = outbox.last_seq
        """The highest seq given out before this thread began."""
        self._stored = outbox.counts()
        self.counts = self._stored
        """What waits, on the disk and in memory; not `durable` while the disk refuses."""

    def put(self, row: Row) -> None:
        """Keep `row`. Answered by `Stored`."""
        self._work.put(row)

    def done(self, *seqs: int) -> None:
        """Forget rows that were delivered."""
        self._work.put(_Done(seqs))

    def acknowledge(self, event_ids: tuple[str, ...]) -> None:
        """Forget the rows of these events: a consumer has them. Ids that no row has are counted."""
        self._work.put(_Acknowledged(event_ids))

    def look_up(self, event_ids: tuple[str, ...]) -> bool:
        """Do as `acknowledge` with ids that somebody made up, maybe; returns False when too many wait."""
        if not self._may_wait(len(event_ids)):
            return False
        self._work.put(_Acknowledged(event_ids, unsure=True))
        return True

    def undeliverable(self, seq: int, why: str) -> None:
        """Keep a row that can never be delivered out of the way."""
        self._work.put(_Undeliverable(seq, why))

    def forget_unclaimed(self, topic: str, older_than_s: float) -> None:
        """Forget rows of a topic to which nobody subscribes, by their age; they count as dropped."""
        self._work.put(_Unclaimed(topic, int((self._clock.now().timestamp() - older_than_s) * 1e3)))

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
        self._keeper.tend()
        requests, going = self._gather()
        self._flush()
        for request in requests:
            self._answers.put(self._pending(request))
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
                case _Acknowledged():
                    if work.unsure:
                        self._may_wait(-len(work.event_ids))
                    self._acknowledged(work.event_ids)
                case _Undeliverable():
                    self._changes.undeliverable[work.seq] = work.why
                case _Unclaimed():
                    self._changes.unclaimed[work.topic] = work.before_ms
                case _Request():
                    requests.append(work)
                case _Stop():
                    return requests, False
            now_s = self._clock.monotonic()
            until_s = now_s + GROUP_S if until_s is None else until_s
            wait_s = 0.0 if requests or self._untold else until_s - now_s
        return requests, True

    def _may_wait(self, event_ids: int) -> bool:
        """Count so many more ids that wait to be looked up; returns False where there is no room for them."""
        with self._unsure_lock:
            fits = self._unsure + event_ids <= MAX_LOOKED_UP
            self._unsure += event_ids if fits else 0
            return fits

    def _acknowledged(self, event_ids: tuple[str, ...]) -> None:
        """Note what a consumer has; more ids than there can be rows are not kept while the disk refuses."""
        unsaved = {row.event_id: seq for seq, row in self._changes.puts.items()}
        for event_id in event_ids:
            if event_id in unsaved:
                self._changes.puts.pop(unsaved[event_id], None)
            elif len(self._changes.acknowledged) < self._keeper.max_rows:
                self._changes.acknowledged.add(event_id)

    def _flush(self) -> None:
        """Write the changes; where that fails, keep them for the next turn."""
        failing = self._failing_since_s is not None
        if self._changes == Changes() and not failing:
            return
        try:
            written = self._keeper.attempt(lambda outbox: outbox.write(self._changes))
            self._changes = Changes()
            self._stored = self._keeper.attempt(Outbox.counts)
        except OutboxError as error:
            self._fail(error)
        else:
            if failing:
                self._recover()
            if written.dropped:
                self._metrics.count("outbox.dropped", written.dropped)
                log.warning("outbox full: dropped %d of the oldest events", written.dropped)
            if written.unclaimed:
                self._metrics.count("journal.unclaimed", written.unclaimed)
                log.info("nobody keeps the journal: forgot %d of its old events", written.unclaimed)
            if written.unknown:
                self._metrics.count("ack.unknown", written.unknown)
        self._count()
        if self._untold:
            self._answers.put(Stored(tuple(self._untold), self.counts.durable))
            self._untold = []

    def _pending(self, request: _Request) -> Pending:
        """Return what waits on the disk and in memory."""
        gone = self._changes.done | self._changes.undeliverable.keys()
        named = self._changes.acknowledged
        limit, read = request.limit + len(gone) + len(named), True
        try:
            rows = self._keeper.attempt(
                lambda outbox: outbox.pending(limit, after=request.after, without=request.without)
            )
        except OutboxError as error:
            self._fail(error)
            rows, read = [], False
        unsaved = self._changes.puts.values()
        rows += [row for row in unsaved if row.seq > request.after and row.topic not in request.without]
        waiting = [row for row in rows if row.seq not in gone and row.event_id not in named]
        found = sorted(waiting, key=lambda row: row.seq)[: request.limit]
        return Pending(request.token, tuple(found), read)

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
        gone = len(waiting.done) + len(waiting.acknowledged)
        self.counts = replace(
            self._stored,
            depth=max(0, self._stored.depth + len(waiting.puts) - gone),
            dropped=self._stored.dropped + waiting.dropped,
            durable=self._stored.durable and self._failing_since_s is None,
        )

    def _close(self) -> None:
        if self._changes.puts:
            log.error("%d events were never written to the disk and are lost", len(self._changes.puts))
        self._keeper.close()
