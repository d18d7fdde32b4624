"""A table of PostgreSQL with pgvector as the engine of a remote gallery.

Rows are halfvec, found by an HNSW index from `INDEXED_FROM` rows on, and by a scan below. The index is walked
on until enough entries have passed the filters.

Source: github.com/pgvector/pgvector, README: halfvec, HNSW, iterative index scans.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from edge.core.download import Progress
from edge.core.errors import RemoteGalleryError
from edge.core.text import first_line
from edge.core.types import FloatArray
from edge.gallery.remote.engine_matcher import CONTENTS, ENGINE_TIMEOUT_S, RemoteEntry

INDEXED_FROM = 300_000
"""Rows from which there is an index: a scan of 200,000 rows of 128 values takes 43 ms on one core."""

LINKS, EF_BUILD, EF_SEARCH = 32, 256, 800
"""Of the HNSW graph: links of a row, candidates while it is built and while it is searched.

Measured on faces (models/MEASURED.md): 16, 128 and 200 find the right subject in .979 of the cases.
"""

GRAPH_BYTES = 1400
"""Memory of a row while the graph is built, beside its values. A graph that does not fit takes far longer."""

LEAST_PGVECTOR = (0, 8)
"""The first that walks an index on."""

TOLD_EVERY_S = 1.0
"""How often is asked how much of the graph is built, and for the lock under which tables are exchanged."""

UPLOAD_GONE_S = 60
"""A server that takes nothing for so long is gone; one that writes to a slow disk pauses for seconds."""

EXCHANGE_S = 600
"""How long somebody else, such as a backup, may keep the old table from going."""

MAX_NAME_BYTES = 63
"""PostgreSQL cuts longer names."""


class PgvectorEngine:
    """One table, `edge_` and the collection's name. Used by one thread at a time."""

    def __init__(self, where: str, collection: str, password: str | None) -> None:
        self._where = where
        self._password = password
        self._name = f"edge_{collection}"
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
        if len(collection) + len("edge__new") > MAX_NAME_BYTES:
            raise RemoteGalleryError(f"remote gallery: the collection's name is too long: {collection}")
        return cls(where, collection, password)

    def replace(self, dim: int, entries: Iterable[RemoteEntry], step: Progress) -> None:
        """Hold exactly these entries; see `RemoteEngine`. What was there serves until all is there."""
        table, new = sql.Identifier(self._name), sql.Identifier(f"{self._name}_new")
        try:
            with self._connect(UPLOAD_GONE_S) as connection, connection.transaction():
                connection.execute("SET LOCAL statement_timeout = 0")
                _require_pgvector(connection)
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(new))
                connection.execute(
                    sql.SQL(
                        "CREATE TABLE {} (id uuid PRIMARY KEY, model_id text, groups text[] NOT NULL, "
                        "said text NOT NULL, mac text NOT NULL, row halfvec({}))"
                    ).format(new, sql.Literal(dim))
                )
                count = self._copy(connection, new, entries)
                if count >= INDEXED_FROM:
                    self._index(connection, new, count, dim, step)
                connection.execute(sql.SQL("ANALYZE {}").format(new))
                _exchange(connection, table, new, step)
        except psycopg.Error as error:
            raise RemoteGalleryError(f"the remote gallery refused it: {_told(error)}") from None

    def contents(self) -> Mapping[str, object] | None:
        """Return what was uploaded; see `RemoteEngine`."""
        query = sql.SQL("SELECT said, mac FROM {} WHERE id = %s").format(sql.Identifier(self._name))
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
            "SELECT said, mac FROM {} WHERE model_id = %s {} ORDER BY row <#> %s::halfvec LIMIT %s"
        ).format(sql.Identifier(self._name), sql.SQL("AND groups && %s" if groups else ""))
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
                for name, value in (
                    ("statement_timeout", f"{ENGINE_TIMEOUT_S}s"),
                    ("hnsw.ef_search", str(EF_SEARCH)),
                    ("hnsw.iterative_scan", "relaxed_order"),
                ):
                    connection.execute("SELECT set_config(%s, %s, false)", [name, value])
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _copy(
        self, connection: Connection[tuple[Any, ...]], table: sql.Identifier, entries: Iterable[RemoteEntry]
    ) -> int:
        count = 0
        columns = sql.SQL("COPY {} (id, model_id, groups, said, mac, row) FROM STDIN").format(table)
        with connection.cursor() as cursor, cursor.copy(columns) as rows:
            for entry in entries:
                vector = None if entry.row is None else str(entry.row.tolist())
                signed = (entry.signed["said"], entry.signed["mac"])
                rows.write_row((entry.id, entry.model_id, list(entry.groups), *signed, vector))
                count += 1
        return count

    def _index(
        self,
        connection: Connection[tuple[Any, ...]],
        table: sql.Identifier,
        count: int,
        dim: int,
        step: Progress,
    ) -> None:
        memory = f"{count * (GRAPH_BYTES + 2 * dim) // 1024 + 65536}kB"
        connection.execute("SELECT set_config('maintenance_work_mem', %s, true)", [memory])
        building = sql.SQL(
            "CREATE INDEX ON {} USING hnsw (row halfvec_ip_ops) WITH (m = {}, ef_construction = {})"
        ).format(table, sql.Literal(LINKS), sql.Literal(EF_BUILD))
        asked = "SELECT tuples_done FROM pg_stat_progress_create_index WHERE pid = %s"
        with self._connect(UPLOAD_GONE_S) as watching, ThreadPoolExecutor(1) as pool:
            built = pool.submit(connection.execute, building)
            try:
                while not wait([built], TOLD_EVERY_S).done:
                    found = watching.execute(asked, [connection.info.backend_pid]).fetchone()
                    step("rows indexed", found[0] if found else 0, count)
            except BaseException:
                connection.cancel_safe()
                raise
            built.result()


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
            f"the remote gallery refused it: its pgvector is {version}, and 0.8 or later is needed; install "
            "that there, then: ALTER EXTENSION vector UPDATE"
        )


def _exchange(
    connection: Connection[tuple[Any, ...]], table: sql.Identifier, new: sql.Identifier, step: Progress
) -> None:
    """Put the new table in the place of the old one. Questions do not queue behind whoever else reads that.

    Raises:
        psycopg.errors.LockNotAvailable: It was being read all the time.
    """
    until_s = time.monotonic() + EXCHANGE_S
    while True:
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '1s'")
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
                connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, table))
            return
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() >= until_s:
                raise
        step("waiting for whoever reads the old table", 0, 0)
        time.sleep(TOLD_EVERY_S)


def _told(error: psycopg.Error) -> str:
    if "vector" in str(error) and isinstance(error, psycopg.errors.FeatureNotSupported):
        return "the server has no pgvector; install it there (Debian: postgresql-NN-pgvector)"
    if isinstance(error, psycopg.errors.DiskFull) and "shared memory" in str(error):
        return (
            f"{first_line(error)}; its /dev/shm is too small for the graph (a container: --shm-size), or set "
            "max_parallel_maintenance_workers = 0 there"
        )
    return first_line(error)
