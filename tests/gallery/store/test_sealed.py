"""The device's key, and files that it seals: private, whole, and opened only as what they are."""

import re
from pathlib import Path

import pytest

from edge.core.errors import FileError, GalleryError, GalleryIntegrityError
from edge.gallery.format.seal import Binding
from edge.gallery.store.sealed import SealedFiles, device_key


def test_a_key_is_made_once_and_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "state" / "device.key"
    key = device_key(path, make=True)
    assert len(key) == 32
    assert device_key(path, make=True) == device_key(path, make=False) == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_devices_have_two_keys(tmp_path):
    assert device_key(tmp_path / "a", make=True) != device_key(tmp_path / "b", make=True)


def test_a_key_that_should_be_there_is_not_made(tmp_path):
    with pytest.raises(FileError, match="there is no key"):
        device_key(tmp_path / "device.key", make=False)
    assert not (tmp_path / "device.key").exists()


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        pytest.param("00" * 32, 0o644, "chmod 600", id="readable by others"),
        pytest.param("00" * 31, 0o600, "not a key", id="too short"),
        pytest.param("zz" * 32, 0o600, "not a key", id="no digits"),
        pytest.param("", 0o600, "not a key", id="empty"),
    ],
)
def test_a_key_that_cannot_be_used_is_kept_and_named(tmp_path, text: str, mode: int, why: str):
    path = tmp_path / "device.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(FileError, match=why):
        device_key(path, make=True)
    assert path.read_text() == text


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"state: cannot be made: Not a directory"):
        device_key(tmp_path / "file" / "state" / "device.key", make=True)


NAMES = re.compile(r"[a-z]+\.sealed")
A, B = Binding("tests", "a", "", 1), Binding("tests", "b", "", 1)


@pytest.fixture
def sealed(tmp_path: Path) -> SealedFiles:
    return SealedFiles(tmp_path / "faces", tmp_path / "device.key", make_key=True)


def test_what_was_written_comes_back_and_lies_sealed_in_a_private_directory(
    sealed: SealedFiles, tmp_path: Path
):
    assert sealed.read("a.sealed", A, 100) is None
    assert sealed.named(NAMES) == []
    sealed.write("a.sealed", b"secret", A)
    assert sealed.read("a.sealed", A, 100) == b"secret"
    assert [found[0] for found in sealed.named(NAMES)] == ["a.sealed"]
    path = tmp_path / "faces" / "a.sealed"
    assert b"secret" not in path.read_bytes()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_file_opens_only_as_what_it_was_sealed_as_and_only_up_to_its_bound(sealed: SealedFiles):
    sealed.write("a.sealed", b"secret", A)
    with pytest.raises(GalleryIntegrityError):
        sealed.read("a.sealed", B, 100)
    with pytest.raises(FileError, match="larger than 10 bytes"):
        sealed.read("a.sealed", A, 10)


def test_a_key_that_is_lost_is_not_made_anew_by_who_reads(sealed: SealedFiles, tmp_path: Path):
    sealed.write("a.sealed", b"secret", A)
    (tmp_path / "device.key").unlink()
    with pytest.raises(FileError, match="there is no key"):
        sealed.read("a.sealed", A, 100)
    assert not (tmp_path / "device.key").exists()


def test_a_directory_that_cannot_be_made_or_read_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    sealed = SealedFiles(tmp_path / "file", tmp_path / "device.key", make_key=True)
    with pytest.raises(GalleryError, match="cannot be made"):
        sealed.write("a.sealed", b"", A)
    with pytest.raises(GalleryError, match="cannot be read: Not a directory"):
        sealed.named(NAMES)


def test_one_file_that_cannot_be_deleted_does_not_keep_the_others(sealed: SealedFiles, tmp_path: Path):
    for name in ("a.sealed", "b.sealed", "c.sealed"):
        sealed.write(name, b"secret", A)
    (tmp_path / "faces" / "b.sealed").unlink()
    (tmp_path / "faces" / "b.sealed").mkdir()
    with pytest.raises(FileError, match=r"b\.sealed: cannot be deleted"):
        sealed.delete(["a.sealed", "b.sealed", "c.sealed"])
    assert [path.name for path in (tmp_path / "faces").iterdir()] == ["b.sealed"]
    assert sealed.delete(["gone.sealed"]) == 1, "what is gone is deleted"
