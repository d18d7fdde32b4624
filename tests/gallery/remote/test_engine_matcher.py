"""The remote gallery: in Qdrant's local mode, in PostgreSQL, and beside servers that fail or lie."""

import json
import socket
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from uuid import uuid4

import numpy as np
import pytest

from edge.core.access import Access, SubjectState
from edge.core.errors import ModelMismatchError, RemoteTimeoutError
from edge.core.types import Decision, EventType, Probe, Reason, Score, Subject
from edge.gallery.admission import Admission
from edge.gallery.decision import Calibration, DecisionRule
from edge.gallery.format.rows import rows_text
from edge.gallery.gallery import SEVERAL_PHOTOS, Gallery
from edge.gallery.matcher import DenseMatcher
from edge.gallery.remote.engine_matcher import CONTENTS, EngineMatcher, RemoteEngine, upload
from edge.gallery.remote.pgvector import PgvectorEngine
from edge.gallery.remote.qdrant import QdrantEngine
from edge.gallery.remote.question import LocalKnowledge, Opinion, RemoteGallery
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner
from edge.gallery.store.denials import Denials
from edge.gallery.store.erasure import Erased
from edge.gallery.store.store import GalleryStore
from tests.support.gallery_samples import AT, MODEL, gallery_of, probe, template, unit_rows
from tests.support.remote import Owner, PgvectorOwner, Point, QdrantOwner
from tests.support.waits import LIMIT_S, Stopwatch

pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect in the local Qdrant",
    "ignore:Local mode performs exact .* search",
)

RULE = DecisionRule(None, 0.5, 0.05, None)
REJECT = Decision(EventType.REJECT, Reason.BELOW_THRESHOLD, None, None)


ROTATION, SIGNER = Rotation(b"site", 128), RowSigner(b"site", "faces")
NOBODY = Gallery.empty(MODEL)


def second_opinion(
    local: Decision,
    face: Probe,
    remote: EngineMatcher,
    rule: DecisionRule,
    timeout_s: float = 5,
    *,
    here: Gallery = NOBODY,
    erased: Container[str] = (),
    denials: Denials | None = None,
) -> Opinion:
    asked = RemoteGallery(remote, erased, timeout_s=timeout_s, clock=monotonic, on_close=remote.close)
    question = asked.ask(local, face)
    if isinstance(question, Opinion):
        return question
    known = LocalKnowledge(here, Admission(here), rule, denials or Denials.none())
    opinion = asked.answer(question, local, known, AT, patient=True)
    assert opinion is not None
    return opinion


@pytest.fixture(params=["qdrant", "pgvector"])
def owner(request: pytest.FixtureRequest) -> Iterator[Owner]:
    """Whoever owns a server, and may do with its entries as he likes."""
    if request.param == "qdrant":
        owner: Owner = QdrantOwner()
    else:
        owner = PgvectorOwner(request.getfixturevalue("database"))
    yield owner
    owner.engine.close()


@contextmanager
def remote_of(engine: RemoteEngine, gallery: Gallery, **options) -> Iterator[EngineMatcher]:
    remote = EngineMatcher(engine, gallery, ROTATION, SIGNER, **options)
    try:
        yield remote
    finally:
        remote.close()


ENGINES = {"http": QdrantEngine.at, "postgresql": PgvectorEngine.at}


@contextmanager
def remote_at(address: str, kind: str = "http", **options) -> Iterator[EngineMatcher]:
    engine = ENGINES[kind](f"{kind}://{address}", "faces")
    try:
        with remote_of(engine, gallery_of([1]), **options) as remote:
            yield remote
    finally:
        engine.close()


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
        yield f"127.0.0.1:{listening.getsockname()[1]}", held
        listening.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()
    thread.join(LIMIT_S)


