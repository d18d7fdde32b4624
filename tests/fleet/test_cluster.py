"""Photos embedded by the workers of Dask, each a process: the same bytes as here, whoever dies."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import cv2
import dask
import numpy as np
import pytest

from edge.camera.photo import read_photo
from edge.camera.photo_store import photo_folder
from edge.core.errors import ClusterError, PhotoStoreError
from edge.core.types import Quality, Subject
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_elsewhere, build_recognizer
from edge.device.assembly.stores import candidate_store
from edge.device.settings.load import Settings, load
from edge.face.manifest import load_manifest
from edge.fleet.cluster import Cluster, Needs, joined
from edge.fleet.reembed import reembed
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import orl_photo
from edge.lab.photos.degrade import degradations, drawn
from edge.lab.photos.embeddings import EmbeddingCache, PhotoEmbedder
from edge.lab.photos.shots import Shot, take_shots
from edge.lab.studies.variant_scores import embed_views, views_cache
from edge.recognition.enrolment.roster import from_folder
from edge.recognition.recognizer import Recognizer
from tests.support.certificates import Authority
from tests.support.clock import START
from tests.support.dask import DaskCluster, dask_cluster
from tests.support.gallery_samples import template, unit_rows
from tests.support.store import SECRET, S3Server
from tests.support.waits import wait_until

EMBEDDER = "sface-int8"
ANEW_OR_BEFORE = frozenset({"enrolled", "already enrolled"})
BUILD = partial(build_recognizer, gallery=Gallery.empty("none"), side_px=PHOTO_SIDE_PX)
KNOWN = tuple(Subject(f"p-{number}", "") for number in range(1, 7))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """A photo each of six people."""
    folder = tmp_path_factory.mktemp("photos")
    for number, subject in enumerate(KNOWN, 1):
        cv2.imwrite(str(folder / f"{subject.subject_id}.png"), read_photo(orl_photo(media, number, 1)))
    return folder


@pytest.fixture(scope="module")
def store(photos: Path) -> Iterator[S3Server]:
    """Has the folder of photos as a bucket; this process and the workers know it."""
    with pytest.MonkeyPatch.context() as environment:
        server = S3Server(photos.parent).start()
        server.known_to(environment)
        yield server
        server.kill()


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, store: S3Server
) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), models_dir, workers=2) as started:
        yield started


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    return settings_in(tmp_path / "state", models_dir)


def settings_in(state_dir: Path, models_dir: Path) -> Settings:
    tables = {"recognition": {"embedder": EMBEDDER}}
    return load(overrides={"state_dir": str(state_dir), "models_dir": str(models_dir), **tables})


def gallery_of(
    settings: Settings,
    photos: Path,
    cluster: Cluster | None,
    told: Callable[[str, float, float], None] = lambda *_: None,
    statuses: frozenset[str] = frozenset({"enrolled"}),
) -> Gallery:
    """Return the candidate that re-embedding makes of six people."""
    rows = [
        (subject, [template(row, "old@00000000")]) for subject, row in zip(KNOWN, unit_rows(6), strict=True)
    ]
    outcomes = reembed(
        Gallery.empty("old@00000000").with_subjects(rows),
        from_folder(photos),
        partial(BUILD, settings),
        candidate_store(settings),
        max_prototypes=settings.gallery.prototypes,
        processes=1,
        at=lambda: START,
        told=told,
        cluster=cluster,
    )
    assert {each.status for each in outcomes} == statuses
    return candidate_store(settings).load(BUILD(settings).embedder.model_id)


def keyed(photo: Path) -> bytes:
    return sha256(photo.read_bytes()).digest()


def elsewhere(settings: Settings) -> Callable[[], object]:
    return partial(build_elsewhere, BUILD, settings.recognition)


def needs(settings: Settings, photos: Path) -> Needs:
    return Needs.of(BUILD(settings), photos / "p-1.png")


def test_a_worker_killed_in_the_middle_changes_no_byte(
    settings: Settings, photos: Path, cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("edge.fleet.reembed.CHUNK", 1)
    here = gallery_of(settings_in(tmp_path / "here", settings.models_path), photos, None)
    before = len(cluster.client.nthreads())

    def told(what: str, done: float, total: float) -> None:
        if done == 1:
            cluster.kill_a_busy_worker()

    with joined(cluster.address, needs(settings, photos), elsewhere(settings)) as workers:
        there = gallery_of(settings, photos, workers, told)
    wait_until(lambda: len(cluster.client.nthreads()) == before - 1, what="the worker is gone")
    assert there.subjects == here.subjects
    assert there.matrix.tobytes() == here.matrix.tobytes()
    assert there.provenance == here.provenance
    assert ".png" not in cluster.log.read_text(), "no log of the cluster names a photo"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(
            lambda needs: replace(needs, versions={**needs.versions, "edge": "9.9"}),
            "has edge .*, and 9.9 is needed",
            id="another edge",
        ),
        pytest.param(
            lambda needs: replace(needs, models=(needs.models[0], f"{EMBEDDER}@12345678")),
            f"has the model {EMBEDDER}@.*, and {EMBEDDER}@12345678 is needed",
            id="another model",
        ),
        pytest.param(
            lambda needs: replace(needs, photo=Path("/nowhere/p-1.png")),
            "share the folder of photos under the same path",
            id="no photos",
        ),
    ],
)
def test_a_worker_that_lacks_something_is_told_before_any_work(
    change: Callable[[Needs], Needs], told: str, settings: Settings, photos: Path, cluster: DaskCluster
):
    asked = joined(cluster.address, change(needs(settings, photos)), elsewhere(settings))
    with pytest.raises(ClusterError, match=f"^worker tcp://[0-9.:]+ .*{told}; nothing was done$"), asked:
        pass


def test_a_worker_without_the_model_is_told(
    settings: Settings, photos: Path, tmp_path: Path, cluster: DaskCluster
):
    gone = settings.recognition.model_copy(update={"embedder": "nobodys"})
    asked = joined(cluster.address, needs(settings, photos), partial(build_elsewhere, BUILD, gone))
    with (
        pytest.raises(
            ClusterError,
            match=r"^worker tcp://[0-9.:]+ cannot do the work: no model named 'nobodys'.*; nothing",
        ),
        asked,
    ):
        pass


def test_a_worker_that_joins_later_and_lacks_something_stops_the_work(
    settings: Settings, photos: Path, cluster: DaskCluster
):
    fit = needs(settings, photos)
    with joined(cluster.address, fit, elsewhere(settings)) as workers:
        late = Cluster(workers._client, replace(fit, models=("yunet@12345678", fit.models[1])), workers._load)
        with pytest.raises(
            ClusterError, match=r"^a worker on \S+ has the model yunet.*, and yunet@12345678 is needed"
        ):
            gallery_of(settings, photos, late)
    assert candidate_store(settings).current_version() == 0, "nothing was done"


def test_photos_of_a_store_make_the_same_gallery_when_it_goes_meanwhile_and_comes_back(
    settings: Settings,
    photos: Path,
    store: S3Server,
    cluster: DaskCluster,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setattr("edge.fleet.reembed.CHUNK", 1)
    here = gallery_of(settings_in(tmp_path / "here", settings.models_path), photos, None)
    stored = photo_folder(f"s3://{photos.name}")

    def told(what: str, done: float, total: float) -> None:
        if done == 2:
            store.kill()

    with pytest.raises(PhotoStoreError, match=rf"^s3://{photos.name}/p-\d\.png: the store gives no [^\n]*$"):
        gallery_of(settings, stored, None, told)
    begun = candidate_store(settings).load(BUILD(settings).embedder.model_id)
    assert begun.subjects == KNOWN[:3], "what was embedded before is kept"
    store.start()
    with joined(cluster.address, needs(settings, stored), elsewhere(settings)) as workers:
        there = gallery_of(settings, stored, workers, statuses=ANEW_OR_BEFORE)
    assert there.subjects == here.subjects
    assert there.matrix.tobytes() == here.matrix.tobytes()
    mine = settings_in(tmp_path / "here", settings.models_path)
    rows = PhotoEmbedder(EMBEDDER, mine).embed(sorted(photos.iterdir()), lambda *_: None)
    same = PhotoEmbedder(EMBEDDER, settings, cluster.address).embed(sorted(stored.iterdir()), lambda *_: None)
    assert [row.tobytes() for row in same.values()] == [row.tobytes() for row in rows.values()]
    assert SECRET not in cluster.log.read_text()
    assert ".png" not in cluster.log.read_text(), "no log of the cluster names a photo"


def test_spoiled_photos_and_other_views_are_the_same_elsewhere(
    settings: Settings, photos: Path, cluster: DaskCluster, tmp_path: Path
):
    paths, told = sorted(photos.iterdir())[:2], lambda *_: None
    clean, *worse = degradations()
    shots, views = [], []
    for scheduler in (None, cluster.address):
        embedder = PhotoEmbedder(EMBEDDER, settings, scheduler)
        taken = take_shots(paths, [clean, drawn(worse)], embedder, told)
        shots.append([vars_of(shot) for way in taken.values() for shot in way.values()])
        manifest = load_manifest(EMBEDDER, settings.models_path)
        assert manifest.alignment is not None
        points = np.array(manifest.alignment.points, np.float32)
        cache = views_cache(tmp_path / str(scheduler is None), manifest.model_id, 128)
        views.append(embed_views(paths, embedder, points, cache, told))
    assert shots[0] == shots[1]
    assert [view.tobytes() for view in views[0].values()] == [view.tobytes() for view in views[1].values()]


def vars_of(shot: Shot | None) -> tuple[bytes, Quality, float] | None:
    return None if shot is None else (shot.embedding.tobytes(), shot.quality, shot.length)


def test_a_minute_without_any_worker_ends_the_work_and_one_that_joins_goes_on(
    settings: Settings, photos: Path, cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("edge.lab.photos.embeddings.CHUNK", 1)
    monkeypatch.setattr("edge.fleet.cluster.LOOK_S", 0.1)
    monkeypatch.setattr("edge.fleet.cluster.JOIN_S", 0.1)
    paths, nobody = sorted(photos.iterdir()), lambda *_: None
    here = PhotoEmbedder(EMBEDDER, settings_in(tmp_path / "here", settings.models_path)).embed(paths, nobody)
    embedder = PhotoEmbedder(EMBEDDER, settings, cluster.address)

    def told(what: str, done: float, total: float) -> None:
        for pid in cluster.client.run(os.getpid).values() if done == 1 else ():
            os.kill(pid, 9)

    with pytest.raises(ClusterError, match=r"^the cluster has no worker left; start one, and run this again"):
        embedder.embed(paths, told)
    with pytest.raises(ClusterError, match=r"^--scheduler: \S+ has no worker; start one: dask worker tcp://"):
        embedder.embed(paths, nobody)
    monkeypatch.undo()
    cluster.start_worker()
    there = embedder.embed(paths, nobody)
    assert {path: row.tobytes() for path, row in there.items()} == {
        path: row.tobytes() for path, row in here.items()
    }


def test_what_came_before_the_scheduler_died_is_in_the_cache(
    settings: Settings, photos: Path, cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Comes after the others that need the cluster."""
    monkeypatch.setattr("edge.lab.photos.embeddings.CHUNK", 1)
    paths = sorted(photos.iterdir())
    elsewhere = settings_in(tmp_path / "here", settings.models_path)
    here = PhotoEmbedder(EMBEDDER, elsewhere).embed(paths, lambda *_: None)

    def told(what: str, done: float, total: float) -> None:
        if done == 2:
            cluster.scheduler.kill()

    with pytest.raises(ClusterError, match=r"^the scheduler is gone; run this again to go on$"):
        PhotoEmbedder(EMBEDDER, settings, cluster.address).embed(paths, told)
    kept = EmbeddingCache(next((settings.state_dir / "evaluate").iterdir()), 128)
    again = PhotoEmbedder(EMBEDDER, settings).embed(paths, lambda *_: None)
    assert [keyed(path) in kept for path in (*paths[:2], paths[-1])] == [True, True, False]
    assert {path: row.tobytes() for path, row in again.items()} == {
        path: row.tobytes() for path, row in here.items()
    }


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler can be reached"),
        ("nowhere:", "no Dask scheduler can be reached"),
        ("ftp://127.0.0.1:1", "no Dask scheduler can be reached"),
        ("tls://127.0.0.1:1", "no certificate of this machine is set"),
    ],
)
def test_an_address_without_a_scheduler_is_one_line(
    address: str, told: str, settings: Settings, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.fleet.cluster.CONNECT_S", 0.5)
    asked = joined(address, needs(settings, photos), elsewhere(settings))
    with pytest.raises(ClusterError, match=f"^--scheduler: {address}: {told}.*") as error, asked:
        pass
    assert "\n" not in str(error.value)


@pytest.fixture
def encrypted(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[DaskCluster]:
    """A cluster that speaks TLS only. A task over which one worker died is given to no other."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder / "authority").make()
    certificate, key = authority.sign("cluster", "cluster")
    both = folder / "cluster.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    tls = dict.fromkeys(
        (f"distributed.comm.tls.{who}.cert" for who in ("scheduler", "worker", "client")), str(both)
    )
    tls |= {
        "distributed.comm.tls.ca-file": str(authority.file),
        "distributed.comm.require-encryption": "true",
    }
    once = {"distributed.scheduler.allowed-failures": "0"}
    variables = {
        f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": value
        for name, value in (tls | once).items()
    }
    with (
        dask.config.set(tls),
        dask_cluster(folder, models_dir, workers=2, protocol="tls", variables=variables) as started,
    ):
        yield started


def test_a_photo_that_kills_its_workers_is_told_and_the_others_are_done_also_by_one_that_joins_late(
    settings: Settings,
    photos: Path,
    encrypted: DaskCluster,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setattr("edge.fleet.reembed.CHUNK", 3)
    deadly = read_photo(photos / "p-2.png").tobytes()

    def load_deadly() -> Recognizer:
        recognizer = BUILD(settings)

        class DeadlyDetector:
            def __getattr__(self, name: str) -> object:
                return getattr(recognizer.detector, name)

            def detect(self, image):
                if image.tobytes() == deadly:
                    os.kill(os.getpid(), 9)
                return recognizer.detector.detect(image)

        return replace(recognizer, detector=DeadlyDetector())

    def told(what: str, done: float, total: float) -> None:
        if done == 0:
            encrypted.start_worker()

    with joined(encrypted.address, needs(settings, photos), load_deadly) as workers:
        made = gallery_of(settings, photos, workers, told, frozenset({"enrolled", "refused"}))
    assert made.ids == {subject.subject_id for subject in KNOWN} - {"p-2"}

    other = tmp_path / "other.pem"
    certificate, key = Authority(tmp_path / "authority").make().sign("other", "other")
    other.write_bytes(key.read_bytes() + certificate.read_bytes())
    refused = joined(encrypted.address, needs(settings, photos), elsewhere(settings))
    with (
        dask.config.set({"distributed.comm.tls.client.cert": str(other)}),
        pytest.raises(
            ClusterError, match=r"^--scheduler: tls://\S+: no Dask scheduler can be reached: [^\n]*SSL[^\n]*$"
        ),
        refused,
    ):
        pass
