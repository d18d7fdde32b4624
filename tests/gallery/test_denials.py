"""Who was said not to be whom: sealed, and heeded only where nobody could tell the two apart."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from edge.errors import GalleryError, GalleryIntegrityError
from edge.gallery import denials as module
from edge.gallery.decision import DecisionRule
from edge.gallery.denials import Denials, DenialStore
from edge.types import Candidate, EventType, Match, Reason, Subject
from tests.gallery.samples import MODEL, probe, unit_rows

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RULE = DecisionRule(None, 0.5, 0.05, None)


@pytest.mark.parametrize(
    ("best", "denied", "event_type"),
    [
        pytest.param(0.6, None, EventType.MATCH, id="nobody denied"),
        pytest.param(0.6, 0.4, EventType.MATCH, id="the denied face is another"),
        pytest.param(0.6, 0.55, EventType.MATCH, id="more like the subject"),
        pytest.param(0.6, 0.6, EventType.REJECT, id="like both"),
        pytest.param(0.6, 0.9, EventType.REJECT, id="the denied face itself"),
        pytest.param(0.6, float("nan"), EventType.MATCH, id="NaN"),
    ],
)
def test_only_who_is_as_alike_to_the_denied_face_is_rejected(
    best: float, denied: float | None, event_type: EventType
):
    match = Match(Candidate(Subject("p-1", ""), best), None, 1, 1, denied=denied)
    decision = RULE.decide(match)
    assert decision.event_type == event_type
    assert decision.reason == (Reason.AMBIGUOUS if event_type == EventType.REJECT else None)


def test_who_is_not_recognised_is_a_stranger_whatever_was_denied():
    match = Match(Candidate(Subject("p-1", ""), 0.3), None, 1, 1, denied=0.9)
    assert RULE.decide(match).reason == Reason.BELOW_THRESHOLD


@pytest.fixture
def store(tmp_path: Path) -> DenialStore:
    return DenialStore(tmp_path / "denials.sealed", tmp_path / "device.key")


def test_denials_come_back_and_are_sealed(store: DenialStore, tmp_path: Path):
    rows = unit_rows(3)
    assert store.stamp() == 0
    denials = (
        Denials.none().plus("p-1", probe(rows[0])).plus("p-1", probe(rows[1])).plus("p-2", probe(rows[2]))
    )
    store.save(denials)
    found = store.load()
    assert found.model_id == MODEL
    assert {key: value.tobytes() for key, value in found.rows.items()} == {
        "p-1": rows[:2].tobytes(),
        "p-2": rows[2:].tobytes(),
    }
    assert found.score("p-1", probe(rows[1])) == pytest.approx(1.0)
    assert found.score("p-3", probe(rows[1])) is None
    assert found.score("p-1", probe(rows[1], "other@12345678")) is None
    assert b"p-1" not in (tmp_path / "denials.sealed").read_bytes()
    assert store.stamp() != 0
    store.save(found.of(["p-2"]))
    assert list(store.load().rows) == ["p-2"]


def test_a_new_embedder_begins_anew():
    denials = Denials.none().plus("p-1", probe(unit_rows(1)[0]))
    again = denials.plus("p-2", probe(unit_rows(1, 64)[0], "other@12345678"))
    assert list(again.rows) == ["p-2"]


def test_there_is_an_end_to_denials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_DENIALS", 1)
    denials = Denials.none().plus("p-1", probe(unit_rows(1)[0]))
    with pytest.raises(GalleryError, match="more than 1"):
        denials.plus("p-1", probe(unit_rows(1)[0]))


@pytest.mark.parametrize("harm", ["flip", "truncate", "plain", "other key"])
def test_what_was_altered_is_not_taken_for_none(store: DenialStore, tmp_path: Path, harm: str):
    store.save(Denials.none().plus("p-1", probe(unit_rows(1)[0])))
    path = tmp_path / "denials.sealed"
    data = path.read_bytes()
    if harm == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "truncate":
        path.write_bytes(data[:40])
    elif harm == "plain":
        path.write_bytes(b'{"rows":{}}')
    else:
        (tmp_path / "device.key").unlink()
        DenialStore(tmp_path / "other", tmp_path / "device.key").save(Denials.none())
    with pytest.raises(GalleryIntegrityError, match="damaged"):
        store.load()


def test_rows_that_are_no_unit_rows_are_refused(store: DenialStore):
    store.save(Denials(MODEL, {"p-1": np.ones((1, 4), np.float32)}))
    with pytest.raises(GalleryIntegrityError):
        store.load()
