"""PostgreSQL: the decisions of many doors, kept by several consumers at once, each decision exactly once.

`known` holds what has come, one row for each event; `decision` holds the events, a partition for each month
in which they came. The views `who_was_where`, `no_match`, `reject_reason`, `silent_door` and `gap` answer
what is asked most.

Source: postgresql.org/docs: INSERT ... ON CONFLICT, table partitioning, pg_current_snapshot, connection
URIs.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import Connection, Cursor, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction

from edge.core.errors import JournalAwayError, JournalError
from edge.core.text import first_line
from edge.fleet.journal.decision import JournalDecision, forget, subject_hash
from edge.fleet.journal.store import Saw

DEFAULTS = {
    "connect_timeout": "5",
    "fallback_application_name": "edge",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
"""What an address need not say: a server that nobody hears of for half a minute is away."""

ADDRESS = re.compile(r"postgres(ql)?://([^@/]*@)?[^@?]*(\?.*)?")
"""Of an address with a bare @ or / in its password a part would be read, and told, as host or database."""

PASSWORD = (
    "; the password is looked for in ~/.pgpass, or in the file that PGPASSFILE names, which only you may read"
)

RECENT = 200
"""The last decisions of a door, among which its highest number is looked for at the start.

Those before may be of an outbox that the door no longer has.
"""

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
    CREATE INDEX known_latest ON known (source, id);
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
        at timestamptz NOT NULL GENERATED ALWAYS AS (
            CASE WHEN event ->> 'clock' = 'unsynced' THEN received_at
                 ELSE coalesce(captured_at, received_at) END
        ) STORED,
        subject_id text GENERATED ALWAYS AS (event #>> '{subject,id}') STORED,
        reason text GENERATED ALWAYS AS (event ->> 'reason') STORED,
        revises text GENERATED ALWAYS AS (event ->> 'revises') STORED
    ) PARTITION BY RANGE (received_at);
    CREATE INDEX decision_order ON decision (source, seq);
    CREATE INDEX decision_at ON decision (at);
    CREATE INDEX decision_subject ON decision (subject_id, at) WHERE subject_id IS NOT NULL;
    CREATE INDEX decision_revises ON decision (revises) WHERE revises IS NOT NULL;
    CREATE TABLE erased (subject text PRIMARY KEY, at timestamptz NOT NULL);
    CREATE VIEW who_was_where AS
        SELECT at, split_part(source, '/', 1) AS site, split_part(source, '/', 2) AS device, camera,
               subject_id, event #>> '{subject,label}' AS label, event #> '{score,best}' AS score,
               captured_at, received_at
        FROM decision WHERE event_type = 'match' ORDER BY at DESC;
    CREATE VIEW no_match AS
        SELECT at, source, camera, event_type, reason, subject_id, received_at
        FROM decision AS d
        WHERE reason IS NOT NULL AND NOT EXISTS (
            SELECT FROM decision AS later WHERE later.revises = d.event_id::text AND later.source = d.source
        );
    CREATE VIEW reject_reason AS
        SELECT date_trunc('day', at) AS day, source, camera, reason, count(*) AS decisions
        FROM no_match GROUP BY 1, 2, 3, 4;
    CREATE VIEW latest AS
        WITH RECURSIVE door AS (
            (SELECT source, id, received_at FROM known ORDER BY source DESC, id DESC LIMIT 1)
            UNION ALL
            SELECT before.* FROM door CROSS JOIN LATERAL (
                SELECT source, id, received_at FROM known
                WHERE source < door.source ORDER BY source DESC, id DESC LIMIT 1
            ) AS before
        )
        SELECT * FROM door;
    CREATE VIEW silent_door AS
        SELECT source, received_at AS last_received_at, now() - received_at AS silent_for
        FROM latest ORDER BY received_at;
    CREATE VIEW gap AS
        SELECT source, before + 1 AS first, seq - 1 AS last
        FROM (
            SELECT source, seq, lag(seq) OVER (PARTITION BY source, outbox ORDER BY seq) AS before
            FROM (
                SELECT source, seq, row_number() OVER (PARTITION BY source, seq ORDER BY id) AS outbox
                FROM known
            ) AS of_outbox
        ) AS with_before
        WHERE seq - before BETWEEN 2 AND 1000000;
    """,
)
"""What makes version 1, 2, ... of the schema from the one before; a published one never changes.

`latest` reads one row of the index for each door, however many decisions there are. In `gap` a number that
comes again is of a new outbox, and a jump is no gap (`gaps.JUMP`).
"""

INSERT: LiteralString = """
WITH given AS (
    SELECT DISTINCT ON (source, event_id) *
    FROM unnest(%b::text[], %b::uuid[], %b::bigint[], %b::text[], %b::text[], %b::timestamptz[], %b::jsonb[])
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
"""Rows are taken in the order of their key, so that two consumers with the same rows wait for each other.

