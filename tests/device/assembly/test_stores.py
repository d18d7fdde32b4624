"""Where a device keeps what: the candidate of an earlier release is found, and moved once."""

from pathlib import Path

from edge.core.types import Subject
from edge.device.assembly.stores import candidate_store, erased_here
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from tests.support.gallery_samples import template, unit_rows


def test_the_candidate_of_the_last_release_is_moved_to_its_place_now(tmp_path: Path):
    settings = load(None, {"state_dir": str(tmp_path)})
    before = GalleryStore(tmp_path / "gallery-next", keep_versions=5, key=settings.device_key_path)
    before.commit(Gallery.empty("m").with_subjects([(Subject("p-1", ""), [template(unit_rows(1)[0], "m")])]))
    for _ in range(2):
        assert [each.subject_id for each in candidate_store(settings).load("m").subjects] == ["p-1"]
        assert sorted(path.name for path in tmp_path.glob("gallery-*")) == ["gallery-candidate"]
    with candidate_store(settings).edit("m") as edit:
        edit.commit(edit.gallery.without_subject("p-1"))
    assert "p-1" in erased_here(settings)


def test_a_candidate_that_cannot_be_moved_serves_where_it_is(tmp_path: Path, monkeypatch):
    settings = load(None, {"state_dir": str(tmp_path)})
    before = GalleryStore(tmp_path / "gallery-next", keep_versions=5, key=settings.device_key_path)
    before.commit(Gallery.empty("m"))

    def refuse(path: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    assert candidate_store(settings).current_version() == before.current_version() == 1
