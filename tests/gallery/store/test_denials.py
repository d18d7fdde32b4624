"""Who was said not to be whom: sealed, and heeded only where nobody could tell the two apart."""

import base64
import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from edge.core import files
from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.core.metrics import Metrics
from edge.core.types import EventType, FloatArray, Match, Reason, ScoredSubject, Subject
from edge.device.galleries import DenialWatch
from edge.gallery.decision import DecisionRule
from edge.gallery.format.seal import seal
from edge.gallery.store import denials as module
from edge.gallery.store.denials import Denials, DenialStore
from edge.gallery.store.sealed import device_key
from tests.support.gallery_samples import MODEL, probe, unit_rows
from tests.support.waits import Stopwatch

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OTHER = "other@12345678"
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
    match = Match(ScoredSubject(Subject("p-1", ""), best), None, 1, 1, denied=denied)
    decision = RULE.decide(match)
    assert decision.event_type == event_type
    assert decision.reason == (Reason.AMBIGUOUS if event_type == EventType.REJECT else None)


def test_who_is_not_recognised_is_a_stranger_whatever_was_denied():
    match = Match(ScoredSubject(Subject("p-1", ""), 0.3), None, 1, 1, denied=0.9)
    assert RULE.decide(match).reason == Reason.BELOW_THRESHOLD


@pytest.fixture
def store(tmp_path: Path) -> DenialStore:
    return DenialStore(tmp_path / "denials.sealed", tmp_path / "device.key")


def deny(store: DenialStore, subject_id: str, row: FloatArray, model_id: str = MODEL) -> None:
    store.change(lambda denials: denials.plus(subject_id, probe(row, model_id)))


def test_denials_come_back_and_are_sealed(store: DenialStore, tmp_path: Path):
    rows = unit_rows(3)
    assert store.stamp() == 0
    for subject_id, row in zip(("p-1", "p-1", "p-2"), rows, strict=True):
        deny(store, subject_id, row)
    found = store.load()
    assert {key: value.tobytes() for key, value in found.rows[MODEL].items()} == {
        "p-1": rows[:2].tobytes(),
        "p-2": rows[2:].tobytes(),
    }
    assert found.score("p-1", probe(rows[1])) == pytest.approx(1.0)
    assert found.score("p-3", probe(rows[1])) is None
    assert found.score("p-1", probe(rows[1], OTHER)) is None
    assert b"p-1" not in (tmp_path / "denials.sealed").read_bytes()
    assert store.stamp() != 0
    store.change(lambda denials: denials.of(["p-2"]))
    assert store.load().counts() == {"p-2": 1}


def test_another_embedder_and_the_way_back_lose_no_denial(store: DenialStore):
    here, there = unit_rows(1)[0], unit_rows(1, 64)[0]
    deny(store, "p-1", here)
    deny(store, "p-2", there, OTHER)
    deny(store, "p-1", there, OTHER)
    found = store.load()
    assert found.counts() == {"p-1": 2, "p-2": 1}
    assert found.score("p-1", probe(here)) == pytest.approx(1.0)
    assert found.score("p-1", probe(there, OTHER)) == pytest.approx(1.0)
    assert found.score("p-2", probe(here)) is None
    store.change(lambda denials: denials.of(["p-2"]))
    assert store.load().counts() == {"p-2": 1}, "who is removed is removed from every embedder's"


def test_denials_of_an_earlier_release_are_read(store: DenialStore, tmp_path: Path):
    deny(store, "p-0", unit_rows(1)[0])
    rows = unit_rows(2)
    said = {"model_id": MODEL, "dim": 128, "rows": {"p-1": base64.b64encode(rows.tobytes()).decode()}}
    key = device_key(tmp_path / "device.key", make=False)
    (tmp_path / "denials.sealed").write_bytes(seal(json.dumps(said).encode(), key, module.BINDING))
    assert store.load().counts() == {"p-1": 2}
    nobody = {"model_id": "", "dim": 0, "rows": {}}
    (tmp_path / "denials.sealed").write_bytes(seal(json.dumps(nobody).encode(), key, module.BINDING))
    assert store.load().counts() == {}


