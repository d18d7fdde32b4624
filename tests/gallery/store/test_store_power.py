"""The power goes at any step of a change: the old gallery or the new one, and who was removed is gone."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.core.errors import GalleryError
from edge.gallery.format.bundle import decode
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from edge.gallery.store.vault import decrypt
from tests.gallery.store.test_erasure import hashed
from tests.support.gallery_samples import AT, MODEL, enrol, gallery_of, ids
from tests.support.powercuts import Recorder, laid_out, recorded

Change = Callable[[GalleryStore], object]


def store_in(state: Path) -> GalleryStore:
    return GalleryStore(state / "gallery", keep_versions=3, now=lambda: AT)


def remove_b(store: GalleryStore) -> None:
    store.commit(store.load(MODEL).without_subject("b"))


def install_the_fleets(store: GalleryStore) -> None:
    store.commit(replace(gallery_of([1, 2]), version=store.current_version()))


def enrol_another(store: GalleryStore) -> None:
    enrol(store, "new")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    enrol(store_in(state), "a", "b", "c", "d")
    return state


CHANGES = {
    "a removal": (remove_b, ["a", "b", "c", "d"], ["a", "c", "d"]),
    "a synchronised gallery": (install_the_fleets, ["a", "b", "c", "d"], ["p-0", "p-1"]),
    "an enrolment": (enrol_another, ["a", "b", "c", "d"], ["a", "b", "c", "d", "new"]),
}


@pytest.mark.parametrize(("change", "before", "after"), CHANGES.values(), ids=CHANGES)
def test_after_a_power_cut_the_old_or_the_new_gallery_serves_and_never_a_torn_one(
    state: Path, tmp_path: Path, change: Change, before: list[str], after: list[str]
):
    gone = set(before) - set(after)
    with recorded(state) as recorder:
        change(store_in(state))
        recorder.done = True
        recorder.look()
        assert not [each for each in recorder.lost().values() if gone & set(held_in(each, state))]
    seen, number = set(), 0
    for done, copy in disks(recorder, tmp_path):
        number += 1
        store = store_in(copy)
        found = tuple(ids(store.load(MODEL)))
        assert found in ((tuple(after),) if done else (tuple(before), tuple(after)))
        assert store.set_aside == 0, "a version was torn"
        if done:
            assert not gone & names_on(copy)
        seen.add(found)
    assert seen == {tuple(before), tuple(after)}
    assert number > 10


@pytest.mark.parametrize("change", ["a removal", "a synchronised gallery"])
def test_an_erasure_that_a_power_cut_ended_is_finished_later_and_told_in_the_audit(
    state: Path, tmp_path: Path, change: str
):
    act, before, after = CHANGES[change]
    gone = set(before) - set(after)
    with recorded(state) as recorder:
        act(store_in(state))
    for _, copy in disks(recorder, tmp_path):
        store = store_in(copy)
        changed = ids(store.load(MODEL)) == after
        try:
            store.erase_owed()
        except GalleryError as error:
            pytest.fail(str(error))
        if changed:
            assert not gone & names_on(copy)
            lines = (copy / "gallery" / "erasures.jsonl").read_text().splitlines()
            told = [json.loads(line) for line in lines if line.endswith("}")]  # a torn one is told again
            assert {hashed(each) for each in gone} <= {name for line in told for name in line["subjects"]}
        else:
            assert gone <= names_on(copy), "nobody was removed, so nobody is erased"


def test_what_a_rewritten_version_was_keeps_a_name_until_it_is_shredded(state: Path):
    with recorded(state) as recorder:
        remove_b(store_in(state))
    for moment in recorder.moments:
        named = [set(names.values()) for names in moment.directories["gallery"]]
        for inode, contents in moment.contents.items():
            if any("b" in held_in(each, state) for each in contents):
                assert all(inode in names for names in named), f"step {moment.step}: lost, and can be read"


def disks(recorder: Recorder, tmp_path: Path) -> Iterator[tuple[bool, Path]]:
    """Yield each different disk that the power cuts may leave, laid out, and whether the change was done."""
    seen = set()
    for moment in recorder.moments:
        for disk in moment.disks():
            key = (moment.done, repr(disk))
            if key not in seen:
                seen.add(key)
                copy = tmp_path / "copy"
                yield moment.done, laid_out(disk, copy)
                shutil.rmtree(copy)


def names_on(state: Path) -> set[str]:
    """Return everybody whose templates can be read from any file of the gallery, whatever its name."""
    files = [path for path in (state / "gallery").iterdir() if path.is_file() and not path.is_symlink()]
    return {name for path in files for name in held_in(path.read_bytes(), state)}


def held_in(data: bytes, state: Path) -> list[str]:
    key = bytes.fromhex((state / "device.key").read_text())
    for version in range(1, 10):
        try:
            gallery: Gallery = decode(decrypt(data, version, key))
            return ids(gallery)
        except GalleryError:
            continue
    return []
