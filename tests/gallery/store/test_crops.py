"""Faces of enrolment, kept where the operator chose to: sealed, and gone with the subject."""

import base64
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.core.errors import GalleryIntegrityError
from edge.gallery.format.seal import Binding, seal
from edge.gallery.store.crops import GAP_PX, MAX_CROPS, CropStore, contact_sheet
from edge.gallery.store.sealed import device_key

PNG = b"\x89PNG\r\n\x1a\n"
"""How a PNG file begins; three letters of it stand in one of a hundred ciphertexts by chance."""

CROPS = [np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8) for seed in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> CropStore:
    return CropStore(tmp_path / "crops", tmp_path / "device.key")


def test_faces_come_back_to_the_pixel_and_lie_sealed(store: CropStore, tmp_path: Path):
    assert store.load("p-1") == []
    store.save("p-1", CROPS)
    assert [crop.tobytes() for crop in store.load("p-1")] == [crop.tobytes() for crop in CROPS]
    [path] = (tmp_path / "crops").iterdir()
    assert "p-1" not in path.name
    data = path.read_bytes()
    assert PNG not in data
    assert base64.b64encode(PNG)[:10] not in data
    assert path.stat().st_mode & 0o777 == 0o600


def test_faces_that_the_version_before_has_kept_are_read(store: CropStore, tmp_path: Path):
    store.save("p-2", CROPS)
    plain = json.dumps([base64.b64encode(cv2.imencode(".png", CROPS[0])[1].tobytes()).decode()]).encode()
    key = device_key(tmp_path / "device.key", make=False)
    name = f"{hashlib.sha256(b'p-1').hexdigest()[:32]}.sealed"
    (tmp_path / "crops" / name).write_bytes(seal(plain, key, Binding("crops", "p-1", "", 1)))
    assert [crop.tobytes() for crop in store.load("p-1")] == [CROPS[0].tobytes()]


def test_only_so_many_are_kept(store: CropStore):
    store.save("p-1", CROPS * 10)
    assert len(store.load("p-1")) == MAX_CROPS


def test_they_go_with_the_subject(store: CropStore, tmp_path: Path):
    store.save("p-1", CROPS)
    store.save("p-2", CROPS[:1])
    store.remove(["p-1", "nobody"])
    assert store.load("p-1") == []
    assert len(store.load("p-2")) == 1


def test_faces_of_one_subject_are_not_shown_as_anothers(store: CropStore, tmp_path: Path):
    store.save("p-1", CROPS)
    [path] = (tmp_path / "crops").iterdir()
    store.save("p-2", CROPS)
    [other] = [each for each in (tmp_path / "crops").iterdir() if each != path]
    other.write_bytes(path.read_bytes())
    with pytest.raises(GalleryIntegrityError):
        store.load("p-2")


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (6, 6, 1), (7, 6, 2)])
def test_a_sheet_shows_all_of_them(count: int, columns: int, rows: int):
    crops = (CROPS * 3)[:count]
    sheet = contact_sheet(crops)
    cell = 112 + GAP_PX
    assert sheet.shape == (rows * cell + GAP_PX, columns * cell + GAP_PX, 3)
    for number, crop in enumerate(crops):
        y, x = (GAP_PX + cell * i for i in divmod(number, 6))
        np.testing.assert_array_equal(sheet[y : y + 112, x : x + 112], crop)
