"""What lies on the disk: nothing to read without the device's key, nothing that opens as something else."""

from pathlib import Path

import pytest

from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.gallery.store.store import GalleryStore
from edge.gallery.store.vault import HEADER, decrypt, encrypt
from tests.support.gallery_samples import MODEL, assert_equal, enrol, gallery_of

KEY, OTHER = b"k" * 32, b"o" * 32
PLAIN = b"templates and labels " * 100
SEALED = encrypt(PLAIN, MODEL, 7, KEY)


def test_what_is_encrypted_comes_back():
    assert decrypt(SEALED, 7, KEY) == PLAIN
    assert PLAIN[:21] not in SEALED


def test_every_version_has_a_key_of_its_own():
    assert encrypt(PLAIN, MODEL, 7, KEY)[HEADER.size :] != SEALED[HEADER.size :]


def changed(at: int, mask: int = 1) -> bytes:
    return SEALED[:at] + bytes([SEALED[at] ^ mask]) + SEALED[at + 1 :]


DAMAGE = [
    pytest.param(b"", id="empty"),
    pytest.param(SEALED[:20], id="half a header"),
    pytest.param(SEALED[: HEADER.size], id="a header alone"),
    pytest.param(SEALED[:-1], id="truncated"),
    pytest.param(SEALED + b"x", id="longer"),
    pytest.param(changed(0), id="other magic"),
    pytest.param(changed(15, 0x40), id="a model id of a gigabyte"),
    pytest.param(changed(12), id="a longer model id"),
    pytest.param(changed(60), id="data key"),
    pytest.param(changed(HEADER.size + 72), id="model id"),
    pytest.param(changed(HEADER.size + 72, 0x80), id="model id that is no text"),
    pytest.param(changed(len(SEALED) - 1), id="last byte"),
    pytest.param(changed(len(SEALED) // 2), id="a byte in the middle"),
    pytest.param(bytes(4096) + SEALED[4096:], id="shredded"),
]


@pytest.mark.parametrize("data", DAMAGE)
def test_what_was_altered_does_not_open(data: bytes):
    with pytest.raises(GalleryIntegrityError):
        decrypt(data, 7, KEY)


def test_a_version_under_the_name_of_another_does_not_open():
    with pytest.raises(GalleryIntegrityError):
        decrypt(SEALED, 8, KEY)


def test_another_device_s_key_is_told_and_is_no_damage():
    with pytest.raises(GalleryError, match="another device key") as caught:
        decrypt(SEALED, 7, OTHER)
    assert not isinstance(caught.value, GalleryIntegrityError)


def test_a_newer_format_is_told_and_is_no_damage():
    with pytest.raises(GalleryError, match="update edge") as caught:
        decrypt(changed(8, 2), 7, KEY)
    assert not isinstance(caught.value, GalleryIntegrityError)


def everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_nothing_of_a_subject_can_be_read_from_the_disk(tmp_path: Path):
    store = GalleryStore(tmp_path / "gallery", keep_versions=3)
    gallery = store.commit(gallery_of([2, 1]))
    on_disk = everything(tmp_path / "gallery")
    assert len(on_disk) > gallery.matrix.nbytes
    for secret in (gallery.matrix[0].tobytes()[:32], b"Subject 0", b"p-0", b"staff"):
        assert secret not in on_disk


def test_a_lost_key_is_told_and_neither_replaced_nor_taken_for_damage(tmp_path: Path):
    store = GalleryStore(tmp_path / "gallery", keep_versions=3)
    first = store.commit(gallery_of([1]))
    key = tmp_path / "device.key"
    secret = key.read_bytes()
    key.unlink()
    for asked in (lambda: store.load(MODEL), lambda: store.commit(first)):
        with pytest.raises(GalleryError, match=r"the gallery is encrypted: device key: .*there is no key"):
            asked()
    assert not key.exists()
    key.write_bytes(secret)
    key.chmod(0o600)
    assert_equal(store.load(MODEL), first)
    assert store.set_aside == 0


def test_a_key_that_is_configured_is_never_made(tmp_path: Path):
    store = GalleryStore(tmp_path / "gallery", keep_versions=3, key=tmp_path / "tpm", make_key=False)
    assert store.load(MODEL).size == 0
    with pytest.raises(GalleryError, match="there is no key"):
        store.commit(gallery_of([1]))
    assert store.versions() == []


def test_a_second_key_opens_nothing_and_loses_nothing(tmp_path: Path):
    store = GalleryStore(tmp_path / "gallery", keep_versions=3)
    enrol(store, "a", "b")
    (tmp_path / "device.key").write_text("ab" * 32)
    with pytest.raises(GalleryError, match="another device key"):
        store.load(MODEL)
    assert store.versions() == [1, 2]