def test_the_remote_answer_is_that_of_the_same_gallery_here(owner: Owner):
    gallery = gallery_of([1, 5, 2] * 40)
    upload(owner.engine, gallery, ROTATION, SIGNER, {})
    dense = DenseMatcher(gallery)
    with remote_of(owner.engine, gallery, timeout_s=5) as remote:
        for face in (*gallery.matrix[:20], *unit_rows(20, seed=4)):
            here, there = dense.match(probe(face)), remote.match(probe(face))
            for ours, theirs in ((here.best, there.best), (here.second, there.second)):
                assert ours is not None
                assert theirs is not None
                assert theirs.subject == ours.subject
                assert theirs.score == pytest.approx(ours.score, abs=1e-5)
            assert there.gallery_size == len(gallery.matrix)
            assert there.comparisons >= here.comparisons


def test_an_upload_replaces_what_was_there(owner: Owner):
    upload(owner.engine, gallery_of([1, 1, 1]), ROTATION, SIGNER, {})
    upload(
        owner.engine,
        gallery_of([1])
        .without_subject("p-0")
        .with_subject(Subject("new", ""), [template(unit_rows(1, seed=8)[0])]),
        ROTATION,
        SIGNER,
        {},
    )
    with remote_of(owner.engine, gallery_of([1]), timeout_s=5) as remote:
        match = remote.match(probe(unit_rows(1)[0]))
    assert match.best is not None
    assert (match.best.subject.subject_id, match.second, match.gallery_size) == ("new", None, 1)


def test_an_upload_that_ends_between_two_questions_costs_no_answer(owner: Owner):
    old, new = gallery_of([1, 1]), gallery_of([1, 1, 1])
    upload(owner.engine, old, ROTATION, SIGNER, {})
    first = owner.engine.contents()

    class Exchanged:
        """The owner's engine, whose upload ends after the first question."""

        def __init__(self) -> None:
            self.told = [first]
            self.nearest = owner.engine.nearest

        def contents(self):
            return self.told.pop() if self.told else owner.engine.contents()

    upload(owner.engine, new, ROTATION, SIGNER, {})
    with remote_of(Exchanged(), new, timeout_s=5) as remote:  # type: ignore[arg-type]
        match = remote.match(probe(new.matrix[2]))
    assert match.best is not None
    assert (match.best.subject, match.gallery_size) == (new.subjects[2], 3)


def test_only_subjects_of_the_doors_groups_and_of_the_embedder_are_found(owner: Owner):
    rows = unit_rows(2)
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject("a", "", ("lab",)), [template(rows[0])]),
            (Subject("b", "", ("staff",)), [template(rows[1])]),
        ]
    )
    upload(owner.engine, gallery, ROTATION, SIGNER, {})
    with remote_of(owner.engine, gallery, groups=("staff",), timeout_s=5) as remote:
        match = remote.match(probe(rows[0]))
        assert match.best is not None
        assert (match.best.subject.subject_id, match.second, match.gallery_size) == ("b", None, 1)
        with pytest.raises(ModelMismatchError):
            remote.match(probe(rows[0], model_id="other"))
    with remote_of(owner.engine, Gallery.empty("other", dim=128), timeout_s=5) as other:
        assert other.match(probe(rows[0], model_id="other")).best is None


def test_a_probe_that_is_not_a_unit_vector_is_not_sent_and_matches_nobody(owner: Owner):
    with remote_of(owner.engine, gallery_of([1])) as remote:
        assert remote.match(probe(np.full(128, np.nan, np.float32))).best is None


def test_a_stranger_here_may_be_known_there(owner: Owner):
    far = gallery_of([1] * 50, seed=3)
    upload(owner.engine, far, ROTATION, SIGNER, {})
    face = probe(far.matrix[7])
    with remote_of(owner.engine, far, timeout_s=5) as remote:
        local = RULE.decide(DenseMatcher(gallery_of([1] * 5)).match(face))
        opinion = second_opinion(local, face, remote, RULE)
        assert opinion.outcome == "answered"
        assert opinion.decision.event_type == EventType.MATCH
        assert opinion.decision.subject == far.subjects[7]
        stranger = probe(unit_rows(1, seed=77)[0])
        opinion = second_opinion(local, stranger, remote, RULE)
        assert opinion.decision is local, "who is unknown in both keeps the local decision and its score"
        assert opinion.outcome == "answered"


