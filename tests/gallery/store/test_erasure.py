"""Who is removed is in no version that is kept, whatever comes between; and the audit can prove it."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import ErasureOwedError, GalleryError
from edge.core.types import Subject
from edge.gallery.store.erasure import Erased
from edge.gallery.store.store import GalleryStore
from edge.gallery.store.vault import Vault
from tests.support.disk import small_disk
from tests.support.gallery_samples import AT, MODEL, enrol, ids, names, template, unit_rows


@pytest.fixture
def store(tmp_path: Path) -> GalleryStore:
    return GalleryStore(tmp_path / "gallery", keep_versions=5, now=lambda: AT)


def remove(store: GalleryStore, *subject_ids: str) -> None:
    store.commit(store.load(MODEL).without_subjects(set(subject_ids)))


def kept(store: GalleryStore) -> list[list[str]]:
    """Return who is in each version that is kept, newest first."""
    return [ids(store._vault.read(version)) for version in reversed(store.versions())]


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


@pytest.mark.parametrize("step", ["fsync", "link", "rename"])
def test_a_rewrite_that_fails_leaves_the_version_and_is_done_later(
    store: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    enrol(store, "a", "b")
    old = tmp_path / "gallery" / "gallery-00000002.edge"
    with old.open("rb") as still_open:
        with monkeypatch.context() as patched:
            patched.setattr(os, step, failing_on_rewrites(getattr(os, step), step))
            with pytest.raises(ErasureOwedError, match=r"cannot write version 2: No space left .* stays;"):
                remove(store, "b")
        assert ids(store.load(MODEL)) == ["a"]
        assert store.versions() == [1, 2, 3], "what was there stays"
        assert names(tmp_path / "gallery") == [
            "current",
            "erasing",
            *(f"gallery-0000000{i}.edge" for i in (1, 2, 3)),
            "lock",
            "rights.sealed",
        ]
        assert audit(tmp_path) == [], "nothing is erased, so nothing is told"
        store.erase_owed()
        assert still_open.read(4096).strip(b"\0") == b""
    assert [(line["rewritten"], line["subjects"]) for line in audit(tmp_path)] == [([2], [hashed("b")])]
    assert all("b" not in found for found in kept(store))
    store.erase_owed()
    assert len(audit(tmp_path)) == 1


def test_a_disk_that_fails_between_rewrite_and_shredding_does_not_lose_what_is_to_be_shredded(
    store: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enrol(store, "a", "b")
    version = tmp_path / "gallery" / "gallery-00000002.edge"
    replaced, real = version.with_name(f"{version.name}.replaced"), os.fsync

    def fsync(descriptor: int) -> None:
        if replaced.exists() and not replaced.samefile(version):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with version.open("rb") as still_open:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fsync)
            with pytest.raises(
                ErasureOwedError, match="cannot write version 2 for good: Input/output error"
            ) as e:
                remove(store, "b")
        assert "stays" not in str(e.value)
        assert replaced.exists()
        store.erase_owed()
        assert still_open.read(4096).strip(b"\0") == b""
    assert not replaced.exists()
    assert [line["subjects"] for line in audit(tmp_path)] == [[hashed("b")]]


def test_on_a_full_disk_what_was_there_stays_and_a_retry_erases(tmp_path: Path):
    with small_disk(tmp_path / "disk", size="512k") as disk:
        if not disk.mounted:
            pytest.skip("mounting a small disk needs root")
        store = GalleryStore(disk.directory / "gallery", keep_versions=5, now=lambda: AT)
        enrol(store, "a", "b")
        many = [(Subject(f"n-{i}", ""), [template(row)]) for i, row in enumerate(unit_rows(200))]
        store.commit(store.load(MODEL).with_subjects(many))
        (disk.directory / "filler").write_bytes(bytes(180_000))  # room for the new version, not for the rest
        before = store.versions()
        with pytest.raises(ErasureOwedError, match=r"cannot write version 3: No space left"):
            store.commit(store.load(MODEL).without_subjects({"n-7"}))
        assert store.versions() == [*before, 4]
        with pytest.raises(ErasureOwedError):
            store.erase_owed()
        disk.free()
        store.erase_owed()
        assert all("n-7" not in found for found in kept(store))


def test_an_audit_that_a_full_disk_tore_goes_on_in_a_line_of_its_own(store: GalleryStore, tmp_path: Path):
    enrol(store, "a", "b")
    (tmp_path / "gallery" / "erasures.jsonl").write_text('{"at": "2026-0')
    remove(store, "b")
    torn, whole = (tmp_path / "gallery" / "erasures.jsonl").read_text().splitlines()
    assert (torn, json.loads(whole)["subjects"]) == ('{"at": "2026-0', [hashed("b")])


def test_who_was_removed_and_enrolled_again_is_erased_from_before(
    store: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enrol(store, "a", "b")
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", failing_on_rewrites(os.link, "link"))
        with pytest.raises(ErasureOwedError):
            remove(store, "b")
    enrol(store, "b")
    assert kept(store) == [["a", "b"], ["a"], ["a"], ["a"]]
    assert [line["subjects"] for line in audit(tmp_path)] == [[hashed("b")]]


def test_a_removal_that_could_not_be_made_erases_nobody(
    store: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enrol(store, "a", "b")
    with monkeypatch.context() as patched:
        patched.setattr(os, "symlink", failing_on_rewrites(os.symlink, "symlink", number=1))
        with pytest.raises(GalleryError, match="make version 3 the current one"):
            remove(store, "b")
    enrol(store, "c")
    assert kept(store) == [["a", "b", "c"], ["a", "b"], ["a"]]
    assert audit(tmp_path) == []


def test_who_was_rolled_back_from_stays_when_somebody_else_is_removed(store: GalleryStore, tmp_path: Path):
    enrol(store, "a", "y", "x")
    store.roll_back(2)
    remove(store, "y")
    assert kept(store) == [["a"], ["a"], ["a", "x"], ["a"], ["a"]]
    assert [line["subjects"] for line in audit(tmp_path)] == [[hashed("y")]]
    assert "x" not in Erased([tmp_path / "gallery"])
    assert ids(store.roll_back(3)) == ["a", "x"]


def test_who_was_rolled_back_from_stays_after_a_removal_that_could_not_be_made(
    store: GalleryStore, monkeypatch: pytest.MonkeyPatch
):
    enrol(store, "a", "x")
    store.roll_back(1)
    for settle in (store.erase_owed, lambda: enrol(store, "c")):
        with monkeypatch.context() as patched:
            patched.setattr(os, "symlink", failing_on_rewrites(os.symlink, "symlink", number=1))
            with pytest.raises(GalleryError, match="the current one"):
                remove(store, "a")
        settle()
        assert ["a", "x"] in kept(store)


@pytest.mark.parametrize("mark", ['{"removed": {}}', "torn"])
def test_a_mark_that_names_nobody_is_about_whoever_is_not_enrolled(
    store: GalleryStore, tmp_path: Path, mark: str
):
    enrol(store, "a", "b", "x")
    store.roll_back(2)
    (tmp_path / "gallery" / "erasing").write_text(mark)
    remove(store, "b")
    assert kept(store) == [["a"]] * 5
    assert [line["subjects"] for line in audit(tmp_path)] == [sorted([hashed("b"), hashed("x")])]


@pytest.mark.parametrize("also", [["x", "nobody"], None], ids=["one", "all"])
def test_who_was_rolled_back_from_can_be_erased_too(
    store: GalleryStore, tmp_path: Path, also: list[str] | None
):
    enrol(store, "a", "x")
    store.roll_back(1)
    assert store.erase_owed(also)
    assert kept(store) == [["a"], ["a"], ["a"]]
    assert [line["subjects"] for line in audit(tmp_path)] == [[hashed("x")]]
    assert not store.erase_owed(["x"])


def test_a_roll_back_that_has_to_wait_for_an_erasure_does_not_say_that_it_is_made(
    store: GalleryStore, monkeypatch: pytest.MonkeyPatch
):
    enrol(store, "a", "b", "c")
    monkeypatch.setattr(os, "link", failing_on_rewrites(os.link, "link"))
    for act, says in (
        (lambda: remove(store, "b"), "the change is made, but who was removed is still"),
        (lambda: store.roll_back(1), "who was removed is still in older versions"),
        (store.erase_owed, "who was removed is still in older versions"),
    ):
        with pytest.raises(ErasureOwedError, match=f"^{says}"):
            act()
        assert store.current_version() == 4


def failing_on_rewrites(real: Callable[..., Any], step: str, number: int = 2) -> Callable[..., Any]:
    """Return a step of the disk that finds it full from the rewrite of a version on."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        where = str(Path(f"/proc/self/fd/{args[0]}").readlink() if step == "fsync" else args[0])
        calls += step in ("link", "symlink") or where.endswith("new.tmp")
        if calls >= (1 if step == "link" else number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    return call
