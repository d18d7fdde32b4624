"""A version that cannot be read gives way to an older one, which gives nobody back what was taken since."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edge.core.access import Access, SubjectState, Window
from edge.core.errors import GalleryError
from edge.core.types import Subject
from edge.gallery.admission import Admission
from edge.gallery.gallery import Gallery
from edge.gallery.store.rights import FILE_NAME, regained
from edge.gallery.store.store import GalleryStore
from tests.gallery.store.test_store_power import disks
from tests.support.gallery_samples import AT, MODEL, damage, enrol, ids, template, unit_rows
from tests.support.powercuts import recorded

SUSPENDED = Access(SubjectState.SUSPENDED)
NIGHTS = Access(windows=(Window.parse("mon-sun 22:00-23:00"),))
EXPIRED = Access(not_after=AT - timedelta(days=1))
NOT_YET = Access(not_before=AT + timedelta(days=1))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gallery"


@pytest.fixture
def store(directory: Path) -> GalleryStore:
    return GalleryStore(directory, keep_versions=4)


def change(store: GalleryStore, subject_id: str, access: Access, groups: tuple[str, ...] = ()) -> Gallery:
    """Commit a version in which a subject has these rights."""
    gallery = store.load(MODEL)
    known = gallery.subject(subject_id)
    assert known is not None
    changed = replace(known, access=access, groups=groups)
    return store.commit(gallery.with_subject(changed, gallery.templates_of(subject_id)))


def spoil_current(store: GalleryStore, directory: Path) -> None:
    damage(directory / f"gallery-{store.current_version():08d}.edge")


def passing(gallery: Gallery, at: datetime = AT, groups: tuple[str, ...] = ()) -> list[str]:
    allowed = Admission(gallery, groups).allowed(at)
    return [each for n, each in enumerate(ids(gallery)) if allowed is None or allowed[n]]


@pytest.mark.parametrize("access", [SUSPENDED, NIGHTS, EXPIRED, NOT_YET], ids=str)
def test_a_damaged_newest_version_gives_no_right_back(store: GalleryStore, directory: Path, access: Access):
    enrol(store, "a", "p")
    change(store, "p", access)
    spoil_current(store, directory)
    gallery = store.load(MODEL)
    found = gallery.subject("p")
    assert found is not None
    assert found.access == access
    assert passing(gallery) == ["a"]
    assert gallery.version == store.current_version() == 4, "what may be granted is a version of its own"
    assert passing(GalleryStore(directory, keep_versions=4).load(MODEL)) == ["a"], "also after a restart"
    fallen = store.fallen()
    assert fallen is not None
    assert (fallen.version, fallen.source, fallen.lost) == (4, 2, (3,))
    change(store, "a", Access())
    assert store.fallen() is None


def test_a_group_that_was_taken_does_not_come_back(store: GalleryStore, directory: Path):
    enrol(store, "a", "p")
    change(store, "p", Access(), ("staff", "labs"))
    change(store, "p", Access(), ("staff",))
    spoil_current(store, directory)
    gallery = store.load(MODEL)
    assert passing(gallery, groups=("labs",)) == []
    assert passing(gallery, groups=("staff",)) == ["p"]


def test_what_was_restricted_in_several_damaged_versions_stays_restricted(
    store: GalleryStore, directory: Path
):
    enrol(store, "a", "b", "p")
    change(store, "p", SUSPENDED)
    change(store, "b", NIGHTS)
    damage(directory / "gallery-00000004.edge")
    damage(directory / "gallery-00000005.edge")
    assert passing(store.load(MODEL)) == ["a"]
    spoil_current(store, directory)
    assert passing(store.load(MODEL)) == ["a"], "and once more"


def test_who_was_let_in_again_stays_in(store: GalleryStore, directory: Path):
    enrol(store, "a", "p")
    change(store, "p", SUSPENDED)
    change(store, "p", Access())
    spoil_current(store, directory)
    assert passing(store.load(MODEL)) == ["a", "p"]


def test_a_face_that_was_enrolled_anew_is_not_known_by_the_old_one(store: GalleryStore, directory: Path):
    enrol(store, "a", "p")
    gallery = store.load(MODEL)
    store.commit(gallery.with_subject(Subject("p", ""), [template(unit_rows(1, seed=99)[0])]))
    spoil_current(store, directory)
    assert passing(store.load(MODEL)) == ["a"]


def test_a_photo_that_was_added_costs_nobody_a_right(store: GalleryStore, directory: Path):
    enrol(store, "a", "p")
    gallery = store.load(MODEL)
    rows = [*gallery.templates_of("p"), template(unit_rows(1, seed=99)[0])]
    store.commit(gallery.with_subject(Subject("p", ""), rows))
    spoil_current(store, directory)
    assert passing(store.load(MODEL)) == ["a", "p"]


def test_who_went_with_a_roll_back_does_not_come_with_a_damaged_version(store: GalleryStore, directory: Path):
    enrol(store, "a", "p")
    store.roll_back(1)
    spoil_current(store, directory)
    assert ids(store.load(MODEL)) == ["a"]


def test_a_gallery_does_not_become_younger(store: GalleryStore, directory: Path):
    enrol(store, "a")
    store.commit(replace(store.load(MODEL), not_after=AT + timedelta(days=9)))
    store.commit(replace(store.load(MODEL), not_after=AT + timedelta(days=1)))
    spoil_current(store, directory)
    assert store.load(MODEL).not_after == AT + timedelta(days=1)


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(Path.unlink, id="deleted"),
        pytest.param(damage, id="bit flip"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
    ],
)
def test_where_nobody_knows_what_was_granted_nobody_passes(
    store: GalleryStore, directory: Path, lose: Callable[[Path], object], caplog: pytest.LogCaptureFixture
):
    enrol(store, "a", "p")
    change(store, "p", SUSPENDED)
    lose(directory / FILE_NAME)
    spoil_current(store, directory)
    assert passing(store.load(MODEL)) == []
    assert "everybody is suspended" in caplog.text


@pytest.mark.parametrize("lose", [Path.unlink, damage], ids=["an earlier release kept none", "bit flip"])
def test_what_is_granted_is_found_out_anew_from_the_versions_while_they_can_be_read(
    store: GalleryStore, directory: Path, lose: Callable[[Path], object]
):
    enrol(store, "a", "p")
    change(store, "p", SUSPENDED)
    lose(directory / FILE_NAME)
    assert passing(store.load(MODEL)) == ["a"]
    spoil_current(store, directory)
    assert passing(store.load(MODEL)) == ["a"]


def test_a_door_that_cannot_write_grants_no_more_either(store: GalleryStore, directory: Path):
    enrol(store, "a", "p")
    change(store, "p", SUSPENDED)
    spoil_current(store, directory)
    with store._files.locked(0, lambda: 0.0):
        assert passing(GalleryStore(directory, keep_versions=4).load(MODEL)) == ["a"]
    assert store.current_version() == 3


def test_the_file_names_nobody_and_shrinks_with_the_versions(store: GalleryStore, directory: Path):
    enrol(store, "a", "person-of-note")
    sizes = []
    for number in range(12):
        change(store, "person-of-note", SUSPENDED if number % 2 else Access())
        sizes.append((directory / FILE_NAME).stat().st_size)
    assert max(sizes) < 2000
    assert sizes[-1] < sizes[4] + 10, "only the numbers of the versions become longer"
    for number in range(4):
        gallery = store.load(MODEL)
        store.commit(gallery.with_subject(Subject("a", str(number)), gallery.templates_of("a")))
    assert (directory / FILE_NAME).stat().st_size < 150, "every kept version knows"
    assert b"person" not in (directory / FILE_NAME).read_bytes()


def test_a_change_of_nobodys_rights_writes_nothing(store: GalleryStore, directory: Path):
    enrol(store, "a", "b")
    before = (directory / FILE_NAME).stat()
    enrol(store, "c")
    assert (directory / FILE_NAME).stat().st_ino == before.st_ino


def test_after_a_power_cut_and_damage_nobody_has_more_than_the_last_that_was_known(tmp_path: Path):
    """Any step of a suspension: whoever was suspended before stays so; done, the new one is as well."""
    state = tmp_path / "state"
    store = GalleryStore(state / "gallery", keep_versions=4)
    enrol(store, "a", "b", "p")
    change(store, "b", SUSPENDED)
    with recorded(state) as recorder:
        change(store, "p", SUSPENDED)
        recorder.done = True
        recorder.look()
    seen = set()
    for done, copy in disks(recorder, tmp_path):
        spoiled = GalleryStore(copy / "gallery", keep_versions=4)
        found = tuple(passing(spoiled.load(MODEL)))
        assert found in ((("a",),) if done else (("a",), ("a", "p")))
        spoil_current(spoiled, copy / "gallery")
        again = tuple(passing(spoiled.load(MODEL)))
        assert set(again) <= set(found)
        seen.add(again)
    assert seen == {("a",), ("a", "p")}


def test_after_a_power_cut_while_a_damaged_version_gives_way_nobody_has_more(tmp_path: Path):
    state = tmp_path / "state"
    store = GalleryStore(state / "gallery", keep_versions=4)
    enrol(store, "a", "p")
    change(store, "p", SUSPENDED)
    spoil_current(store, state / "gallery")
    with recorded(state) as recorder:
        assert passing(store.load(MODEL)) == ["a"]
    for _, copy in disks(recorder, tmp_path):
        assert passing(GalleryStore(copy / "gallery", keep_versions=4).load(MODEL)) == ["a"]


RIGHTS = [Access(), SUSPENDED, NIGHTS, EXPIRED, NOT_YET, Access(SubjectState.REVOKED)]
MOMENTS = [AT + timedelta(hours=3 * hour) for hour in range(-16, 17)]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_was_changed_and_damaged_nobody_passes_whom_the_newest_barred(tmp_path: Path, seed: int):
    """Random histories of changes, removals, roll-backs and damage, against what was last in force."""
    dice = random.Random(seed)
    directory = tmp_path / "gallery"
    store = GalleryStore(directory, keep_versions=3)
    enrol(store, "a", "bb", "ccc", "dddd")
    for _ in range(25):
        gallery = store.load(MODEL)
        someone = dice.choice(ids(gallery)) if gallery.size else ""
        match dice.choice(["change", "change", "change", "enrol", "remove", "back", "damage"]):
            case "change" if someone:
                change(store, someone, dice.choice(RIGHTS), dice.choice([(), ("x",), ("x", "y")]))
            case "enrol":
                enrol(store, "e" * dice.randint(5, 9))
            case "remove" if gallery.size > 2:
                store.commit(gallery.without_subject(someone))
            case "back" if len(store.versions()) > 1:
                store.roll_back(dice.choice([each for each in store.versions() if each != gallery.version]))
            case "damage" if len(store.versions()) > 1:
                newest = store.load(MODEL)
                spoil_current(store, directory)
                served = store.load(MODEL)
                for at in MOMENTS:
                    for groups in ((), ("x",), ("y",)):
                        assert set(passing(served, at, groups)) <= set(passing(newest, at, groups))


def gallery_with(**access: Access) -> Gallery:
    row = template(unit_rows(1)[0])
    return Gallery.empty(MODEL).with_subjects(
        (Subject(name, "", ("x",), each), [row]) for name, each in access.items()
    )


@pytest.mark.parametrize(
    ("now", "then", "gains"),
    [
        pytest.param(SUSPENDED, Access(), True, id="was suspended"),
        pytest.param(Access(), SUSPENDED, False, id="was let in"),
        pytest.param(SUSPENDED, SUSPENDED, False, id="the same"),
        pytest.param(EXPIRED, Access(), True, id="a validity came"),
        pytest.param(Access(), EXPIRED, False, id="a validity went"),
        pytest.param(EXPIRED, Access(not_after=AT), True, id="a longer one"),
        pytest.param(NOT_YET, Access(not_before=AT), True, id="an earlier one"),
        pytest.param(NIGHTS, Access(), True, id="windows came"),
        pytest.param(Access(), NIGHTS, False, id="windows went"),
        pytest.param(NIGHTS, Access(windows=(Window.parse("mon 08:00-09:00"),)), True, id="others"),
        pytest.param(NIGHTS, replace(NIGHTS, time_zone="Asia/Tokyo"), True, id="another zone"),
    ],
)
def test_who_has_rights_back_is_told_before_a_roll_back(now: Access, then: Access, gains: bool):
    found = regained(gallery_with(a=Access(), p=now), gallery_with(a=Access(), p=then))
    assert found == (["p"] if gains else [])


def test_a_roll_back_gives_rights_to_nobody_else_than_was_told(store: GalleryStore):
    enrol(store, "a", "p")
    change(store, "p", SUSPENDED)
    change(store, "a", SUSPENDED)
    assert store.regained(2) == ["a", "p"]
    with pytest.raises(GalleryError, match="look again who has rights back"):
        store.roll_back(2, ["p"])
    assert passing(store.load(MODEL)) == []
    store.roll_back(2, ["a", "p"])
    assert passing(store.load(MODEL)) == ["a", "p"]
    assert store.regained(2) == []
