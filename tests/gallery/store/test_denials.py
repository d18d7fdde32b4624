"""Who was said not to be whom: sealed, and heeded only where nobody could tell the two apart."""

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from edge.core import files
from edge.core.errors import FileError, GalleryError, GalleryIntegrityError
from edge.core.metrics import Metrics
from edge.core.types import EventType, FloatArray, Match, Reason, ScoredSubject, Subject
from edge.device.galleries import DenialWatch
from edge.gallery.decision import DecisionRule
from edge.gallery.format.removed import subject_hash
from edge.gallery.format.seal import seal
from edge.gallery.store import denials as module
from edge.gallery.store.denials import Denials, DenialStore
from edge.gallery.store.erasure import ANYBODY
from edge.gallery.store.sealed import device_key
from tests.gallery.store.test_store_power import disks
from tests.support.gallery_samples import MODEL, probe, unit_rows
from tests.support.powercuts import recorded
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
def test_a_running_door_keeps_the_last_good_denials_and_one_that_starts_bars_whoever_had_some(
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
    assert follower.problems(running) == ["denials_lost"]  # type: ignore[arg-type]
    assert store.lost().lost == {subject_hash("p-1")}, "by which a door starts"
    (tmp_path / "denials.sealed").unlink(missing_ok=True)
    deny(store, "p-2", unit_rows(1)[0])
    found = follower.look(running)  # type: ignore[arg-type]
    assert found is not None
    assert found.denials.counts() == {"p-2": 1}
    assert found.denials.is_lost("p-1"), "which another denial does not mend"
    assert follower.problems(found) == ["denials_lost"]


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


def decided(denials: Denials, subject_id: str, row: FloatArray) -> Reason | None:
    """Return why a face that scores .9 with a subject is no match of it."""
    denied = denials.score(subject_id, probe(row))
    return RULE.decide(Match(ScoredSubject(Subject(subject_id, ""), 0.9), None, 1, 1, denied=denied)).reason


def lose(store: DenialStore, tmp_path: Path, how: str) -> Denials:
    """Lose the denials in one of many ways, and return by which a door starts."""
    path = tmp_path / "denials.sealed"
    match how:
        case "deleted":
            path.unlink()
        case "torn":
            path.write_bytes(path.read_bytes()[:40])
        case "a directory":
            path.unlink()
            path.mkdir()
        case "set aside":
            path.write_bytes(b"torn")
            store.set_aside()
    try:
        return store.load()
    except (GalleryIntegrityError, FileError):
        return store.lost()


@pytest.mark.parametrize("how", ["deleted", "torn", "a directory", "set aside"])
def test_where_denials_are_lost_whoever_had_some_is_ambiguous_and_nobody_else(
    store: DenialStore, tmp_path: Path, how: str
):
    mine, other = unit_rows(2)
    deny(store, "p-1", other)
    assert decided(store.load(), "p-1", mine) is None
    found = lose(store, tmp_path, how)
    assert decided(found, "p-1", mine) == Reason.AMBIGUOUS
    assert decided(found, "p-2", mine) is None


@pytest.mark.parametrize(
    "harm", [lambda path: path.write_bytes(b"torn"), lambda path: (path.unlink(), path.mkdir())]
)
def test_where_it_is_not_known_who_had_denials_everybody_is_ambiguous(
    store: DenialStore, tmp_path: Path, harm: Callable[[Path], object]
):
    deny(store, "p-1", unit_rows(1)[0])
    harm(tmp_path / "denied.json")
    assert decided(store.load(), "p-2", unit_rows(1)[0]) is None, "while the denials can be read nobody asks"
    found = lose(store, tmp_path, "deleted")
    assert decided(found, "p-2", unit_rows(1)[0]) == Reason.AMBIGUOUS


def test_damaged_denials_of_an_earlier_release_make_everybody_ambiguous(store: DenialStore, tmp_path: Path):
    deny(store, "p-1", unit_rows(1)[0])
    (tmp_path / "denied.json").unlink()
    assert lose(store, tmp_path, "set aside").lost == {ANYBODY}


def test_who_has_denials_is_remembered_by_a_door_that_an_earlier_release_left(
    store: DenialStore, tmp_path: Path
):
    deny(store, "p-1", unit_rows(1)[0])
    (tmp_path / "denied.json").unlink()
    DenialWatch(store, Metrics()).look(Door(Denials.none()))  # type: ignore[arg-type]
    assert lose(store, tmp_path, "deleted").is_lost("p-1")


def test_what_is_lost_stays_so_until_it_is_dropped_by_name_or_at_once(store: DenialStore, tmp_path: Path):
    for subject_id in ("p-1", "p-2", "p-3"):
        deny(store, subject_id, unit_rows(1)[0])
    lose(store, tmp_path, "deleted")
    deny(store, "p-1", unit_rows(1)[0])
    assert [store.load().is_lost(each) for each in ("p-1", "p-2", "p-3")] == [True, True, True]
    store.change(lambda denials: denials.found({"p-1"}))
    assert store.load().counts() == {"p-1": 1}
    store.change(lambda denials: denials.without({"p-2"}))
    assert [store.load().is_lost(each) for each in ("p-1", "p-2", "p-3")] == [False, False, True]
    lose(store, tmp_path, "deleted")
    assert [store.load().is_lost(each) for each in ("p-1", "p-2", "p-3")] == [True, False, True]
    store.change(lambda denials: denials.found())
    assert store.load().lost == frozenset()
    assert lose(store, tmp_path, "deleted").lost == frozenset()


def test_denials_that_were_restored_are_in_force_again(store: DenialStore, tmp_path: Path):
    mine, other = unit_rows(2)
    deny(store, "p-1", other)
    kept = (tmp_path / "denials.sealed").read_bytes()
    metrics = Metrics()
    follower, door = DenialWatch(store, metrics), Door(store.load())
    assert follower.look(door) is None  # type: ignore[arg-type]
    (tmp_path / "denials.sealed").unlink()
    without = follower.look(door)  # type: ignore[arg-type]
    assert without is not None
    assert follower.problems(without) == ["denials_lost"]
    (tmp_path / "denials.sealed").write_bytes(kept)
    again = follower.look(without)
    assert again is not None
    assert follower.problems(again) == []
    assert decided(again.denials, "p-1", mine) is None
    assert decided(again.denials, "p-1", other) == Reason.AMBIGUOUS


def test_after_a_power_cut_no_denial_is_forgotten_and_nobody_is_lost(tmp_path: Path):
    state = tmp_path / "state"
    state.mkdir()
    one, two = unit_rows(2)

    def store_in(directory: Path) -> DenialStore:
        return DenialStore(directory / "denials.sealed", directory / "device.key")

    deny(store_in(state), "p-1", one)
    with recorded(state) as recorder:
        deny(store_in(state), "p-2", two)
        recorder.done = True
        recorder.look()
    seen = set()
    for done, copy in disks(recorder, tmp_path):
        found = store_in(copy).load()
        assert found.lost == frozenset()
        assert found.counts() == {"p-1": 1, "p-2": 1} if done else "p-1" in found.counts()
        gone = lose(store_in(copy), copy, "deleted")
        assert gone.lost >= found.known
        seen.add(len(found.counts()))
    assert seen == {1, 2}