def test_what_lies_there_is_rotated_by_the_site_s_secret(owner: Owner):
    gallery = gallery_of([1] * 3)
    upload(owner.engine, gallery, ROTATION, SIGNER, {})
    stored = [point.row for point in owner.points() if point.model_id is not None]
    assert len(stored) == 3
    assert max(float(gallery.matrix[0] @ np.asarray(row, np.float32)) for row in stored) < 0.5


def test_who_may_not_pass_is_not_let_in_from_there_either(owner: Owner):
    far = gallery_of([1, 1])
    expired = replace(far.subjects[0], access=Access(not_after=AT))
    upload(owner.engine, replace(far, subjects=(expired, far.subjects[1])), ROTATION, SIGNER, {})
    with remote_of(owner.engine, far, timeout_s=5) as remote:
        opinion = second_opinion(REJECT, probe(far.matrix[0]), remote, RULE)
    assert (opinion.decision.event_type, opinion.decision.reason) == (EventType.REJECT, Reason.EXPIRED)
    assert opinion.decision.subject == expired


def test_the_threshold_follows_what_was_searched_there(owner: Owner):
    upload(owner.engine, gallery_of([1] * 200), ROTATION, SIGNER, {})
    rule = DecisionRule(0.01, None, 0.0, Calibration((0.2, 0.4, 0.6), (1e-1, 1e-3, 1e-5)))
    with remote_of(owner.engine, gallery_of([1]), timeout_s=5) as remote:
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
    with server(None) as (address, held), remote_at(address) as remote:
        opinion = second_opinion(local, probe(unit_rows(1)[0]), remote, RULE)
        assert (opinion.decision, opinion.outcome) == (local, "not_asked")
        assert held == []


@pytest.mark.parametrize("kind", ENGINES)
def test_a_silent_server_costs_a_quarter_of_a_second_once_and_the_local_decision_stands(kind: str):
    face = probe(unit_rows(1)[0])
    with server(None) as (address, held), remote_at(address, kind) as remote:
        watch = Stopwatch()
        opinion = second_opinion(REJECT, face, remote, RULE, 0.25)
        wall_s, undisturbed_s = watch.wall_s, watch.undisturbed_s
        assert (opinion.decision, opinion.outcome) == (REJECT, "timeout")
        assert wall_s > 0.24
        assert undisturbed_s < 0.6
        watch = Stopwatch()
        with pytest.raises(RemoteTimeoutError, match="last question"):
            remote.match(face)
        assert watch.undisturbed_s < 0.1
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
@pytest.mark.parametrize("kind", ENGINES)
def test_a_server_that_answers_nonsense_leaves_the_local_decision(answer: bytes, kind: str):
    with server(answer) as (address, held), remote_at(address, kind, timeout_s=5) as remote:
        if not answer:
            threading.Timer(0.1, lambda: held[0].close()).start()
        opinion = second_opinion(REJECT, probe(unit_rows(1)[0]), remote, RULE)
    assert (opinion.decision, opinion.outcome) == (REJECT, "failed")


@pytest.mark.parametrize("kind", ENGINES)
def test_a_server_that_is_gone_leaves_the_local_decision(kind: str, caplog: pytest.LogCaptureFixture):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with remote_at(f"127.0.0.1:{port}", kind, timeout_s=5) as remote:
        opinion = second_opinion(REJECT, probe(unit_rows(1)[0]), remote, RULE)
    assert (opinion.decision, opinion.outcome) == (REJECT, "failed")
    assert "onnection refused" in caplog.text


def of_subject(owner: Owner, number: int) -> Point:
    return next(each for each in owner.points() if f'"p-{number}"' in each.said)


