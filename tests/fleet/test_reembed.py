"""Everybody embedded anew for another model: the same subjects, in as many runs as it takes."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import cv2
import pytest

from edge.camera.photo import read_photo
from edge.core.access import Access, SubjectState
from edge.core.types import Subject
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer
from edge.device.assembly.stores import candidate_store
from edge.device.settings.load import Settings, load
from edge.face.manifest import load_manifest
from edge.fleet.reembed import reembed
from edge.gallery.gallery import Gallery
from edge.lab.demo.media import orl_photo
from edge.recognition.enrolment.roster import Entry, from_folder
from tests.support.gallery_samples import ids, template, unit_rows

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
NEW = load_manifest("sface-fp32")
KNOWN = tuple(
    Subject(f"p-{number}", f"Subject {number}", ("staff",), Access(SubjectState.SUSPENDED))
    for number in range(1, 5)
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, media: Path) -> list[Entry]:
    """Two photos each of four people who are enrolled, and one of somebody who is not."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(1, 6):
        (folder / f"p-{number}").mkdir()
        for shot in (1, 2):
            image = read_photo(orl_photo(media, number, shot))
            cv2.imwrite(str(folder / f"p-{number}" / f"{shot}.png"), image)
    return from_folder(folder)


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    return load(
        overrides={
            "state_dir": str(tmp_path / "state"),
            "models_dir": str(models_dir),
            "recognition": {"embedder": "sface-fp32"},
        }
    )


def in_force(*subjects: Subject) -> Gallery:
    rows = unit_rows(len(subjects))
    return Gallery.empty("old@00000000").with_subjects(
        (subject, [template(row, "old@00000000")]) for subject, row in zip(subjects, rows, strict=True)
    )


def run(settings: Settings, current: Gallery, photos: list[Entry], **options) -> dict[str, str]:
    values = {"processes": 1, "at": lambda: AT, "told": lambda what, done, total: None, **options}
    load_models = partial(build_recognizer, settings, Gallery.empty("none"), side_px=PHOTO_SIDE_PX)
    prototypes = settings.gallery.prototypes
    outcomes = reembed(
        current, photos, load_models, candidate_store(settings), max_prototypes=prototypes, **values
    )
    return {each.subject_id: each.status for each in outcomes}


def made(settings: Settings) -> Gallery:
    return candidate_store(settings).load(NEW.model_id)


def test_the_same_people_with_all_that_is_known_of_them(settings: Settings, photos: list[Entry]):
    assert run(settings, in_force(*KNOWN), photos) == dict.fromkeys(("p-1", "p-2", "p-3", "p-4"), "enrolled")
    gallery = made(settings)
    assert gallery.subjects == KNOWN, "whoever is only in the photos is not enrolled by that"
    assert gallery.model_id == NEW.model_id
    assert gallery.provenance[0].created_at == AT
    assert sum(row.photos for row in gallery.provenance) == 8


def test_several_processes_make_the_same_gallery(
    settings: Settings, photos: list[Entry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    run(settings, in_force(*KNOWN), photos)
    other = settings.model_copy(update={"state_dir": tmp_path / "other"})
    monkeypatch.setattr("edge.fleet.reembed.CHUNK", 2)
    run(other, in_force(*KNOWN), photos, processes=2)
    assert made(other).subjects == made(settings).subjects
    assert made(other).matrix.tobytes() == made(settings).matrix.tobytes()


def test_an_interrupted_run_goes_on_where_it_stopped(
    settings: Settings, photos: list[Entry], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.fleet.reembed.CHUNK", 2)

    def interrupt(what: str, done: float, total: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings, in_force(*KNOWN), photos, told=interrupt)
    assert ids(made(settings)) == ["p-1", "p-2"]
    again = run(settings, in_force(*KNOWN), photos)
    assert again == {
        "p-1": "already enrolled",
        "p-2": "already enrolled",
        "p-3": "enrolled",
        "p-4": "enrolled",
    }


def renamed(subject: Subject) -> Subject:
    return Subject(subject.subject_id, "Another name", ("lab",))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda known: known[1:], KNOWN[1:], id="somebody left"),
        pytest.param(
            lambda known: (renamed(known[0]), *known[1:]), (renamed(KNOWN[0]), *KNOWN[1:]), id="renamed"
        ),
        pytest.param(lambda known: (), (), id="everybody left"),
    ],
)
def test_a_second_run_follows_the_gallery_in_force(
    settings: Settings,
    photos: list[Entry],
    change: Callable[[tuple[Subject, ...]], tuple[Subject, ...]],
    expected: tuple[Subject, ...],
):
    run(settings, in_force(*KNOWN), photos)
    current = in_force(*change(KNOWN)) if change(KNOWN) else Gallery.empty("old@00000000")
    run(settings, current, photos)
    assert made(settings).subjects == expected


def test_who_has_no_usable_photo_is_told(settings: Settings, photos: list[Entry], tmp_path: Path):
    blank = tmp_path / "p-2.png"
    cv2.imwrite(str(blank), read_photo(photos[0].photos[0]) * 0)
    given = [photos[0], Entry(Subject("p-2", ""), (blank,)), photos[2]]
    assert run(settings, in_force(*KNOWN), given) == {
        "p-1": "enrolled",
        "p-2": "refused",
        "p-3": "enrolled",
        "p-4": "refused",
    }
