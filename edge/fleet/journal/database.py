"""Database: a consumer's decisions in SQLite, to be queried while they come in. Decides nothing.

Source: sqlite.org/pragma.html; WAL with synchronous=FULL is on the disk when a transaction has ended.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from edge.core.errors import FileError, JournalError
from edge.core.files import check_database
from edge.fleet.journal.decision import JournalDecision, forget, subject_hash
from edge.fleet.journal.store import Saw, SoleStore
from edge.mqtt.contract.messages import timestamp

SCHEMA = """
CREATE TABLE IF NOT EXISTS decision (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    camera TEXT NOT NULL,
    event_type TEXT NOT NULL,
    captured_at TEXT NOT NULL,
    received_at TEXT NOT NULL,
    event TEXT NOT NULL,
    UNIQUE (source, event_id)
) STRICT
"""
ERASED = "CREATE TABLE IF NOT EXISTS erased (subject TEXT PRIMARY KEY, at TEXT NOT NULL) STRICT"
COLUMNS = "id,source,event_id,seq,camera,event_type,captured_at,received_at,event"


class Database(SoleStore):
    """One table `decision`; the column `event` holds the whole event as JSON."""

    def __init__(self, path: Path, connection: sqlite3.Connection, now: Callable[[], datetime]) -> None:
        self._path = path
        self._connection = connection
        self._now = now

    @classmethod
    def open(cls, path: Path, saw: Saw, now: Callable[[], datetime]) -> "Database":
        """Open the database at `path`, or make it.

        Raises:
            JournalError: It cannot be opened, or is the database of something else.
        """
        try:
            check_database(path)
        except FileError as error:
            raise JournalError(str(error)) from None
        with _renamed(path):
            connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            with _renamed(path):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute(SCHEMA)
                connection.execute(ERASED)
                found = connection.execute(
                    "SELECT group_concat(name) FROM pragma_table_info('decision')"
                ).fetchone()
                if found[0] != COLUMNS:
                    raise JournalError(f"{path}: the table decision is of something else; name another file")
                for source, seq in connection.execute("SELECT source, seq FROM decision ORDER BY id"):
                    saw(source, seq)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, now)

    def add(self, decisions: Sequence[JournalDecision]) -> list[JournalDecision]:
        """Insert `decisions`; returns those that were not known. On return they are on the disk.

        Raises:
            JournalError: The disk refuses; nothing was changed.
        """
        received_at = timestamp(self._now())
        run = self._connection.execute
        new = []
        with self._transaction():
            erased = {
                subject: datetime.fromisoformat(at)
                for subject, at in run("SELECT subject, at FROM erased").fetchall()
            }
            for each in forget(decisions, erased):
                if run(
                    "INSERT OR IGNORE INTO decision VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        each.source,
                        each.event_id,
                        each.seq,
                        each.camera,
                        each.event_type,
                        each.captured_at,
                        received_at,
                        each.text,
                    ),
                ).rowcount:
                    new.append(each)
        return new

    def erase(self, subject_id: str) -> int:
        """Take the subject, id and label, out of all decisions; returns of how many.

        Decisions of before that come later lose the subject as well.

        Raises:
            JournalError: The disk refuses; nothing was changed.
        """
        run = self._connection.execute
        with self._transaction():
            run(
                "INSERT OR REPLACE INTO erased VALUES (?, ?)",
                [subject_hash(subject_id), timestamp(self._now())],
            )
            found = run(
                "UPDATE decision SET event = json_set(event, '$.subject', NULL) "
                "WHERE event ->> '$.subject.id' = ?",
                [subject_id],
            ).rowcount
        with _renamed(self._path):
            run("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still holds the pages of before
        return found

    def prune(self, before: datetime) -> int:
        """Delete the decisions that were received before a moment; returns how many.

        Raises:
            JournalError: The disk refuses; nothing was changed.
        """
        with _renamed(self._path):
            return self._connection.execute(
                "DELETE FROM decision WHERE received_at < ?", [timestamp(before)]
            ).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        run = self._connection.execute
        with _renamed(self._path):
            run("BEGIN IMMEDIATE")
            try:
                yield
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    run("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the database."""
        with _renamed(self._path):
            self._connection.close()


@contextmanager
def _renamed(path: Path) -> Iterator[None]:
    """Rename what SQLite raises."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}; check the disk or name another file") from None