def test_who_denies_at_once_loses_nothing(tmp_path: Path):
    rows = unit_rows(40)

    def deny_some(first: int) -> None:
        own = DenialStore(tmp_path / "denials.sealed", tmp_path / "device.key")
        for number in range(first, first + 10):
            deny(own, f"p-{number}", rows[number])

    deny_some(0)
    threads = [threading.Thread(target=deny_some, args=(first,)) for first in (10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(DenialStore(tmp_path / "denials.sealed", tmp_path / "device.key").load().counts()) == 40


def test_what_is_damaged_is_set_aside_under_another_name_and_goes_with_a_purge(
    store: DenialStore, tmp_path: Path
):
    deny(store, "p-1", unit_rows(1)[0])
    assert store.set_aside() is None
    for name in ("denials.sealed.damaged", "denials.sealed.damaged-1"):
        (tmp_path / "denials.sealed").write_bytes(name.encode())
        assert store.set_aside() == tmp_path / name
        assert (tmp_path / name).read_bytes() == name.encode()
    assert store.load().counts() == {}
    deny(store, "p-1", unit_rows(1)[0])
    store.purge()
    assert [path.name for path in tmp_path.iterdir() if "sealed" in path.name] == []


@pytest.mark.parametrize("harm", [b"torn", b"x" * (module.MAX_BYTES + 1)], ids=["damaged", "too large"])
def test_a_running_door_keeps_the_last_good_denials_and_one_that_starts_serves(
    store: DenialStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: bytes
):
    deny(store, "p-1", unit_rows(1)[0])
    metrics, running = Metrics(), Door(store.load())
    follower = DenialWatch(store, metrics)
    (tmp_path / "denials.sealed").write_bytes(harm)
    for _ in range(3):
        assert follower.look(running) is None  # type: ignore[arg-type]
    assert metrics.counts() == {"denials.refused": 1}
    assert "denials refused" in caplog.text
    assert (tmp_path / "denials.sealed.damaged").exists() == (harm == b"torn")
    again = DenialWatch(store, metrics)
    assert again.look(Door(Denials.none())) is None  # type: ignore[arg-type]
    (tmp_path / "denials.sealed").unlink(missing_ok=True)
    deny(store, "p-2", unit_rows(1)[0])
    found = follower.look(running)  # type: ignore[arg-type]
    assert found is not None
    assert found.denials.counts() == {"p-2": 1}


@dataclass(frozen=True)
class Door:
    """In the place of a recognizer."""

    denials: Denials


def test_what_was_set_aside_stays_in_force_when_another_store_is_watched(store: DenialStore, tmp_path: Path):
    deny(store, "p-1", unit_rows(1)[0])
    follower, running = DenialWatch(store, Metrics()), Door(store.load())
    (tmp_path / "denials.sealed").write_bytes(b"torn")
    follower.look(running)  # type: ignore[arg-type]
    follower.watch(store)
    assert follower.look(running) is None  # type: ignore[arg-type]


def test_damaged_denials_that_somebody_is_at_are_set_aside_later_and_nobody_waits(
    store: DenialStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    deny(store, "p-1", unit_rows(1)[0])
    metrics = Metrics()
    follower, running = DenialWatch(store, metrics), Door(store.load())
    (tmp_path / "denials.sealed").write_bytes(b"torn")
    with files.sole_user(tmp_path / "denials.lock", 0, time.monotonic):
        watch = Stopwatch()
        for _ in range(3):
            assert follower.look(running) is None  # type: ignore[arg-type]
        assert watch.undisturbed_s < 2
        assert not (tmp_path / "denials.sealed.damaged").exists()
    assert caplog.text.count("cannot be set aside") == 1
    assert follower.look(running) is None  # type: ignore[arg-type]
    assert (tmp_path / "denials.sealed.damaged").exists()
    assert metrics.counts() == {"denials.refused": 1}
    deny(store, "p-2", unit_rows(1)[0])
    found = follower.look(running)  # type: ignore[arg-type]
    assert found is not None
    assert found.denials.counts() == {"p-2": 1}


def test_there_is_an_end_to_denials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_DENIALS", 1)
    denials = Denials.none().plus("p-1", probe(unit_rows(1)[0]))
    with pytest.raises(GalleryError, match="more than 1"):
        denials.plus("p-1", probe(unit_rows(1)[0]))


@pytest.mark.parametrize("harm", ["flip", "truncate", "plain", "other key"])
def test_what_was_altered_is_not_taken_for_none(store: DenialStore, tmp_path: Path, harm: str):
    deny(store, "p-1", unit_rows(1)[0])
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
        deny(DenialStore(tmp_path / "other", tmp_path / "device.key"), "p-1", unit_rows(1)[0])
    with pytest.raises(GalleryIntegrityError, match="damaged"):
        store.load()
    with pytest.raises(GalleryIntegrityError, match="damaged"):
        deny(store, "p-2", unit_rows(1)[0])


def test_rows_that_are_no_unit_rows_are_refused(store: DenialStore):
    store.change(lambda _: Denials({MODEL: {"p-1": np.ones((1, 4), np.float32)}}))
    with pytest.raises(GalleryIntegrityError):
        store.load()
