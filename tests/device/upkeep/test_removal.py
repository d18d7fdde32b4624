"""Who is removed goes from both galleries, the kept faces, the denials and the kept visits."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import GalleryError
from edge.core.types import Subject
from edge.device.assembly.stores import candidate_store, crop_store, denial_store, gallery_store, visit_store
from edge.device.settings.load import Settings, load
from edge.device.settings.tables import RemoteSettings
from edge.device.upkeep.removal import forget_departed, purge, remove_subject
from edge.gallery.format.removed import subject_hash
from edge.gallery.gallery import Gallery
from edge.gallery.store.kept_visits import KeptVisit
from tests.support.command_line import write_config
from tests.support.gallery_samples import MODEL, ids, probe, template, unit_rows

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OTHER = "other@12345678"
FACE = np.zeros((112, 112, 3), np.uint8)
ROW = unit_rows(1)[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A door with two subjects, each in both galleries, with a face, a denial and a matched visit."""
    settings = load(write_config(tmp_path, "strangers.keep_hours = 24", state_dir=tmp_path / "state"))
    for store, model_id in ((gallery_store(settings), MODEL), (candidate_store(settings), OTHER)):
        people = [(Subject(name, ""), [template(ROW, model_id)]) for name in ("alice", "bob")]
        store.commit(Gallery.empty(model_id).with_subjects(people))
    for number, name in enumerate(("alice", "bob", "")):
        if name:
            crop_store(settings).save(name, [FACE])
            denial_store(settings).change(lambda denials, name=name: denials.plus(name, probe(ROW)))
        visit_store(settings).put(KeptVisit(f"v-{number}", "front", NOW, probe(ROW), name))
    return settings


def kept_of(settings: Settings) -> dict[str, list[str]]:
    galleries = {}
    for where, store in (("gallery", gallery_store(settings)), ("candidate", candidate_store(settings))):
        model_id = store.enrolled_with()
        galleries[where] = ids(store.load(model_id)) if model_id else []
    return {
        **galleries,
        "faces": [name for name in ("alice", "bob") if crop_store(settings).load(name)],
        "denials": list(denial_store(settings).load().counts()),
        "visits": [each.taken_for for each in visit_store(settings).load(NOW)],
    }


def everything_of(*names: str) -> dict[str, list[str]]:
    return {
        "gallery": list(names),
        "candidate": list(names),
        "faces": list(names),
        "denials": list(names),
        "visits": [*names, ""],
    }


def test_who_is_removed_goes_from_everything_that_is_kept(settings: Settings):
    assert kept_of(settings) == everything_of("alice", "bob")
    removal = remove_subject(settings, "bob", NOW)
    assert (removal.problems, removal.warnings, removal.candidate_only) == ([], [], False)
    assert [each.size for each in removal.galleries] == [1, 1]
    assert kept_of(settings) == everything_of("alice")


def test_who_is_only_in_the_candidate_can_be_removed_too(settings: Settings):
    store = gallery_store(settings)
    store.commit(store.load(MODEL).without_subject("bob"))
    removal = remove_subject(settings, "bob", NOW)
    assert (len(removal.galleries), removal.candidate_only) == (1, True)
    assert kept_of(settings) == everything_of("alice")


def test_who_was_rolled_back_from_can_be_removed_and_goes_with_a_purge(settings: Settings):
    store = gallery_store(settings)
    for name in ("carol", "dora"):
        store.commit(store.load(MODEL).with_subject(Subject(name, ""), [template(ROW)]))
    store.roll_back(1)
    removal = remove_subject(settings, "carol", NOW)
    assert (removal.older, removal.galleries, removal.problems) == (True, [], [])
    assert [ids(store._vault.read(version)) for version in (2, 3)] == [
        ["alice", "bob"],
        ["alice", "bob", "dora"],
    ]
    assert purge(settings).problems == []
    assert {store._vault.read(version).size for version in store.versions()} == {0}


def test_nobody_is_removed_where_nobody_has_that_id(settings: Settings):
    assert remove_subject(settings, "carol", NOW).galleries == []
    assert kept_of(settings) == everything_of("alice", "bob")


