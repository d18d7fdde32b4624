"""Visits of strangers on the disk: sealed, bounded, gone in time; and grouped by face."""

import base64
import json
import logging
import os
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import EdgeError, FileError
from edge.core.types import Decision, EventType, Quality, Reason, Subject
from edge.gallery.format.seal import Binding, seal
from edge.gallery.store import kept_visits as visits
from edge.gallery.store.kept_visits import KeptVisit, VisitStore, group
from edge.gallery.store.sealed import device_key
from tests.support.gallery_samples import MODEL, probe, unit_rows

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FACES = unit_rows(5, seed=9)


def visit(number: int, face: int = 0, *, at: datetime = NOW, noise: float = 0.0) -> KeptVisit:
    row = FACES[face] + noise * unit_rows(1, seed=number)[0]
    embedding = (row / np.linalg.norm(row)).astype(np.float32)
    return KeptVisit(f"v-{number:04x}", "front", at, probe(embedding))


@pytest.fixture
def store(tmp_path: Path) -> VisitStore:
    return VisitStore(tmp_path / "strangers", tmp_path / "device.key", 24 * HOUR)


def ids(found: list[KeptVisit]) -> list[str]:
    return [each.visit_id for each in found]


def test_a_visit_comes_back_as_it_was(store: VisitStore, tmp_path: Path):
    store.put(visit(1))
    [found] = store.load(NOW)
    assert (found.visit_id, found.camera, found.at) == ("v-0001", "front", NOW)
    assert found.probe.embedding.tobytes() == visit(1).probe.embedding.tobytes()
    assert found.probe.quality == visit(1).probe.quality
    [path] = (tmp_path / "strangers").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert MODEL.encode() not in path.read_bytes()
    assert visit(1).probe.embedding.tobytes()[:16] not in path.read_bytes()


def test_a_picture_is_sealed_in_the_file_of_its_visit_and_goes_with_it(store: VisitStore, tmp_path: Path):
    picture = np.full((240, 240, 3), 90, np.uint8)
    picture[60:180, 60:180] = 200
    store.put(replace(visit(1), picture=picture))
    store.put(replace(visit(2), picture=np.random.default_rng(1).integers(0, 256, picture.shape, np.uint8)))
    store.put(visit(3))
    first, noise, without = store.load(NOW)
    assert (first.picture, store.picture(without)) == (None, None)
    seen = store.picture(first)
    assert seen is not None
    assert float(np.abs(seen.astype(int) - picture).mean()) < 3
    assert store.picture(noise) is not None
    assert not any(b"JFIF" in path.read_bytes() for path in (tmp_path / "strangers").iterdir())
    assert store.remove(["v-0001"]) == 1
    assert store.picture(first) is None
    store.expire(NOW + 25 * HOUR)
    assert list((tmp_path / "strangers").iterdir()) == []


def test_a_visit_that_the_version_before_has_kept_is_read(store: VisitStore, tmp_path: Path):
    store.put(visit(2))
    document = {
        "camera": "front",
        "model_id": MODEL,
        "quality": [80.0, 0.8, -3.0, 0.7, 0.9, 0.5],
        "embedding": base64.b64encode(FACES[0].astype("<f4").tobytes()).decode(),
    }
    at_ms = int(NOW.timestamp() * 1000)
    key = device_key(tmp_path / "device.key", make=False)
    data = seal(json.dumps(document).encode(), key, Binding("visit", "v-0001", "", at_ms))
    (tmp_path / "strangers" / f"{at_ms}-v-0001.kept").write_bytes(data)
    found = store.load(NOW)[0]
    assert (found.visit_id, found.camera, found.at, found.taken_for) == ("v-0001", "front", NOW, "")
    assert found.probe.quality == Quality(80.0, 0.8, -3.0, 0.7, 0.9, 0.5)
    assert found.probe.embedding.tobytes() == FACES[0].tobytes()


def test_what_is_too_old_is_gone_and_where_nothing_is_kept_all_of_it(store: VisitStore, tmp_path: Path):
    for number, hours in enumerate((30, 23, 1)):
        store.put(visit(number, at=NOW - hours * HOUR))
    assert ids(store.load(NOW)) == ["v-0001", "v-0002"]
    off = VisitStore(tmp_path / "strangers", tmp_path / "device.key", timedelta(0))
    off.put(visit(7))
    off.expire(NOW)
    assert list((tmp_path / "strangers").iterdir()) == []


