"""Who is removed is in no version that is kept, whatever comes between; and the audit can prove it."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from edge.errors import GalleryError
from edge.gallery.store import GalleryStore
from edge.gallery.vault import Vault
from tests.gallery.samples import AT, MODEL, enrol


@pytest.fixture
def store(tmp_path: Path) -> GalleryStore:
    return GalleryStore(tmp_path / "gallery", keep_versions=5, now=lambda: AT)


def remove(store: GalleryStore, *subject_ids: str) -> None:
    store.commit(store.load(MODEL).without_subjects(set(subject_ids)))


def kept(store: GalleryStore) -> list[list[str]]:
    """Return who is in each version that can be rolled back to, newest first."""
    found = []
    while True:
        found.append([subject.subject_id for subject in store.load(MODEL).subjects])
        try:
            store.roll_back()
        except GalleryError:
            return found


def audit(tmp_path: Path) -> list[dict[str, object]]:
    path = tmp_path / "gallery" / "erasures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def hashed(subject_id: str) -> str:
    return hashlib.sha256(subject_id.encode()).hexdigest()[:16]


def test_who_is_removed_is_in_no_version_that_is_kept(store: GalleryStore, tmp_path: Path):
    enrol(store, "a", "b", "c")
    remove(store, "b")
    assert kept(store) == [["a", "c"], ["a", "c"], ["a"], ["a"]]
    assert audit(tmp_path) == [
        {
            "at": "2026-08-01T07:31:22+00:00",
            "gallery_version": 4,
            "rewritten": [2, 3],
            "subjects": [hashed("b")],
        }
    ]


def test_who_is_only_added_or_changed_costs_no_other_version(store: GalleryStore, tmp_path: Path):
    enrol(store, "a", "b")
    before = (tmp_path / "gallery" / "gallery-00000001.edge").read_bytes()
    enrol(store, "c", "a")
    assert (tmp_path / "gallery" / "gallery-00000001.edge").read_bytes() == before
    assert audit(tmp_path) == []


def test_the_old_file_is_shredded_before_it_goes(store: GalleryStore, tmp_path: Path):
    enrol(store, "a", "b")
    with (tmp_path / "gallery" / "gallery-00000002.edge").open("rb") as still_open:
        remove(store, "b")
        assert os.fstat(still_open.fileno()).st_nlink == 0
        assert still_open.read(4096).strip(b"\0") == b""


def test_pruned_versions_are_shredded_too(tmp_path: Path):
    store = GalleryStore(tmp_path / "gallery", keep_versions=1)
    enrol(store, "a")
    with (tmp_path / "gallery" / "gallery-00000001.edge").open("rb") as still_open:
        enrol(store, "b")
        assert still_open.read(4096).strip(b"\0") == b""


def test_an_erasure_that_was_interrupted_is_done_with_the_next_change(
    store: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enrol(store, "a", "b", "c")
    write = Vault.write

    def fail_on_old(self: Vault, gallery: object) -> None:
        if gallery.version < 4:  # type: ignore[attr-defined]
            raise GalleryError("the power went")
        write(self, gallery)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Vault, "write", fail_on_old)
        with pytest.raises(GalleryError, match=r"the change is made, .* older versions: the power went"):
            remove(store, "b")
    assert [subject.subject_id for subject in store.load(MODEL).subjects] == ["a", "c"]
    enrol(store, "d")
    assert all("b" not in names for names in kept(store))
    assert [line["subjects"] for line in audit(tmp_path)] == [[hashed("b")]]


def test_what_cannot_be_read_may_hold_anybody_and_goes(store: GalleryStore, tmp_path: Path):
    enrol(store, "a", "b", "c")
    damaged = tmp_path / "gallery" / "gallery-00000002.edge"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    aside = tmp_path / "gallery" / "gallery-00000001.edge"
    aside.rename(aside.with_name(aside.name + ".corrupt"))
    remove(store, "b")
    left = sorted(path.name for path in (tmp_path / "gallery").glob("gallery-*"))
    assert left == ["gallery-00000003.edge", "gallery-00000004.edge"]


def test_a_gallery_that_could_not_be_read_before_owes_an_erasure(store: GalleryStore, tmp_path: Path):
    enrol(store, "a")
    version = store.load(MODEL)
    (tmp_path / "gallery" / "gallery-00000001.edge").write_bytes(b"torn")
    store.commit(version.without_subjects({"a"}))
    assert store.versions() == [2]
