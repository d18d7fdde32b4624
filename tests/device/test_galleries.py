"""What a running door tells of its gallery: the fleet's version, and what came of a synchronisation.

Whoever started it, over a restart, and until the next one succeeds.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.types import Subject
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import denial_store, gallery_store, visit_store
from edge.device.galleries import Galleries
from edge.device.settings.load import Settings, load
from edge.device.sync.floors import Floors, save_floors
from edge.device.sync.outcome import SyncOutcome, save_outcome
from edge.gallery.alike.shift import STRANGERS_MOST
from edge.gallery.store.kept_visits import KeptVisit
from tests.support.command_line import write_config
from tests.support.fleets import people
from tests.support.gallery_samples import alike_rows, damage, probe, template, unit_rows

AT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
REFUSED = SyncOutcome("refused", 0, 0, None, "an old state is offered", reason="rollback", at=AT)


class Door:
    """A door with two subjects that the fleet published as version 58."""

    def __init__(self, directory: Path, models_dir: Path) -> None:
        config = write_config(
            directory,
            'recognition.embedder = "sface-int8"',
            '[sync]\nurl = "http://127.0.0.1:9"\nscope = "front"\ntrusted_root = "x"\nsealing_key = "y"',
            device="front-1",
            state_dir=directory / "state",
            models_dir=models_dir,
        )
        self.settings: Settings = load(config)
        self.sync = self.settings.sync_path
        self.sync.mkdir(parents=True)
        self.recognizer = build_recognizer(self.settings)
        self.model_id = self.recognizer.embedder.model_id
        self.enrol("alice", "bob")
        version = gallery_store(self.settings).current_version()
        save_floors(
            self.sync / "floors.json", Floors(scope="front", installed_version=58, installed_as=version)
        )
        self.recognizer = build_recognizer(self.settings)
        self.start()

    def start(self) -> None:
        self.metrics = Metrics()
        self.galleries = Galleries(self.settings, (), metrics=self.metrics, clock=SystemClock())

    def enrol(self, *subject_ids: str) -> None:
        store = gallery_store(self.settings)
        gallery = store.load(self.model_id)
        new = people(*subject_ids, model_id=self.model_id)
        rows = {subject.subject_id: new.templates_of(subject.subject_id) for subject in new.subjects}
        store.commit(gallery.with_subjects((subject, rows[subject.subject_id]) for subject in new.subjects))

    def tick(self) -> bool:
        found, news = self.galleries.tick(self.recognizer)
        self.recognizer = found or self.recognizer
        return news

    def told(self) -> tuple[str, str | None, int | None]:
        report = self.galleries.report(self.recognizer)
        return report.status, report.reason, report.published


@pytest.fixture
def door(tmp_path: Path, models_dir: Path) -> Door:
    return Door(tmp_path, models_dir)


def test_the_fleets_version_is_told_beside_the_devices_own_until_somebody_enrols_here(door: Door):
    report = door.galleries.report(door.recognizer)
    assert (report.scope, report.published, report.version, report.count) == ("front", 58, 1, 2)
    door.enrol("carol")
    assert door.tick()
    report = door.galleries.report(door.recognizer)
    assert (report.published, report.version, report.count) == (None, 2, 3)


def test_what_a_timer_came_to_is_told_once_and_counted(door: Door):
    assert not door.tick()
    save_outcome(door.sync, REFUSED)
    assert door.tick()
    assert door.told() == ("refused", "rollback", 58)
    assert door.galleries.report(door.recognizer).synchronised_at == AT
    assert door.metrics.counts()["sync.refused.rollback"] == 1
    save_outcome(door.sync, REFUSED)
    assert not door.tick(), "it is known"
    assert door.metrics.counts()["sync.refused.rollback"] == 1


def test_a_refusal_stands_over_a_change_here_and_a_restart_until_a_synchronisation_succeeds(
    door: Door,
):
    save_outcome(door.sync, REFUSED)
    door.tick()
    door.enrol("carol")
    assert door.tick()
    assert door.told() == ("refused", "rollback", None)
    door.start()
    assert door.told() == ("refused", "rollback", None)
    save_outcome(door.sync, SyncOutcome("current", 58, 2, "m", at=datetime.now(UTC)))
    assert door.tick()
    assert door.told()[:2] == ("current", None)
    door.enrol("dora")
    door.tick()
    assert door.told()[:2] == ("updated", None)


@pytest.mark.parametrize(("left", "started"), [("front", 0), ("back", 1), (None, 1)])
def test_after_a_restart_with_another_scope_a_lower_version_is_asked_for(
    door: Door, monkeypatch: pytest.MonkeyPatch, left: str | None, started: int
):
    monkeypatch.setattr("edge.device.children.child.EDGE", ("false",))
    save_outcome(door.sync, SyncOutcome("current", 58, 2, "m", at=AT, scope=left))
    door.start()
    door.galleries.request(3)
    door.galleries.stop()
    assert door.metrics.counts().get("sync.started", 0) == started


def test_a_denial_that_is_made_while_the_gallerys_settings_change_is_followed(door: Door):
    assert not door.tick()
    deny(door, "alice")
    changed = door.settings.gallery.model_copy(update={"keep_versions": 7})
    door.galleries.use(door.settings.model_copy(update={"gallery": changed}))
    assert door.tick()
    assert door.recognizer.denials.counts() == {"alice": 1}
    assert not door.tick()


def test_a_denial_that_is_made_while_a_door_starts_is_followed(door: Door):
    deny(door, "alice")
    door.start()
    assert door.tick()
    assert door.recognizer.denials.counts() == {"alice": 1}


def deny(door: Door, subject_id: str) -> None:
    face = probe(unit_rows(1)[0], door.model_id)
    denial_store(door.settings).change(lambda denials: denials.plus(subject_id, face))


def test_an_outcome_that_cannot_be_read_is_passed_over(door: Door):
    (door.sync / "outcome.json").write_text("{")
    assert not door.tick()
    (door.sync / "floors.json").write_text("{")
    assert door.told() == ("current", None, None)


def test_health_says_that_an_older_gallery_serves_until_the_next_change(door: Door):
    door.enrol("carol")
    door.tick()
    assert door.galleries.problems(door.recognizer) == []
    damage(door.settings.gallery_path / "gallery-00000002.edge")
    assert door.galleries.problems(door.recognizer) == [], "what serves was read while it could be"
    door.recognizer = build_recognizer(door.settings)
    assert door.recognizer.matcher.gallery.size == 2
    assert door.galleries.problems(door.recognizer) == ["gallery_fallback"]
    door.enrol("dora")
    door.tick()
    assert door.galleries.problems(door.recognizer) == []


def test_health_says_that_the_newest_gallery_cannot_be_used(door: Door):
    store = gallery_store(door.settings)
    store.commit(replace(people("eve", model_id="other@1"), version=store.current_version()))
    door.tick()
    assert door.galleries.problems(door.recognizer) == ["gallery_refused"]


def test_health_says_that_the_gallery_is_trusted_no_more(door: Door):
    now = SystemClock().now()
    for not_after, problems in (
        (now + timedelta(hours=1), []),
        (now - timedelta(hours=1), ["gallery_stale"]),
    ):
        gallery = replace(door.recognizer.matcher.gallery, not_after=not_after)
        assert door.galleries.problems(door.recognizer.with_gallery(gallery)) == problems


def test_strangers_who_are_kept_count_for_the_next_version_of_the_gallery(door: Door):
    door.settings = door.settings.model_copy(
        update={"strangers": door.settings.strangers.model_copy(update={"keep_hours": 24})}
    )
    door.start()
    visits, now = visit_store(door.settings), SystemClock().now()
    for number, row in enumerate(alike_rows(30, 0.3)):
        visits.put(KeptVisit(f"v-{number:012x}", "front", now, probe(row, door.model_id)))
    visits.put(KeptVisit("v-ffff", "front", now, probe(unit_rows(1, seed=9)[0], door.model_id), "alice"))
    visits.put(KeptVisit("v-eeee", "front", now, probe(unit_rows(1, seed=8)[0], "other@1")))
    before = door.recognizer.rule.threshold_for(3)
    door.enrol("carol")
    door.tick()
    found = door.recognizer.rule.shift_for(3)
    assert found is not None
    assert (found.compared, found.strangers) == (3, 20)
    assert door.recognizer.rule.threshold_for(3) == pytest.approx(before + STRANGERS_MOST)
    assert build_recognizer(door.settings).rule == door.recognizer.rule, "a restart changes nothing"


def test_a_gallery_of_look_alikes_raises_the_threshold_and_the_log_and_health_tell_it(
    door: Door, caplog: pytest.LogCaptureFixture
):
    plain = door.recognizer.rule
    group = [Subject(f"p-{number}", "") for number in range(40)]
    store = gallery_store(door.settings)
    alike = zip(group, alike_rows(40, 0.4), strict=True)
    before = store.load(door.model_id)
    store.commit(before.with_subjects((who, [template(row, door.model_id)]) for who, row in alike))
    door.tick()
    raised = door.recognizer.rule
    assert raised.threshold_for(42) > plain.threshold_for(42) + 0.15
    assert "the enrolled look more alike than before" in caplog.text
    assert not any(who.subject_id in caplog.text for who in group)
    assert door.galleries.problems(door.recognizer) == ["gallery_alike"]
    store.roll_back(before.version, [])
    door.tick()
    assert door.recognizer.rule.threshold_for(42) == plain.threshold_for(42)
    assert door.galleries.problems(door.recognizer) == []