def test_a_match_comes_back_with_the_subject_that_it_was_taken_for(store: VisitStore, tmp_path: Path):
    store.put(replace(visit(1), taken_for="p-1"))
    store.put(visit(2))
    assert [(each.visit_id, each.taken_for) for each in store.load(NOW)] == [
        ("v-0001", "p-1"),
        ("v-0002", ""),
    ]
    assert all(b"p-1" not in path.read_bytes() for path in (tmp_path / "strangers").iterdir())
    store.expire(NOW + 25 * HOUR)
    assert list((tmp_path / "strangers").iterdir()) == []


P_1 = Subject("p-1", "Alice")


@pytest.mark.parametrize(
    ("decision", "taken_for"),
    [
        pytest.param(Decision(EventType.MATCH, None, P_1, None), "p-1", id="a match"),
        pytest.param(Decision(EventType.REJECT, Reason.BELOW_THRESHOLD, None, None), "", id="a stranger"),
        pytest.param(Decision(EventType.REJECT, Reason.AMBIGUOUS, None, None), "", id="like two subjects"),
        pytest.param(Decision(EventType.REJECT, Reason.GALLERY_EMPTY, None, None), "", id="nobody enrolled"),
        pytest.param(Decision(EventType.REJECT, Reason.EXPIRED, P_1, None), None, id="known and barred"),
        pytest.param(Decision(EventType.SPOOF, Reason.SPOOF, None, None), None, id="a printed photo"),
        pytest.param(
            Decision(EventType.NO_DECISION, Reason.LOW_QUALITY, None, None), None, id="nothing seen"
        ),
    ],
)
def test_only_strangers_and_matches_are_kept(decision: Decision, taken_for: str | None):
    kept = KeptVisit.of("v-1", "front", NOW, probe(FACES[0]), decision)
    assert (None if kept is None else kept.taken_for) == taken_for


