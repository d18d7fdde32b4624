"""What the store does about versions and pointers that are damaged or lost."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.gallery.format.bundle import FORMAT, encode
from edge.gallery.store.sealed import device_key
from edge.gallery.store.store import GalleryStore
from edge.gallery.store.vault import encrypt
from tests.gallery.format.test_bundle import forge
from tests.support.gallery_samples import MODEL, damage, enrol, gallery_of, ids, names


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gallery"


@pytest.fixture
def store(directory: Path) -> GalleryStore:
    return GalleryStore(directory, keep_versions=3)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(damage, id="bit flip"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:100]), id="truncated"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(encode(gallery_of([1]))), id="another version inside"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a directory"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), id="a link elsewhere"),
        pytest.param(lambda path: (path.unlink(), os.mkfifo(path)), id="a pipe"),
    ],
)
def test_a_damaged_version_is_set_aside_and_the_last_good_serves(
    spoil: Callable[[Path], object], store: GalleryStore, directory: Path, caplog: pytest.LogCaptureFixture
):
    enrol(store, "a", "b", "c")
    spoil(directory / "gallery-00000003.edge")
    with caplog.at_level(logging.WARNING):
        assert ids(store.load(MODEL)) == ["a", "b"]
    assert store.set_aside == 1
    assert "version 3 was set aside" in caplog.text
    assert "gallery-00000003.edge.corrupt" in names(directory)
    assert store.current_version() == 2
    caplog.clear()
    assert ids(store.load(MODEL)) == ["a", "b"]
    assert (store.set_aside, caplog.text) == (1, "")
    assert enrol(store, "d").version == 4  # never a number that was seen before


def test_several_damaged_versions_are_passed_over(store: GalleryStore, directory: Path):
    enrol(store, "a", "b", "c")
    damage(directory / "gallery-00000003.edge")
    damage(directory / "gallery-00000002.edge")
    assert ids(store.load(MODEL)) == ["a"]
    assert store.set_aside == 2


def test_what_never_came_into_force_never_serves_in_place_of_a_damaged_version(
    store: GalleryStore, directory: Path
):
    enrol(store, "a", "b", "c")
    store._files.point(2)
    damage(directory / "gallery-00000002.edge")
    assert ids(store.load(MODEL)) == ["a"]


def test_a_gallery_without_a_readable_version_is_an_error_and_not_an_empty_gallery(
    store: GalleryStore, directory: Path
):
    enrol(store, "a")
    damage(directory / "gallery-00000001.edge")
    for _ in range(2):
        with pytest.raises(GalleryError, match=r"no version of the gallery can be read .*altered.*backup"):
            store.load(MODEL)
    with pytest.raises(GalleryError, match="no version"), store.edit(MODEL):
        pass
    (directory / "gallery-00000001.edge").unlink()
    with pytest.raises(GalleryError, match=r"no version of the gallery can be read .*missing"):
        store.load(MODEL)


def test_a_gallery_of_a_newer_format_is_refused_but_not_set_aside(store: GalleryStore, directory: Path):
    enrol(store, "a", "b")
    (directory / "gallery-00000002.edge").write_bytes(
        encrypt(forge(format=FORMAT + 1), MODEL, 2, device_key(directory.parent / "device.key", make=False))
    )
    with pytest.raises(GalleryError, match=f"format {FORMAT + 1} is unknown"):
        store.load(MODEL)
    assert store.versions() == [1, 2]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.unlink(), id="removed"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("../../etc/passwd")), id="elsewhere"),
        pytest.param(lambda path: (path.unlink(), path.write_bytes(b"x")), id="a copy instead of a link"),
    ],
)
def test_a_lost_pointer_is_mended_from_the_newest_good_version(
    spoil: Callable[[Path], object], store: GalleryStore, directory: Path
):
    enrol(store, "a", "b")
    spoil(directory / "current")
    assert ids(store.load(MODEL)) == ["a", "b"]
    assert store.current_version() == 2
    assert store.set_aside == 0


def test_a_version_that_cannot_be_read_is_not_gone_back_to(store: GalleryStore, directory: Path):
    enrol(store, "a", "b", "c")
    damage(directory / "gallery-00000002.edge")
    with pytest.raises(GalleryIntegrityError):
        store.roll_back(2)
    assert ids(store.load(MODEL)) == ["a", "b", "c"]
