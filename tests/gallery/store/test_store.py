import os
import threading
import time
from pathlib import Path

import pytest

from edge.core.errors import ConfigError, GalleryError, ModelMismatchError
from edge.core.types import Subject
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from tests.support.gallery_samples import (
    MODEL,
    assert_equal,
    damage,
    enrol,
    gallery_of,
    ids,
    names,
    template,
    unit_rows,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gallery"


@pytest.fixture
def store(directory: Path) -> GalleryStore:
    return GalleryStore(directory, keep_versions=3)


def test_a_fresh_store_is_empty_and_leaves_no_trace(store: GalleryStore, directory: Path):
    assert store.current_version() == 0
    assert_equal(store.load(MODEL, 128), Gallery.empty(MODEL, dim=128))
    assert not directory.parent.exists()


def test_what_is_committed_is_loaded_with_the_next_version(store: GalleryStore, directory: Path):
    first = store.commit(gallery_of([1, 2]))
    assert (first.version, store.current_version()) == (1, 1)
    assert_equal(GalleryStore(directory, keep_versions=3).load(MODEL, 128), first)
    second = store.commit(first.without_subject("p-0"))
    assert (second.version, store.current_version()) == (2, 2)
    assert_equal(store.load(MODEL), second)


def test_a_gallery_that_became_empty_keeps_counting_and_takes_another_model(store: GalleryStore):
    store.commit(enrol(store, "a").without_subject("a"))
    assert (store.load(MODEL).size, store.load(MODEL).version) == (0, 2)
    other = store.load("other@1").with_subject(Subject("b", ""), [template(unit_rows(1)[0], "other@1")])
    assert store.commit(other).version == 3
    assert ids(store.load("other@1")) == ["b"]


def test_files_are_for_the_owner_alone(store: GalleryStore, directory: Path):
    before = os.umask(0)
    try:
        enrol(store, "a")
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    files = [path for path in directory.iterdir() if not path.is_symlink()]
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {
        "gallery-00000001.edge": 0o600,
        "lock": 0o600,
        "rights.sealed": 0o600,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_enrols_belongs_to_the_owner_of_the_directory(tmp_path: Path):
    os.chown(tmp_path, 65534, 65534)
    enrol(GalleryStore(tmp_path / "gallery", keep_versions=3), "a")
    assert {path.lstat().st_uid for path in (tmp_path / "gallery").iterdir() if not path.is_symlink()} == {
        65534
    }
    assert (tmp_path / "gallery").stat().st_uid == 65534


def test_only_the_newest_versions_are_kept(store: GalleryStore, directory: Path):
    enrol(store, "a", "b", "c", "d", "e")
    assert store.versions() == [3, 4, 5]
    kept = [f"gallery-0000000{i}.edge" for i in (3, 4, 5)]
    assert names(directory) == ["current", *kept, "lock", "rights.sealed"]


def test_a_store_that_keeps_nothing_is_refused(directory: Path):
    with pytest.raises(ConfigError, match="keep_versions"):
        GalleryStore(directory, keep_versions=0)


def test_rolling_back_makes_a_new_version_of_an_old_one_and_there_is_a_way_forward(store: GalleryStore):
    enrol(store, "a", "b", "c")
    assert (store.roll_back(2).version, ids(store.load(MODEL))) == (4, ["a", "b"])
    assert store.versions() == [2, 3, 4]
    assert ids(store.roll_back(3)) == ["a", "b", "c"], "who was enrolled since is not removed by going back"
    assert ids(enrol(store, "d")) == ["a", "b", "c", "d"]
    assert store.current_version() == 6
    assert not (store._files.directory / "erasures.jsonl").exists()


def test_who_was_removed_does_not_come_back(store: GalleryStore):
    enrol(store, "a", "b", "c")
    store.commit(store.load(MODEL).without_subject("b"))
    assert ids(store.roll_back(3)) == ["a", "c"]
    assert ids(store.roll_back(5 - 1)) == ["a", "c"]


@pytest.mark.parametrize(
    ("version", "says"),
    [(3, "not one to go back to"), (1, "version 1 is not kept; there are: 2, 3, 4"), (9, "not kept")],
)
def test_a_version_that_is_not_kept_or_serves_is_nothing_to_go_back_to(
    store: GalleryStore, version: int, says: str
):
    enrol(store, "a", "b", "c", "d")
    with pytest.raises(GalleryError, match=says):
        store.roll_back(4 if version == 3 else version)
    assert store.current_version() == 4


def test_rolling_back_needs_a_gallery(store: GalleryStore):
    with pytest.raises(GalleryError, match="version 1 is not one to go back to"):
        store.roll_back(1)


def test_the_history_tells_what_each_version_holds_and_which_serves(store: GalleryStore, directory: Path):
    enrol(store, "a", "b", "c")
    made = [each.at for each in store.history()]
    store.commit(store.load(MODEL).without_subject("a"))
    damage(directory / "gallery-00000003.edge")
    told = store.history()
    assert [(each.version, each.size, each.model_id, each.serves) for each in told] == [
        (2, 1, MODEL, False),
        (3, None, None, False),
        (4, 2, MODEL, True),
    ]
    assert told[0].at == made[1], "an erasure does not make a version younger"


def test_a_gallery_of_another_model_is_refused_and_stays(store: GalleryStore):
    enrol(store, "a")
    with pytest.raises(ModelMismatchError, match=r"sface-int8@0123abcd.*sface-fp32@ffffffff.*enrol again"):
        store.load("sface-fp32@ffffffff")
    with pytest.raises(ModelMismatchError, match=r"dimension 128; the embedder .* dimension 512"):
        store.load(MODEL, 512)
    assert ids(store.load(MODEL, 128)) == ["a"]


def test_a_change_of_an_old_gallery_is_refused(store: GalleryStore):
    old = enrol(store, "a")
    enrol(store, "b")
    with pytest.raises(GalleryError, match=r"changed meanwhile \(from version 1 to 2\)"):
        store.commit(old.without_subject("a"))
    assert ids(store.load(MODEL)) == ["a", "b"]


def test_an_edit_sees_the_current_gallery_and_may_commit_more_than_once(store: GalleryStore):
    enrol(store, "a")
    with store.edit(MODEL, 128) as edit:
        assert ids(edit.gallery) == ["a"]
        edit.commit(edit.gallery.with_subject(Subject("b", ""), [template(unit_rows(1)[0])]))
        edit.commit(edit.gallery.without_subject("a"))
    assert ids(store.load(MODEL)) == ["b"]
    assert store.current_version() == 3


def test_an_edit_that_fails_changes_nothing(store: GalleryStore, directory: Path):
    enrol(store, "a")
    with pytest.raises(GalleryError, match="looks like a path"), store.edit(MODEL) as edit:
        edit.commit(edit.gallery.with_subject(Subject("../b", ""), [template(unit_rows(1)[0])]))
    assert store.current_version() == 1
    with store.edit(MODEL):  # the lock is free again
        pass


def test_who_waits_too_long_for_the_lock_is_told(store: GalleryStore, directory: Path):
    ticks = iter(range(1000))
    impatient = GalleryStore(directory, keep_versions=3, clock=lambda: float(next(ticks)), lock_timeout_s=3.0)
    with store.edit(MODEL):
        with pytest.raises(GalleryError, match="another process is changing the gallery"):
            impatient.commit(gallery_of([1]))
        assert impatient.load(MODEL).size == 0  # reading needs no lock
    assert impatient.commit(gallery_of([1])).version == 1


def test_foreign_files_are_left_alone(store: GalleryStore, directory: Path):
    enrol(store, "a")
    for name in ("gallery-1.edge", "gallery-00000009.edge.bak", "notes.txt", "gallery-00000009.edgex"):
        (directory / name).write_text("mine")
    enrol(store, "b", "c", "d", "e")
    assert {"gallery-1.edge", "gallery-00000009.edge.bak", "notes.txt"} < set(names(directory))
    assert store.current_version() == 5


def test_a_daemon_sees_a_change_at_its_next_look(store: GalleryStore, directory: Path):
    daemon = GalleryStore(directory, keep_versions=3)
    seen = daemon.current_version()
    enrol(store, "a")
    assert daemon.current_version() != seen
    assert ids(daemon.load(MODEL)) == ["a"]


def test_loading_while_another_thread_commits_gives_whole_galleries(store: GalleryStore, directory: Path):
    """With one version kept the pruning is as quick as can be: what a reader opens may just be gone."""
    rows = unit_rows(40)
    store.commit(gallery_of([1]))
    done = threading.Event()

    def commit_for_a_while() -> None:
        quick = GalleryStore(directory, keep_versions=1)
        while not done.is_set():
            with quick.edit(MODEL) as edit:
                count = edit.gallery.version % 39 + 1
                entries = [(Subject(f"p-{i}", str(count)), [template(rows[i])]) for i in range(count)]
                edit.commit(Gallery.empty(MODEL, edit.gallery.version).with_subjects(entries))

    writer = threading.Thread(target=commit_for_a_while)
    writer.start()
    try:
        loaded = []
        give_up_s = time.monotonic() + 60
        while len(loaded) < 200 or loaded[-1].version < 20:
            loaded.append(store.load(MODEL))
            assert time.monotonic() < give_up_s
    finally:
        done.set()
        writer.join()
    for gallery in loaded[1:]:
        assert gallery.version == 1 or {subject.label for subject in gallery.subjects} == {str(gallery.size)}
    versions = [gallery.version for gallery in loaded]
    assert versions == sorted(versions)
    assert store.set_aside == 0
