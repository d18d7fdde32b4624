"""A table of PostgreSQL with pgvector as the engine of a remote gallery.

A probe is compared with every row. The rows, as halfvec, lie apart from what is signed: a scan over both
takes twice as long. There is no index: on faces, a graph (HNSW) misses one in twenty of a million, and of the
cells of IVFFlat nearly half have to be read (models/MEASURED.md).

Source: github.com/pgvector/pgvector, README: halfvec, exact search.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from edge.core.download import Progress
from edge.core.errors import RemoteGalleryError
from edge.core.text import first_line
from edge.core.types import FloatArray
from edge.gallery.remote.engine_matcher import CONTENTS, ENGINE_TIMEOUT_S, RemoteEntry

LEAST_PGVECTOR = (0, 7)
"""The first that has halfvec."""

AGAIN_S = 1.0
"""How long the tables wait for the lock under which they are exchanged, and until they try again."""

UPLOAD_GONE_S = 60
"""A server that takes nothing for so long is gone; one that writes to a slow disk pauses for seconds."""

EXCHANGE_S = 600
"""How long somebody else, such as a backup, may keep the old table from going."""

MAX_NAME_BYTES = 63
"""PostgreSQL cuts longer names."""


class PgvectorEngine:
    """One table, `edge_` and the collection's name, and its rows. Used by one thread at a time."""

    def __init__(self, where: str, collection: str, password: str | None) -> None:
        self._where = where
        self._password = password
        self._table = sql.Identifier(f"edge_{collection}")
        self._rows = sql.Identifier(f"edge_{collection}_rows")
        self._new = sql.Identifier(f"edge_{collection}_new")
        self._new_rows = sql.Identifier(f"edge_{collection}_new_rows")
        self._connection: Connection[tuple[Any, ...]] | None = None

    @classmethod
    def at(cls, where: str, collection: str, *, password: str | None = None) -> "PgvectorEngine":
        """Return the engine in the database at an address; nothing is sent before the first question.

        Raises:
            RemoteGalleryError: The address cannot be used, or the collection's name is too long.
        """
        try:
            conninfo_to_dict(where)
        except psycopg.ProgrammingError:
            raise RemoteGalleryError(
                "remote gallery: the address must look like postgresql://user@host/database"
            ) from None
        if len(collection) + len("edge__new_rows") > MAX_NAME_BYTES:
            raise RemoteGalleryError(f"remote gallery: the collection's name is too long: {collection}")
        return cls(where, collection, password)

    def replace(self, dim: int, entries: Iterable[RemoteEntry], step: Progress) -> None:
        """Hold exactly these entries; see `RemoteEngine`. What was there serves until all is there."""
        try:
            with self._connect(UPLOAD_GONE_S) as connection, connection.transaction():
                connection.execute("SET LOCAL statement_timeout = 0")
                _require_pgvector(connection)
                connection.execute(
                    sql.SQL(
                        "CREATE TABLE {} (id uuid PRIMARY KEY, model_id text, groups text[] NOT NULL, "
                        "said text NOT NULL, mac text NOT NULL, row halfvec({}))"
                    ).format(self._new, sql.Literal(dim))
                )
                _copy(connection, self._new, entries)
                connection.execute(
                    sql.SQL(
                        "CREATE MATERIALIZED VIEW {} AS "
                        "SELECT id, model_id, groups, row FROM {} WHERE row IS NOT NULL"
                    ).format(self._new_rows, self._new)
                )
                connection.execute(sql.SQL("ANALYZE {}, {}").format(self._new, self._new_rows))
                self._exchange(connection, step)
        except psycopg.Error as error:
            raise RemoteGalleryError(f"the remote gallery refused it: {_told(error)}") from None

    def contents(self) -> Mapping[str, object] | None:
        """Return what was uploaded; see `RemoteEngine`."""
        query = sql.SQL("SELECT said, mac FROM {} WHERE id = %s").format(self._table)
        try:
            found = self._asking().execute(query, [CONTENTS]).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            return None
        return None if found is None else dict(zip(("said", "mac"), found, strict=True))

    def nearest(
        self, row: FloatArray, model_id: str, groups: Sequence[str], count: int
    ) -> Sequence[Mapping[str, object]]:
        """Return the nearest entries; see `RemoteEngine`."""
        query = sql.SQL(
            "SELECT said, mac FROM (SELECT id FROM {} WHERE model_id = %s {} ORDER BY row <#> %s::halfvec "
            "LIMIT %s) AS near JOIN {} USING (id)"
        ).format(self._rows, sql.SQL("AND groups && %s" if groups else ""), self._table)
        vector = "[" + ",".join(f"{value:.6g}" for value in row.tolist()) + "]"
        values = [model_id, *([list(groups)] if groups else []), vector, count]
        found = self._asking().execute(query, values).fetchall()
        return [{"said": said, "mac": mac} for said, mac in found]

    def close(self) -> None:
        """Let go of the server."""
        if self._connection is not None:
            self._connection.close()

    def _connect(self, gone_s: int) -> Connection[tuple[Any, ...]]:
        """Connect. A server whose machine went away says nothing; after `gone_s` it is not waited for."""
        given = {} if self._password is None else {"password": self._password}
        return psycopg.connect(
            make_conninfo(self._where, **given),
            autocommit=True,
            connect_timeout=ENGINE_TIMEOUT_S,
            tcp_user_timeout=gone_s * 1000,
            keepalives_idle=gone_s,
            keepalives_interval=1,
            fallback_application_name="edge",
        )

    def _asking(self) -> Connection[tuple[Any, ...]]:
        """Return the connection for questions, made anew where it was lost."""
        if self._connection is None or self._connection.closed:
            connection = self._connect(ENGINE_TIMEOUT_S)
            try:
                connection.execute(f"SET statement_timeout = '{ENGINE_TIMEOUT_S}s'")
                connection.execute("SET jit = off")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _exchange(self, connection: Connection[tuple[Any, ...]], step: Progress) -> None:
        """Put the new tables in the place of the old. Questions do not queue behind who else reads those.

        Raises:
            psycopg.errors.LockNotAvailable: They were being read all the time.
        """
        until_s = time.monotonic() + EXCHANGE_S
        while True:
            try:
                with connection.transaction():
                    connection.execute(f"SET LOCAL lock_timeout = '{AGAIN_S}s'")
                    connection.execute(sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(self._table))
                    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(self._new, self._table))
                    connection.execute(
                        sql.SQL("ALTER MATERIALIZED VIEW {} RENAME TO {}").format(self._new_rows, self._rows)
                    )
                return
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() >= until_s:
                    raise
            step("waiting for whoever reads the old table", 0, 0)
            time.sleep(AGAIN_S)