def contents_of(owner: Owner) -> Point:
    return next(each for each in owner.points() if each.model_id is None)


def forge_subject(owner: Owner) -> None:
    point = of_subject(owner, 0)
    owner.put(replace(point, said=point.said.replace("p-0", "p-9")))


def lend_a_row(owner: Owner) -> None:
    """The attacker's own face under a subject that is there: he knows the rotated row of his probe."""
    point, row = of_subject(owner, 0), ROTATION.apply(unit_rows(1, seed=99)[0])
    said = json.dumps(json.loads(point.said) | {"row": rows_text(row)})
    owner.put(replace(point, said=said, row=row.tolist()))


def unsigned(owner: Owner) -> None:
    said = json.dumps({"subject": {"id": "a", "label": "", "groups": []}, "model_id": MODEL})
    owner.put(Point(str(uuid4()), said, "", MODEL, unit_rows(1)[0].tolist(), ()))


def forge_the_number(owner: Owner) -> None:
    contents = contents_of(owner)
    owner.put(replace(contents, said=contents.said.replace('"templates":3', '"templates":0')))


def no_contents(owner: Owner) -> None:
    owner.delete(str(CONTENTS))


def mix_two_uploads(owner: Owner) -> None:
    old = of_subject(owner, 1)
    upload(owner.engine, gallery_of([1] * 3), ROTATION, SIGNER, {})
    owner.put(old)


def contents_as_a_template(owner: Owner) -> None:
    row = ROTATION.apply(unit_rows(1)[0]).tolist()
    owner.put(replace(contents_of(owner), id=str(uuid4()), model_id=MODEL, row=row))


def another_site(owner: Owner) -> None:
    upload(owner.engine, gallery_of([1] * 3), ROTATION, RowSigner(b"other", "faces"), {})


def another_collection(owner: Owner) -> None:
    upload(owner.engine, gallery_of([1] * 3), ROTATION, RowSigner(b"site", "visitors"), {})


@pytest.mark.parametrize(
    "attack",
    [
        forge_subject,
        lend_a_row,
        unsigned,
        forge_the_number,
        no_contents,
        mix_two_uploads,
        contents_as_a_template,
        another_site,
        another_collection,
    ],
)
def test_whoever_owns_the_server_cannot_make_it_say_what_the_site_did_not(
    owner: Owner, attack: Callable[[Owner], None], caplog: pytest.LogCaptureFixture
):
    upload(owner.engine, gallery_of([1] * 3), ROTATION, SIGNER, {})
    attack(owner)
    with remote_of(owner.engine, gallery_of([1]), timeout_s=5) as remote:
        for face in (gallery_of([1] * 3).matrix[0], unit_rows(1, seed=99)[0]):
            opinion = second_opinion(REJECT, probe(face), remote, RULE)
            assert (opinion.decision, opinion.outcome) == (REJECT, "failed")
    assert "upload it again" in caplog.text or "another entry" in caplog.text


def test_the_score_is_that_of_the_signed_row_whatever_the_server_did_to_its_vectors(owner: Owner):
    gallery, face = gallery_of([1] * 3), unit_rows(1, seed=99)[0]
    upload(owner.engine, gallery, ROTATION, SIGNER, {})
    owner.put(replace(of_subject(owner, 0), row=ROTATION.apply(face).tolist()))
    with remote_of(owner.engine, gallery, timeout_s=5) as remote:
        best = remote.match(probe(face)).best
        assert best is not None
        assert best.score == pytest.approx(
            float(DenseMatcher(gallery).match(probe(face)).best.score), abs=1e-5
        )
        assert second_opinion(REJECT, probe(face), remote, RULE).decision is REJECT


