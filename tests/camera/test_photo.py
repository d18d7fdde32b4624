"""Photos as people and attackers send them."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import MAX_PIXELS, decode_photo, read_photo
from edge.core.errors import MediaError

PICTURE = np.random.default_rng(0).integers(0, 255, (60, 40, 3), np.uint8)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    ok, data = cv2.imencode(suffix, image)
    assert ok
    return data.tobytes()


def png_claiming(width: int, height: int) -> bytes:
    """A tiny file whose header promises an enormous picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def rotated_jpeg(orientation: int) -> bytes:
    """A JPEG 40 wide and 60 high whose EXIF asks to be turned."""
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"
        + struct.pack(">HH", orientation, 0)
        + b"\0\0\0\0"
    )
    jpeg = encoded(PICTURE, ".jpg")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".pgm"])
def test_usual_formats_are_read(tmp_path: Path, suffix: str):
    image = PICTURE[..., 0] if suffix == ".pgm" else PICTURE
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(encoded(image, suffix))
    assert read_photo(path).shape == (60, 40, 3)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(PICTURE[..., 0], id="grey"),
        pytest.param(np.dstack([PICTURE, PICTURE[..., 0]]), id="rgba"),
        pytest.param(PICTURE.astype(np.uint16) * 257, id="16-bit"),
        pytest.param(PICTURE[..., 0].astype(np.uint16) * 257, id="16-bit grey"),
    ],
)
def test_unusual_pixels_become_bgr_8_bit(image: np.ndarray):
    photo = decode_photo(encoded(image), "photo")
    assert photo.shape == (60, 40, 3)
    assert photo.dtype == np.uint8
    assert abs(float(photo.mean()) - float(PICTURE.mean())) < 8


def test_an_exif_rotated_photo_comes_upright():
    assert decode_photo(rotated_jpeg(1), "photo").shape == (60, 40, 3)
    assert decode_photo(rotated_jpeg(6), "photo").shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"hello, I am a letter", "not a photo", id="text"),
        pytest.param(b"\x00" * 5000, "not a photo", id="zeros"),
        pytest.param(b"<svg xmlns='x' width='100' height='100'></svg>", "damaged", id="svg"),
        pytest.param(encoded(PICTURE)[:60], "damaged", id="truncated png"),
        pytest.param(encoded(PICTURE[:1, :1]), "too few", id="1x1"),
        pytest.param(png_claiming(60_000, 60_000), "too many", id="png bomb"),
        pytest.param(png_claiming(8000, MAX_PIXELS // 8000), "damaged", id="png that lies within the limit"),
    ],
)
def test_bad_photos_get_one_clear_line(data: bytes, says: str):
    with pytest.raises(MediaError, match=says) as caught:
        decode_photo(data, "me.jpg")
    assert str(caught.value).startswith("me.jpg: ")
    assert "\n" not in str(caught.value)


def test_an_absent_photo_and_a_directory_are_named(tmp_path: Path):
    with pytest.raises(MediaError, match="No such file"):
        read_photo(tmp_path / "nobody.jpg")
    with pytest.raises(MediaError, match="Is a directory"):
        read_photo(tmp_path)