Arrays go as binary (`%b`): as text, with every quote of JSON escaped, they took a hundred times as long.
"""

COMMITTED: LiteralString = """
SELECT source, seq FROM known WHERE tx >= %s::text::xid8 AND tx < %s::text::xid8 ORDER BY id
"""
"""What was committed between two looks: every transaction below the horizon has ended."""

HIGHEST: LiteralString = """
SELECT source, (
    SELECT max(seq) FROM (
        SELECT seq FROM known WHERE known.source = latest.source AND tx < %s::text::xid8
        ORDER BY id DESC LIMIT %s
    ) AS recent
) FROM latest
"""

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
        self._unsure = set[tuple[str, str]]()

    @classmethod
    def open(cls, where: str, saw: Saw, now: Callable[[], datetime]) -> "Postgres":
        """Connect to the database at the address `where`, and bring its schema to this release's.

        Raises:
            JournalError: It cannot be reached or used, or is of a later release.
        """
        try:
            said = dict[str, Any](conninfo_to_dict(where)) if ADDRESS.fullmatch(where) else {}
        except psycopg.ProgrammingError:
            said = {}
        if not said:
            raise JournalError(
                "the address cannot be read; write postgresql://user@host/database, behind a ? only what "
                "libpq knows, and no password"
            )
        store = cls(make_conninfo(**{**DEFAULTS, **said}), now)
        with store._renamed():
            connection = store._connected()
            store._horizon = store._look(connection)
            for source, seq in connection.execute(HIGHEST, [str(store._horizon), RECENT]).fetchall():
                if seq is not None:
                    saw(source, seq)
        return store

    def add(self, decisions: Sequence[JournalDecision]) -> list[JournalDecision]:
        """Keep `decisions`; returns those that were not known. On return they are committed.

        Raises:
            JournalAwayError: The server cannot be reached; what was kept is new in the next call.
            JournalError: It refuses them; nothing was changed.
        """
        with self._renamed():
            connection = self._connected()
            with connection.transaction():
                self._make_months(connection)
                erased = dict[str, datetime](connection.execute("SELECT subject, at FROM erased").fetchall())
                given = forget(decisions, erased)
                new = {each.key: each for each in self._insert(connection, given)}
                new |= {each.key: each for each in given if each.key in self._unsure}
                self._unsure = set(new)
            self._unsure = set()
        return list(new.values())

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

        Decisions of before that come later lose the subject as well.

        Raises:
            JournalError: The server cannot be reached, or refuses.
        """
        with self._renamed():
            connection = self._connected()
            with connection.transaction():
                connection.execute("LOCK TABLE erased")  # decisions on their way are kept before or after
                connection.execute(
                    "INSERT INTO erased VALUES (%s, %s) ON CONFLICT (subject) DO UPDATE SET at = excluded.at",
                    [subject_hash(subject_id), self._now()],
                )
                found = connection.execute(
                    "UPDATE decision SET event = jsonb_set(event, '{subject}', 'null') WHERE subject_id = %s",
                    [subject_id],
                ).rowcount
            connection.execute("VACUUM (ANALYZE) decision")  # samples of the old rows go, too
        return found

    def prune(self, before: datetime) -> int:
        """Delete the decisions that were received before a moment; whole months go at once. Returns how many.

        Of each door it is still known that the last one came, and when.

        Raises:
            JournalError: The server cannot be reached, or refuses.
        """
        with self._renamed(), self._connected().transaction():
            connection = self._connected()
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            found = int(
                _only(connection.execute("SELECT count(*) FROM decision WHERE received_at < %s", [before]))
            )
            for (name,) in connection.execute(
                "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
                "WHERE inhparent = 'decision'::regclass AND relname ~ '^decision_[0-9]{4}_[0-9]{2}$'"
            ).fetchall():
                if _next_month(datetime.strptime(name, "decision_%Y_%m").replace(tzinfo=UTC)) <= before:
                    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            self._months.clear()
            connection.execute("DELETE FROM decision WHERE received_at < %s", [before])
            connection.execute(
                "DELETE FROM known WHERE received_at < %s AND id NOT IN (SELECT id FROM latest)", [before]
            )
            return found

    def close(self) -> None:
        """Leave the server."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> _Rows:
        if self._connection is None or self._connection.closed:
            self._months.clear()
            connection = psycopg.connect(self._where, autocommit=True)
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
            [each.captured for each in decisions],
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
        host = f" at {told['host']}" if "host" in told else ""
        return f"postgresql database {told.get('dbname', '')!r}{host}"

    @contextmanager
    def _renamed(self) -> Iterator[None]:
        """Rename what the library raises, without the password that an address holds."""
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction) as error:
            first = self._connection is None
            if self._connection is not None:
                self._connection.close()
            kind = JournalError if first else JournalAwayError
            hint = PASSWORD if first and "password" in str(error) else ""
            raise kind(f"{self._shown}: {first_line(error)}{hint}") from None
        except InsufficientPrivilege as error:
            hint = "; make this user the owner of the database and of all that is in it"
            raise JournalError(f"{self._shown}: {first_line(error)}{hint}") from None
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
