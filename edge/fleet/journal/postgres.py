"""PostgreSQL: the decisions of many doors, kept by several consumers at once, each decision exactly once.

`known` holds what has come, one row for each event; `decision` holds the events, a partition for each month
in which they came. The views `who_was_where`, `silent_door`, `reject_reason` and `gap` answer what is asked
most.

Source: postgresql.org/docs: INSERT ... ON CONFLICT, table partitioning, pg_current_snapshot, pg_xact_status.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import Connection, Cursor, sql
from psycopg.conninfo import conninfo_to_dict

from edge.core.errors import JournalAwayError, JournalError
from edge.core.text import first_line
from edge.fleet.journal.decision import JournalDecision
from edge.fleet.journal.store import Saw

CONNECT_S = 5
"""Seconds to wait for the server."""

LOCK = 0x65646765
"""Of the advisory lock under which the schema and its partitions change."""

MIGRATIONS: tuple[LiteralString, ...] = (
    """
    CREATE TABLE known (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        source text NOT NULL,
        event_id uuid NOT NULL,
        seq bigint NOT NULL,
        received_at timestamptz NOT NULL,
        tx xid8 NOT NULL DEFAULT pg_current_xact_id(),
        UNIQUE (source, event_id)
    );
    CREATE INDEX known_tx ON known (tx);
    CREATE INDEX known_order ON known (source, seq);
    CREATE INDEX known_received_at ON known USING brin (received_at);
    CREATE TABLE decision (
        source text NOT NULL,
        event_id uuid NOT NULL,
        seq bigint NOT NULL,
        camera text NOT NULL,
        event_type text NOT NULL,
        captured_at timestamptz,
        received_at timestamptz NOT NULL,
        event jsonb NOT NULL,
        subject_id text GENERATED ALWAYS AS (event #>> '{subject,id}') STORED,
        reason text GENERATED ALWAYS AS (event ->> 'reason') STORED
    ) PARTITION BY RANGE (received_at);
    CREATE INDEX decision_order ON decision (source, seq);
    CREATE INDEX decision_captured_at ON decision (captured_at);
    CREATE INDEX decision_subject ON decision (subject_id, captured_at) WHERE subject_id IS NOT NULL;
    CREATE VIEW who_was_where AS
        SELECT captured_at, split_part(source, '/', 1) AS site, split_part(source, '/', 2) AS device, camera,
               subject_id, event #>> '{subject,label}' AS label, event #> '{score,best}' AS score
        FROM decision WHERE event_type = 'match' ORDER BY captured_at DESC;
    CREATE VIEW silent_door AS
        SELECT source, max(received_at) AS last_received_at, now() - max(received_at) AS silent_for
        FROM known GROUP BY source ORDER BY silent_for DESC;
    CREATE VIEW reject_reason AS
        SELECT captured_at::date AS day, source, camera, reason, count(*) AS decisions
        FROM decision WHERE reason IS NOT NULL GROUP BY 1, 2, 3, 4;
    CREATE VIEW gap AS
        SELECT source, before + 1 AS first, seq - 1 AS last
        FROM (SELECT source, seq, lag(seq) OVER (PARTITION BY source ORDER BY seq) AS before FROM known) AS n
        WHERE seq > before + 1;
    """,
)
"""What makes version 1, 2, ... of the schema from the one before; a published one never changes."""

INSERT: LiteralString = """
WITH given AS (
    SELECT DISTINCT ON (source, event_id) *
    FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::timestamptz[], %s::jsonb[])
        WITH ORDINALITY AS g (source, event_id, seq, camera, event_type, captured_at, event, place)
    ORDER BY source, event_id, place
), fresh AS (
    INSERT INTO known (source, event_id, seq, received_at)
    SELECT source, event_id, seq, %s FROM given ON CONFLICT DO NOTHING RETURNING source, event_id
), kept AS (
    INSERT INTO decision (source, event_id, seq, camera, event_type, captured_at, received_at, event)
    SELECT source, event_id, seq, camera, event_type, captured_at, %s, event
    FROM given JOIN fresh USING (source, event_id)
)
SELECT place FROM given JOIN fresh USING (source, event_id) ORDER BY place
"""
"""Rows are taken in the order of their key, so that two consumers with the same rows wait for each other."""

COMMITTED: LiteralString = """
SELECT source, seq FROM known WHERE tx >= %s::text::xid8 AND tx < %s::text::xid8 ORDER BY id
"""
"""What was committed between two looks: every transaction below the horizon has ended."""

HIGHEST: LiteralString = """
WITH RECURSIVE door AS (
    (SELECT source FROM known ORDER BY source LIMIT 1)
    UNION ALL
    SELECT (SELECT source FROM known WHERE source > door.source ORDER BY source LIMIT 1)
    FROM door WHERE door.source IS NOT NULL
)
SELECT source, (SELECT max(seq) FROM known WHERE known.source = door.source AND tx < %s::text::xid8)
FROM door WHERE source IS NOT NULL
"""
"""Reads one row of the index for each door, however many decisions there are."""


_Rows = Connection[tuple[Any, ...]]


class Postgres:
    """A journal in a database of PostgreSQL 13 or later.

    At the start `saw` is told the highest number of every door; gaps below it are in the view `gap`.
    """

    def __init__(self, where: str, now: Callable[[], datetime]) -> None:
        self._where = where
        self._now = now
        self._connection: _Rows | None = None
        self._horizon = 0
        self._months = set[datetime]()
        self._unsure: tuple[int, list[JournalDecision]] | None = None

    @classmethod
    def open(cls, where: str, saw: Saw, now: Callable[[], datetime]) -> "Postgres":
        """Connect to the database at the address `where`, and bring its schema to this release's.

        Raises:
            JournalError: It cannot be reached or used, or is of a later release.
        """
        try:
            conninfo_to_dict(where)
        except psycopg.ProgrammingError:
            raise JournalError("the address cannot be read; write postgresql://user@host/database") from None
        store = cls(where, now)
        with store._renamed():
            connection = store._connected()
            store._horizon = store._look(connection)
            for source, seq in connection.execute(HIGHEST, [str(store._horizon)]).fetchall():
                if seq is not None:
                    saw(source, seq)
        return store

    def add(self, decisions: Sequence[JournalDecision]) -> list[JournalDecision]:
        """Keep `decisions`; returns those that were not known. On return they are committed.

        Raises:
            JournalAwayError: The server cannot be reached; whether they were kept is told by the next call.
            JournalError: It refuses them; nothing was changed.
        """
        with self._renamed():
            connection = self._connected()
            if self._unsure is not None:
                transaction, new = self._unsure
                self._unsure = None
                status = connection.execute("SELECT pg_xact_status(%s::text::xid8)", [str(transaction)])
                if _only(status) == "committed":
                    return new
            with connection.transaction():
                self._make_months(connection)
                new = self._insert(connection, decisions)
                mine = int(str(_only(connection.execute("SELECT pg_current_xact_id()::text"))))
                self._unsure = mine, new
            self._unsure = None
        return new

    def numbers(self, new: Sequence[JournalDecision]) -> list[tuple[str, int]]:
        """Return doors and numbers of what was committed since the last call, whoever keeps decisions here.

        Raises:
            JournalAwayError: The server cannot be reached.
        """
        with self._renamed():
            connection = self._connected()
            horizon = self._look(connection)
            span = [str(self._horizon), str(horizon)]
            found = connection.execute(COMMITTED, span).fetchall() if horizon > self._horizon else []
            self._horizon = horizon
            return [(source, seq) for source, seq in found]

    def erase(self, subject_id: str) -> int:
        """Take the subject, id and label, out of all decisions; returns of how many.

        Raises:
            JournalError: The server cannot be reached, or refuses.
        """
        with self._renamed(), self._connected().transaction():
            return (
                self._connected()
                .execute(
                    "UPDATE decision SET event = jsonb_set(event, '{subject}', 'null') WHERE subject_id = %s",
                    [subject_id],
                )
                .rowcount
            )

    def prune(self, before: datetime) -> int:
        """Delete the decisions that were received before a moment; whole months go at once. Returns how many.

        Raises:
            JournalError: The server cannot be reached, or refuses.
        """
        with self._renamed(), self._connected().transaction():
            connection = self._connected()
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            for (name,) in connection.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'decision'::regclass"
            ).fetchall():
                if _next_month(datetime.strptime(name, "decision_%Y_%m").replace(tzinfo=UTC)) <= before:
                    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            self._months.clear()
            connection.execute("DELETE FROM decision WHERE received_at < %s", [before])
            return connection.execute("DELETE FROM known WHERE received_at < %s", [before]).rowcount

    def close(self) -> None:
        """Leave the server."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> _Rows:
        if self._connection is None or self._connection.closed:
            self._months.clear()
            connection = psycopg.connect(
                self._where, autocommit=True, connect_timeout=CONNECT_S, fallback_application_name="edge"
            )
            try:
                with connection.transaction():
                    self._migrate(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _migrate(self, connection: _Rows) -> None:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        if _only(connection.execute("SELECT to_regclass('edge_journal')")) is None:
            if _only(connection.execute("SELECT coalesce(to_regclass('decision'), to_regclass('known'))")):
                raise JournalError(f"{self._shown}: its tables are of something else; name another database")
            connection.execute("CREATE TABLE edge_journal (version integer NOT NULL)")
            connection.execute("INSERT INTO edge_journal VALUES (0)")
        version = int(_only(connection.execute("SELECT version FROM edge_journal")))
        if version > len(MIGRATIONS):
            raise JournalError(
                f"{self._shown}: its schema {version} is of a later release, this one knows "
                f"{len(MIGRATIONS)}; update edge"
            )
        for script in MIGRATIONS[version:]:
            connection.execute(script)
        if version < len(MIGRATIONS):
            connection.execute("UPDATE edge_journal SET version = %s", [len(MIGRATIONS)])

    def _make_months(self, connection: _Rows) -> None:
        """Make the partition of this month, and of the next, in whose first second rows come too."""
        first = self._now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        for month in (first, _next_month(first)):
            if month in self._months:
                continue
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} PARTITION OF decision FOR VALUES FROM ({}) TO ({})"
                ).format(
                    sql.Identifier(f"decision_{month:%Y_%m}"),
                    sql.Literal(month.isoformat()),
                    sql.Literal(_next_month(month).isoformat()),
                )
            )
            self._months.add(month)

    def _insert(self, connection: _Rows, decisions: Sequence[JournalDecision]) -> list[JournalDecision]:
        try:
            with connection.transaction():
                return self._insert_all(connection, decisions, [each.text for each in decisions])
        except psycopg.DataError:  # one of them holds what jsonb cannot
            texts = [json.dumps(_storable(json.loads(each.text))) for each in decisions]
            return self._insert_all(connection, decisions, texts)

    def _insert_all(
        self,
        connection: _Rows,
        decisions: Sequence[JournalDecision],
        events: Sequence[str],
    ) -> list[JournalDecision]:
        at = self._now()
        columns = [
            [each.source for each in decisions],
            [each.event_id for each in decisions],
            [each.seq for each in decisions],
            [each.camera for each in decisions],
            [each.event_type for each in decisions],
            [_moment(each.captured_at) for each in decisions],
            list(events),
        ]
        found = connection.execute(INSERT, [*columns, at, at]).fetchall()
        return [decisions[place - 1] for (place,) in found]

    def _look(self, connection: _Rows) -> int:
        """Return the number below which every transaction has ended."""
        return int(_only(connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")))

    @property
    def _shown(self) -> str:
        """The address as it may be told: without the password."""
        told = conninfo_to_dict(self._where)
        host, name = told.get("host", "the local server"), told.get("dbname", "")
        return f"postgresql database {name!r} at {host}"

    @contextmanager
    def _renamed(self) -> Iterator[None]:
        """Rename what the library raises, without the password that an address holds."""
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            first = self._connection is None
            if self._connection is not None:
                self._connection.close()
            kind = JournalError if first else JournalAwayError
            raise kind(f"{self._shown}: {first_line(error)}") from None
        except psycopg.Error as error:
            raise JournalError(f"{self._shown}: {first_line(error)}") from None


def _only(cursor: Cursor[tuple[Any, ...]]) -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=32)).replace(day=1)


def _storable(value: Any) -> Any:
    """Return a value of JSON as jsonb takes it: no null character, no number beyond all numbers."""
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _moment(text: str) -> datetime | None:
    """Return when a frame was captured, as a device says; None where it says nothing that can be read."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
