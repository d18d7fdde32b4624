"""What goes in and out of the outbox. Data only."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One event that waits. `payload` lacks what is stamped when it is sent.

    `created_ms` counts from 1970 UTC; `monotonic_ms` is the moment of capture on the clock of the boot in
    which it was decided. A `vital` row is dropped only when no other is left.
    """

    seq: int
    event_id: str
    topic: str
    payload: bytes
    created_ms: int
    monotonic_ms: int
    vital: bool


@dataclass(slots=True)
class Changes:
    """What is to be written: rows to keep, delivered ones to forget, others to set aside with the reason.

    `acknowledged` are the event ids of rows that a consumer has named.
    `last_seq` is the highest seq given out so far; `dropped` counts rows that were lost on the way here.
    """

    puts: dict[int, Row] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    quarantined: dict[int, str] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    last_seq: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What came of `Changes`: rows `dropped` for want of room, and `unknown` event ids that no row had."""

    dropped: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in the outbox. `oldest_ms` is of the oldest waiting row; `dropped` counts for ever."""

    depth: int
    quarantined: int
    oldest_ms: int | None
    dropped: int
    durable: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """These rows are on the disk; not `durable`: the disk refuses, and they are in memory only."""

    seqs: tuple[int, ...]
    durable: bool


@dataclass(frozen=True, slots=True)
class Pending:
    """Waiting rows, oldest first, in answer to request `token`; fewer than asked for: that was all.

    Not `read`: the disk could not be read, these are only what is in memory.
    """

    token: int
    rows: tuple[Row, ...]
    read: bool = True