def _copy(
    connection: Connection[tuple[Any, ...]], table: sql.Identifier, entries: Iterable[RemoteEntry]
) -> None:
    columns = sql.SQL("COPY {} (id, model_id, groups, said, mac, row) FROM STDIN").format(table)
    with connection.cursor() as cursor, cursor.copy(columns) as rows:
        for entry in entries:
            vector = None if entry.row is None else str(entry.row.tolist())
            signed = (entry.signed["said"], entry.signed["mac"])
            rows.write_row((entry.id, entry.model_id, list(entry.groups), *signed, vector))


def _require_pgvector(connection: Connection[tuple[Any, ...]]) -> None:
    """See that the database has the extension.

    Raises:
        RemoteGalleryError: It is too old.
    """
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = str(found[0]) if found else "none"
    if not found or tuple(map(int, version.split(".")[:2])) < LEAST_PGVECTOR:
        raise RemoteGalleryError(
            f"the remote gallery refused it: its pgvector is {version}, and 0.7 or later is needed; install "
            "that there, then: ALTER EXTENSION vector UPDATE"
        )


def _told(error: psycopg.Error) -> str:
    if "vector" in str(error) and isinstance(error, psycopg.errors.FeatureNotSupported):
        return "the server has no pgvector; install it there (Debian: postgresql-NN-pgvector)"
    return first_line(error)
