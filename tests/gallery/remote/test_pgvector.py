"""What PostgreSQL alone does as the engine of a remote gallery: its index, its exchange, its errors."""

from contextlib import closing

import psycopg
import pytest

from edge.core.errors import RemoteGalleryError
from edge.gallery.matcher import DenseMatcher
from edge.gallery.remote import pgvector
from edge.gallery.remote.engine_matcher import EngineMatcher, entries, upload
from edge.gallery.remote.pgvector import PgvectorEngine
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner
from tests.support.gallery_samples import gallery_of, probe
from tests.support.postgres import Postgres

ROTATION, SIGNER = Rotation(b"site", 128), RowSigner(b"site", "faces")


def test_many_rows_are_found_by_an_index(database: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pgvector, "INDEXED_FROM", 1000)
    gallery = gallery_of([1, 2] * 500)
    with closing(PgvectorEngine.at(database, "faces")) as engine:
        upload(engine, gallery, ROTATION, SIGNER, {})
        with psycopg.connect(database) as connection:
            connection.execute("SET enable_seqscan = off")
            query = "EXPLAIN SELECT said FROM edge_faces WHERE model_id = 'm' ORDER BY row <#> %s LIMIT 9"
            plan = connection.execute(query, [str([0.0] * 128)]).fetchall()
        assert "Index Scan using edge_faces_new_row_idx" in str(plan)
        with closing(EngineMatcher(engine, gallery, ROTATION, SIGNER, timeout_s=10)) as remote:
            here = DenseMatcher(gallery)
            for face in gallery.matrix[:20]:
                best = remote.match(probe(face)).best
                expected = here.match(probe(face)).best
                assert best is not None
                assert expected is not None
                assert best.subject == expected.subject


def test_what_was_there_serves_until_all_is_there(database: str):
    old, new = gallery_of([1, 1]), gallery_of([1, 1, 1])
    with closing(PgvectorEngine.at(database, "faces")) as engine:
        upload(engine, old, ROTATION, SIGNER, {})
        before = engine.contents()

        def cut_off():
            yield from list(entries(new, ROTATION, SIGNER, {}))[:2]
            raise RuntimeError("cut off")

        with pytest.raises(RuntimeError):
            engine.replace(128, cut_off())
        assert engine.contents() == before
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


@pytest.mark.parametrize(
    ("address", "says"),
    [
        pytest.param("postgresql://[x", "must look like postgresql://user@host/database", id="no address"),
        pytest.param("postgresql://nobody@127.0.0.1:1/d", "refused", id="no server"),
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
