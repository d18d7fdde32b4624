"""Galleries: a key that moved, and requests to synchronise at a door without a fleet."""

import shutil
from pathlib import Path

import pytest

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.types import Subject
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import gallery_store
from edge.device.galleries import Galleries
from edge.device.settings.load import Settings, load
from edge.gallery.gallery import Gallery
from edge.recognition.recognizer import Recognizer
from tests.support.gallery_samples import template, unit_rows


def settings_in(directory: Path, models: Path, **gallery: str) -> Settings:
    return load(None, {"state_dir": str(directory), "models_dir": str(models), "gallery": gallery})


def galleries_of(settings: Settings) -> Galleries:
    return Galleries(settings, (), metrics=Metrics(), clock=SystemClock())


@pytest.fixture
def recognizer(tmp_path: Path, models_dir: Path) -> Recognizer:
    """A recognizer of two subjects, enrolled into the gallery of `tmp_path`."""
    settings = settings_in(tmp_path, models_dir)
    model_id = build_recognizer(settings, Gallery.empty("none")).embedder.model_id
    rows = unit_rows(2)
    people = [(Subject(f"p-{n}", ""), [template(row, model_id)]) for n, row in enumerate(rows)]
    gallery_store(settings).commit(Gallery.empty(model_id).with_subjects(people))
    return build_recognizer(settings)


def test_a_revocation_comes_into_force_after_the_key_has_moved(
    tmp_path: Path, models_dir: Path, recognizer: Recognizer
):
    galleries = galleries_of(settings_in(tmp_path, models_dir))
    away = tmp_path / "away"
    away.mkdir()
    shutil.move(tmp_path / "device.key", away / "device.key")
    moved = settings_in(tmp_path, models_dir, device_key=str(away / "device.key"))
    galleries.use(moved)
    with gallery_store(moved).edit(recognizer.embedder.model_id, recognizer.embedder.dim) as edit:
        edit.commit(edit.gallery.without_subject("p-0"))
    found, news = galleries.tick(recognizer)
    assert news
    assert found is not None
    assert [each.subject_id for each in found.matcher.gallery.subjects] == ["p-1"]


def test_a_request_at_a_door_without_a_fleet_starts_nothing_and_is_answered_once(
    tmp_path: Path, models_dir: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
):
    started = tmp_path / "started"
    monkeypatch.setattr("edge.device.children.child.EDGE", ("touch", str(started)))
    galleries = galleries_of(settings_in(tmp_path, models_dir))
    news = []
    for _ in range(100):
        galleries.request(0)
        news.append(galleries.tick(recognizer)[1])
    assert news.count(True) == 1
    report = galleries.report(recognizer)
    assert (report.status, "sync.url is not set" in (report.error or "")) == ("refused", True)
    assert not started.exists()