def test_who_left_by_a_synchronisation_leaves_nothing_behind(settings: Settings):
    for store, model_id in ((gallery_store(settings), MODEL), (candidate_store(settings), OTHER)):
        store.commit(store.load(model_id).without_subject("bob"))
    assert forget_departed(settings, NOW) == []
    assert kept_of(settings) == everything_of("alice")


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("unknown", ["alice", "remote-carol"]), ("off", ["alice"])],
    ids=["remote gallery", "no remote gallery"],
)
def test_whom_the_remote_gallery_named_keeps_visits_and_denials_unless_removed_here(
    settings: Settings, policy: str, kept: list[str]
):
    remote = RemoteSettings(policy=policy, url="http://127.0.0.1:9", secret=Path("site.secret"))  # type: ignore[arg-type]
    settings = settings.model_copy(update={"remote": remote})
    visit_store(settings).put(KeptVisit("v-9", "front", NOW, probe(ROW), "remote-carol"))
    denial_store(settings).change(lambda denials: denials.plus("remote-carol", probe(ROW)))
    for forget in (
        lambda: remove_subject(settings, "bob", NOW).problems,
        lambda: forget_departed(settings, NOW),
    ):
        assert forget() == []
        found = kept_of(settings)
        assert (sorted(found["denials"]), sorted(found["visits"])) == (kept, ["", *kept])


def test_who_is_in_the_candidate_has_not_left(settings: Settings):
    store = gallery_store(settings)
    store.commit(store.load(MODEL).without_subject("bob"))
    assert forget_departed(settings, NOW) == []
    assert kept_of(settings) == {**everything_of("alice", "bob"), "gallery": ["alice"]}


def test_a_purge_leaves_nothing_not_even_of_who_left_before(settings: Settings):
    crop_store(settings).save("carol", [FACE])
    visit_store(settings).put(KeptVisit("v-9", "front", datetime(1970, 1, 2, tzinfo=UTC), probe(ROW)))
    (settings.state_dir / "denials.sealed.damaged").write_bytes(b"who knows whose")
    removal = purge(settings)
    assert (removal.size, removal.problems) == (2, [])
    assert kept_of(settings) == {**everything_of(), "visits": []}
    assert list((settings.state_dir / "crops").iterdir()) == []
    assert list((settings.state_dir / "strangers").iterdir()) == []
    assert list(settings.state_dir.glob("denials.sealed*")) == []
    assert not (settings.state_dir / "denied.json").exists()


def test_damaged_denials_do_not_keep_anybody_and_go_because_they_may_hold_who_left(settings: Settings):
    (settings.state_dir / "denials.sealed").write_bytes(b"torn")
    removal = remove_subject(settings, "bob", NOW)
    assert (removal.problems, len(removal.galleries)) == ([], 2)
    assert "denials were damaged" in removal.warnings[0]
    assert "are deleted" in removal.warnings[1]
    assert [path.name for path in settings.state_dir.glob("denials.sealed*")] == ["denials.sealed"]
    assert denial_store(settings).load().lost == {subject_hash("alice")}, "alice had some, and stays barred"
    assert kept_of(settings) == {**everything_of("alice"), "denials": []}


def test_a_synchronisation_sets_damaged_denials_aside_and_says_so(settings: Settings):
    (settings.state_dir / "denials.sealed").write_bytes(b"torn")
    [told] = forget_departed(settings, NOW)
    assert "set aside as" in told
    assert (settings.state_dir / "denials.sealed.damaged").read_bytes() == b"torn"


def test_what_cannot_be_erased_is_told_and_the_rest_is_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full_disk)
        removal = remove_subject(settings, "bob", NOW)
    assert ["is still in older versions" in each for each in removal.problems] == [True, True]
    assert kept_of(settings) == everything_of("alice")
    assert remove_subject(settings, "bob", NOW).problems == []
    for store in (gallery_store(settings), candidate_store(settings)):
        assert ids(store._vault.read(1)) == ["alice"]


def test_where_the_gallery_cannot_be_changed_nothing_is_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        patched.setattr(os, "symlink", full_disk)
        with pytest.raises(GalleryError, match="No space left"):
            remove_subject(settings, "bob", NOW)
    assert kept_of(settings) == everything_of("alice", "bob")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