def test_matches_do_not_push_strangers_out(store: VisitStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(visits, "MAX_VISITS", 2)
    store.put(visit(1))
    for number in range(2, 6):
        store.put(replace(visit(number, at=NOW + number * timedelta(seconds=1)), taken_for="p-1"))
    assert ids(store.load(NOW)) == ["v-0001", "v-0004", "v-0005"]


def test_the_oldest_make_room(store: VisitStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(visits, "MAX_VISITS", 3)
    for number in range(5):
        store.put(visit(number, at=NOW + number * timedelta(seconds=1)))
    assert ids(store.load(NOW)) == ["v-0002", "v-0003", "v-0004"]


def test_what_was_altered_or_is_another_devices_is_deleted(
    store: VisitStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for number in range(3):
        store.put(visit(number, at=NOW + number * timedelta(seconds=1)))
    first, second, _ = sorted((tmp_path / "strangers").iterdir())
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    second.rename(second.with_name(second.name.replace("v-0001", "v-00ff")))
    with caplog.at_level(logging.WARNING):
        assert ids(store.load(NOW)) == ["v-0002"]
    assert caplog.text.count("cannot be read") == 2
    (tmp_path / "device.key").unlink()
    VisitStore(tmp_path / "other", tmp_path / "device.key", HOUR).put(visit(9))
    assert ids(store.load(NOW)) == []


def test_visits_are_removed_by_their_id(store: VisitStore):
    for number in range(3):
        store.put(visit(number, at=NOW + number * timedelta(seconds=1)))
    assert store.remove(["v-0001", "v-beef"]) == 1
    assert ids(store.load(NOW)) == ["v-0000", "v-0002"]


def test_foreign_files_are_left_alone(store: VisitStore, tmp_path: Path):
    store.put(visit(1))
    (tmp_path / "strangers" / "notes.txt").write_text("mine")
    store.expire(NOW + 48 * HOUR)
    assert [path.name for path in (tmp_path / "strangers").iterdir()] == ["notes.txt"]


def test_visits_of_one_face_are_one_stranger():
    seen = [
        visit(number, face, at=NOW + number * HOUR, noise=0.02)
        for number, face in enumerate((0, 1, 0, 2, 0, 1))
    ]
    found = group(seen, 0.5)
    assert [ids(list(each.visits)) for each in found] == [
        ["v-0001", "v-0005"],
        ["v-0000", "v-0002", "v-0004"],
        ["v-0003"],
    ]


def test_the_best_visit_has_the_best_quality():
    poor, good = visit(1), visit(2)
    good = replace(good, probe=replace(good.probe, quality=replace(good.probe.quality, weight=0.9)))
    assert group([poor, good], 0.5)[0].best is good


def test_visits_of_another_embedder_stay_apart():
    other = visit(2)
    other = replace(
        other, probe=replace(other.probe, model_id="other@12345678", embedding=unit_rows(1, 64)[0])
    )
    assert len(group([visit(1), other], 0.5)) == 2


STAMPS = {
    "a clock without a battery": datetime(1970, 1, 2, tzinfo=UTC),
    "the moment 0": datetime(1970, 1, 1, tzinfo=UTC),
    "before September 2001": datetime(2001, 9, 8, tzinfo=UTC),
    "years ahead": datetime(2036, 1, 2, tzinfo=UTC),
    "in the year 9999": datetime(9999, 12, 31, tzinfo=UTC),
    "more than the slack ahead": NOW + visits.CLOCK_SLACK + timedelta(seconds=1),
}


@pytest.mark.parametrize("at", STAMPS.values(), ids=STAMPS)
def test_what_a_wrong_clock_has_stamped_goes_too(store: VisitStore, tmp_path: Path, at: datetime):
    store.put(visit(1, at=at))
    store.put(visit(2))
    assert ids(store.load(NOW)) == ["v-0002"]
    assert len(list((tmp_path / "strangers").iterdir())) == 1


@pytest.mark.parametrize("at", STAMPS.values(), ids=STAMPS)
def test_whatever_a_clock_says_all_of_it_can_be_purged(store: VisitStore, tmp_path: Path, at: datetime):
    store.put(visit(1, at=at))
    assert store.purge() == 1
    assert list((tmp_path / "strangers").iterdir()) == []
    store.put(visit(1, at=at))
    VisitStore(tmp_path / "strangers", tmp_path / "device.key", timedelta(0)).expire(NOW)
    assert list((tmp_path / "strangers").iterdir()) == []


def test_a_visit_that_a_power_cut_left_half_written_goes_in_time(store: VisitStore, tmp_path: Path):
    store.put(visit(1))
    [path] = (tmp_path / "strangers").iterdir()
    part = path.with_name(f".{path.name}.tmp")
    part.write_bytes(b"half")
    assert ids(store.load(NOW)) == ["v-0001"]
    assert part.exists()
    store.expire(NOW + 25 * HOUR)
    assert list((tmp_path / "strangers").iterdir()) == []


def test_a_visit_is_gone_from_the_disk_before_it_loses_its_name(
    store: VisitStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store.put(visit(1))
    [path] = (tmp_path / "strangers").iterdir()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((path.exists(), path.read_bytes())))
    with path.open("rb") as still_open:
        store.remove(["v-0001"])
        assert still_open.read(4096).strip(b"\0") == b""
    assert [(there, data.strip(b"\0")) for there, data in synced] == [(True, b"")]


def test_who_deletes_what_another_process_has_just_deleted_is_content(store: VisitStore):
    """The daemon expires while somebody lists."""
    errors: list[Exception] = []

    def expire() -> None:
        try:
            store.expire(NOW + 48 * HOUR)
        except EdgeError as error:
            errors.append(error)

    for _ in range(10):
        for number in range(30):
            store.put(visit(number))
        threads = [threading.Thread(target=expire) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_one_file_that_cannot_be_deleted_does_not_keep_the_others(store: VisitStore, tmp_path: Path):
    for number in range(3):
        store.put(visit(number, at=NOW + number * timedelta(seconds=1)))
    stuck = min((tmp_path / "strangers").iterdir())
    stuck.unlink()
    stuck.mkdir()
    with pytest.raises(FileError, match="cannot be deleted"):
        store.expire(NOW + 48 * HOUR)
    assert list((tmp_path / "strangers").iterdir()) == [stuck]


def test_a_visit_joins_the_group_whose_mean_it_is_most_alike():
    noises = (0.2, 0.8, 1.6)
    seen = [visit(number, number % 5, noise=noises[number % 3]) for number in range(60)]
    groups: list[list[KeptVisit]] = []
    for each in seen:
        means = [sum(other.probe.embedding for other in group_) for group_ in groups]
        scores = [float(mean @ each.probe.embedding / np.linalg.norm(mean)) for mean in means]
        if scores and max(scores) >= 0.5:
            groups[scores.index(max(scores))].append(each)
        else:
            groups.append([each])
    found = sorted(ids(list(stranger.visits)) for stranger in group(seen, 0.5))
    assert found == sorted(map(ids, groups))
    assert 5 < len(found) < 60
