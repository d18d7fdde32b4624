"""The remote gallery: in qdrant-client's local mode, and beside servers that are silent, gone or lying."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic

import numpy as np
import pytest

from edge.access import Access
from edge.errors import ModelMismatchError, RemoteGalleryError, RemoteTimeoutError
from edge.gallery.admission import Admission
from edge.gallery.decision import Calibration, DecisionRule
from edge.gallery.elsewhere import Elsewhere, Opinion
from edge.gallery.gallery import SEVERAL_PHOTOS, Gallery
from edge.gallery.matcher import DenseMatcher
from edge.gallery.rotation import Rotation
from edge.types import Decision, EventType, Probe, Reason, Subject
from tests.gallery.samples import AT, MODEL, gallery_of, probe, template, unit_rows

pytest.importorskip("qdrant_client", reason="needs the extra scale")

from qdrant_client import QdrantClient, models

from edge.gallery.remote import QdrantMatcher, connect, upload

RULE = DecisionRule(None, 0.5, 0.05, None)
REJECT = Decision(EventType.REJECT, Reason.BELOW_THRESHOLD, None, None)


ROTATION = Rotation(b"site", 128)


def second_opinion(
    local: Decision, face: Probe, remote: QdrantMatcher, rule: DecisionRule, timeout_s: float = 5
) -> Opinion:
    elsewhere = Elsewhere(remote, timeout_s=timeout_s, clock=monotonic, on_close=remote.close)
    question = elsewhere.ask(local, face)
    if isinstance(question, Opinion):
        return question
    everybody = Admission(Gallery.empty(MODEL))
    opinion = elsewhere.answer(question, local, rule, everybody, AT, patient=True)
    assert opinion is not None
    return opinion


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@contextmanager
def remote_of(client: QdrantClient, gallery: Gallery, **options) -> Iterator[QdrantMatcher]:
    remote = QdrantMatcher(client, "faces", gallery, ROTATION, **options)
    try:
        yield remote
    finally:
        remote.close()


@contextmanager
def remote_at(url: str, **options) -> Iterator[QdrantMatcher]:
    client = connect(url)
    try:
        with remote_of(client, gallery_of([1]), **options) as remote:
            yield remote
    finally:
        client.close()


@contextmanager
def server(answer: bytes | None) -> Iterator[tuple[str, list[socket.socket]]]:
    """Accept connections and answer every request with these bytes, None: never."""
    held: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                held.append(listening.accept()[0])
                if answer is not None:
                    held[-1].recv(65536)
                    held[-1].sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", held
        listening.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()
    thread.join(5)


def test_the_remote_answer_is_that_of_the_same_gallery_here(client: QdrantClient):
    gallery = gallery_of([1, 5, 2] * 40)
    upload(client, "faces", gallery, ROTATION)
    dense = DenseMatcher(gallery)
    with remote_of(client, gallery, timeout_s=5) as remote:
        for face in (*gallery.matrix[:20], *unit_rows(20, seed=4)):
            here, there = dense.match(probe(face)), remote.match(probe(face))
            for ours, theirs in ((here.best, there.best), (here.second, there.second)):
                assert ours is not None
                assert theirs is not None
                assert theirs.subject == ours.subject
                assert theirs.score == pytest.approx(ours.score, abs=1e-5)
            assert there.gallery_size == len(gallery.matrix)
            assert there.comparisons >= here.comparisons


def test_an_upload_replaces_what_was_there(client: QdrantClient):
    upload(client, "faces", gallery_of([1, 1, 1]), ROTATION)
    upload(
        client,
        "faces",
        gallery_of([1])
        .without_subject("p-0")
        .with_subject(Subject("new", ""), [template(unit_rows(1, seed=8)[0])]),
        ROTATION,
    )
    with remote_of(client, gallery_of([1]), timeout_s=5) as remote:
        match = remote.match(probe(unit_rows(1)[0]))
    assert match.best is not None
    assert (match.best.subject.subject_id, match.second, match.gallery_size) == ("new", None, 1)


def test_only_subjects_of_the_doors_groups_and_of_the_embedder_are_found(client: QdrantClient):
    rows = unit_rows(2)
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject("a", "", ("lab",)), [template(rows[0])]),
            (Subject("b", "", ("staff",)), [template(rows[1])]),
        ]
    )
    upload(client, "faces", gallery, ROTATION)
    with remote_of(client, gallery, groups=("staff",), timeout_s=5) as remote:
        match = remote.match(probe(rows[0]))
        assert match.best is not None
        assert (match.best.subject.subject_id, match.second, match.gallery_size) == ("b", None, 1)
        with pytest.raises(ModelMismatchError):
            remote.match(probe(rows[0], model_id="other"))
    with remote_of(client, Gallery.empty("other", dim=128), timeout_s=5) as other:
        assert other.match(probe(rows[0], model_id="other")).best is None


def test_a_probe_that_is_not_a_unit_vector_is_not_sent_and_matches_nobody(client: QdrantClient):
    with remote_of(client, gallery_of([1])) as remote:
        assert remote.match(probe(np.full(128, np.nan, np.float32))).best is None


def test_a_stranger_here_may_be_known_there(client: QdrantClient):
    far = gallery_of([1] * 50, seed=3)
    upload(client, "faces", far, ROTATION)
    face = probe(far.matrix[7])
    with remote_of(client, far, timeout_s=5) as remote:
        local = RULE.decide(DenseMatcher(gallery_of([1] * 5)).match(face))
        opinion = second_opinion(local, face, remote, RULE)
        assert opinion.outcome == "answered"
        assert opinion.decision.event_type == EventType.MATCH
        assert opinion.decision.subject == far.subjects[7]
        stranger = probe(unit_rows(1, seed=77)[0])
        opinion = second_opinion(local, stranger, remote, RULE)
        assert opinion.decision is local, "who is unknown in both keeps the local decision and its score"
        assert opinion.outcome == "answered"


def test_what_lies_there_is_rotated_by_the_site_s_secret(client: QdrantClient):
    gallery = gallery_of([1] * 3)
    upload(client, "faces", gallery, ROTATION)
    stored = [point.vector for point in client.scroll("faces", with_vectors=True)[0]]
    assert len(stored) == 3
    assert max(float(gallery.matrix[0] @ np.asarray(row, np.float32)) for row in stored) < 0.5


def test_who_may_not_pass_is_not_let_in_from_there_either(client: QdrantClient):
    far = gallery_of([1, 1])
    expired = replace(far.subjects[0], access=Access(not_after=AT))
    upload(client, "faces", replace(far, subjects=(expired, far.subjects[1])), ROTATION)
    with remote_of(client, far, timeout_s=5) as remote:
        opinion = second_opinion(REJECT, probe(far.matrix[0]), remote, RULE)
    assert (opinion.decision.event_type, opinion.decision.reason) == (EventType.REJECT, Reason.EXPIRED)
    assert opinion.decision.subject == expired


def test_the_threshold_follows_what_was_searched_there(client: QdrantClient):
    upload(client, "faces", gallery_of([1] * 200), ROTATION)
    rule = DecisionRule(0.01, None, 0.0, Calibration((0.2, 0.4, 0.6), (1e-1, 1e-3, 1e-5)))
    with remote_of(client, gallery_of([1]), timeout_s=5) as remote:
        opinion = second_opinion(REJECT, probe(gallery_of([1] * 200).matrix[9]), remote, rule)
    assert opinion.decision.score is not None
    assert opinion.decision.score.threshold == rule.threshold_for(200 * SEVERAL_PHOTOS)
    assert opinion.decision.score.threshold > rule.threshold_for(200)


@pytest.mark.parametrize(
    "local",
    [
        pytest.param(Decision(EventType.MATCH, None, Subject("a", ""), None), id="a match"),
        pytest.param(Decision(EventType.REJECT, Reason.AMBIGUOUS, None, None), id="ambiguous"),
        pytest.param(Decision(EventType.REJECT, Reason.EXPIRED, None, None), id="expired"),
        pytest.param(Decision(EventType.SPOOF, Reason.SPOOF, None, None), id="spoof"),
        pytest.param(Decision(EventType.NO_DECISION, Reason.LOW_QUALITY, None, None), id="no usable shot"),
    ],
)
def test_whoever_is_decided_here_is_not_asked_about(local: Decision):
    with server(None) as (url, held), remote_at(url) as remote:
        opinion = second_opinion(local, probe(unit_rows(1)[0]), remote, RULE)
        assert (opinion.decision, opinion.outcome) == (local, "not_asked")
        assert held == []


def test_a_silent_server_costs_a_quarter_of_a_second_once_and_the_local_decision_stands():
    face = probe(unit_rows(1)[0])
    with server(None) as (url, held), remote_at(url) as remote:
        begun_s = monotonic()
        opinion = second_opinion(REJECT, face, remote, RULE, 0.25)
        took_s = monotonic() - begun_s
        assert (opinion.decision, opinion.outcome) == (REJECT, "timeout")
        assert 0.24 < took_s < 0.6
        begun_s = monotonic()
        with pytest.raises(RemoteTimeoutError, match="last question"):
            remote.match(face)
        assert monotonic() - begun_s < 0.1
        assert len(held) == 1, "it was a real connection"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 500 Internal\r\nContent-Length: 0\r\n\r\n", id="error"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="another document"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot json!", id="not JSON"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"", id="nothing and closed"),
    ],
)
def test_a_server_that_answers_nonsense_leaves_the_local_decision(answer: bytes):
    with server(answer) as (url, held), remote_at(url, timeout_s=5) as remote:
        if not answer:
            threading.Timer(0.1, lambda: held[0].close()).start()
        opinion = second_opinion(REJECT, probe(unit_rows(1)[0]), remote, RULE)
    assert (opinion.decision, opinion.outcome) == (REJECT, "failed")


def test_a_server_that_is_gone_leaves_the_local_decision():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with remote_at(f"http://127.0.0.1:{port}", timeout_s=5) as remote:
        opinion = second_opinion(REJECT, probe(unit_rows(1)[0]), remote, RULE)
    assert (opinion.decision, opinion.outcome) == (REJECT, "failed")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"subject": 7}, id="a number"),
        pytest.param({"subject": {"id": 7, "label": "", "groups": []}}, id="a number for an id"),
        pytest.param({"subject": {"id": "a\nb", "label": "", "groups": []}}, id="a newline"),
        pytest.param({"subject": {"id": "../x", "label": "", "groups": []}}, id="a path"),
        pytest.param({"subject": {"id": "a", "label": "", "groups": "staff"}}, id="groups that are no list"),
        pytest.param(
            {"subject": {"id": "a", "label": "", "groups": [], "access": {"windows": ["always"]}}},
            id="a window that is none",
        ),
    ],
)
def test_a_point_that_is_no_template_is_refused(client: QdrantClient, payload: dict):
    vectors = models.VectorParams(size=128, distance=models.Distance.COSINE)
    client.create_collection("faces", vectors_config=vectors)
    point = models.PointStruct(id=1, vector=unit_rows(1)[0].tolist(), payload={**payload, "model_id": MODEL})
    client.upsert("faces", [point])
    with (
        remote_of(client, gallery_of([1]), timeout_s=5) as remote,
        pytest.raises(RemoteGalleryError, match="remote gallery holds"),
    ):
        remote.match(probe(unit_rows(1)[0]))


def test_a_score_that_is_no_cosine_is_refused(client: QdrantClient):
    client.create_collection(
        "faces", vectors_config=models.VectorParams(size=128, distance=models.Distance.DOT)
    )
    payload = {"subject": {"id": "a", "label": "", "groups": []}, "model_id": MODEL}
    client.upsert(
        "faces",
        [models.PointStruct(id=1, vector=(ROTATION.apply(unit_rows(1)[0]) * 50).tolist(), payload=payload)],
    )
    with (
        remote_of(client, gallery_of([1]), timeout_s=5) as remote,
        pytest.raises(RemoteGalleryError, match="no cosine"),
    ):
        remote.match(probe(unit_rows(1)[0]))