def test_who_was_removed_here_does_not_come_back_from_there(owner: Owner, tmp_path: Path):
    store = GalleryStore(tmp_path / "gallery", keep_versions=5)
    everybody = store.commit(gallery_of([1, 1, 1]))
    upload(owner.engine, everybody, ROTATION, SIGNER, {})
    erased, face = Erased([tmp_path / "gallery"]), probe(everybody.matrix[0])
    with remote_of(owner.engine, everybody, timeout_s=5) as remote:
        before = second_opinion(REJECT, face, remote, RULE, erased=erased)
        assert before.decision.subject == everybody.subjects[0], "only there"
        left = store.commit(everybody.without_subject("p-0"))
        after = second_opinion(REJECT, face, remote, RULE, here=left, erased=erased)
        assert (after.decision, after.outcome) == (REJECT, "answered")
        stays = second_opinion(REJECT, probe(everybody.matrix[1]), remote, RULE, erased=erased)
        assert stays.decision.subject == everybody.subjects[1]


def test_where_it_cannot_be_read_who_was_removed_nobody_comes_from_there(owner: Owner, tmp_path: Path):
    upload(owner.engine, gallery_of([1]), ROTATION, SIGNER, {})
    (tmp_path / "erasures.jsonl").mkdir()
    with remote_of(owner.engine, gallery_of([1]), timeout_s=5) as remote:
        opinion = second_opinion(
            REJECT, probe(gallery_of([1]).matrix[0]), remote, RULE, erased=Erased([tmp_path])
        )
    assert (opinion.decision, opinion.outcome) == (REJECT, "failed")


@pytest.mark.parametrize("access", [Access(SubjectState.SUSPENDED), Access(not_after=AT), Access()])
def test_who_is_enrolled_here_is_judged_here_alone(owner: Owner, access: Access):
    far = gallery_of([1, 1])
    upload(owner.engine, far, ROTATION, SIGNER, {})
    subject = replace(far.subjects[0], access=access)
    here = NOBODY.with_subject(subject, [template(unit_rows(1, seed=5)[0])])
    with remote_of(owner.engine, far, timeout_s=5) as remote:
        local = RULE.decide(DenseMatcher(here).match(probe(far.matrix[0])))
        opinion = second_opinion(local, probe(far.matrix[0]), remote, RULE, here=here)
    assert (opinion.decision, opinion.outcome) == (local, "answered")


def test_who_is_nearly_as_alike_to_somebody_here_is_ambiguous(owner: Owner):
    far = gallery_of([1])
    upload(owner.engine, far, ROTATION, SIGNER, {})
    with remote_of(owner.engine, far, timeout_s=5) as remote:
        for best, second, says in (
            (0.97, 0.1, Reason.AMBIGUOUS),
            (0.1, 0.97, Reason.AMBIGUOUS),
            (0.9, 0.9, None),
        ):
            local = replace(REJECT, score=Score(best, second, 0.99, 0.05, None, 2))
            decision = second_opinion(local, probe(far.matrix[0]), remote, RULE).decision
            assert decision.reason == says
            if says:
                assert (decision.subject, decision.score and decision.score.second) == (None, 0.97)


def test_who_was_denied_to_be_a_subject_is_not_taken_for_it_there(owner: Owner):
    far = gallery_of([1])
    upload(owner.engine, far, ROTATION, SIGNER, {})
    face = probe(far.matrix[0])
    with remote_of(owner.engine, far, timeout_s=5) as remote:
        opinion = second_opinion(REJECT, face, remote, RULE, denials=Denials.none().plus("p-0", face))
    assert opinion.decision.reason == Reason.AMBIGUOUS


def test_an_upload_says_who_looks_like_several_others_and_doors_ask_for_a_higher_score(owner: Owner):
    far = gallery_of([1, 2])
    upload(owner.engine, far, ROTATION, SIGNER, {"p-1": 0.2})
    with remote_of(owner.engine, far, timeout_s=5) as remote:
        found = [remote.match(probe(row)).best for row in far.matrix]
    assert [each and each.own_shift for each in found] == [0.0, 0.2, 0.2]
