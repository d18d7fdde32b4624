"""Photos as people and attackers send them."""

import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.photo import COMMAND_PIXELS, HALVED_PIXELS, MAX_PIXELS, decode_photo, fit_photo, read_photo
from edge.core.errors import MediaError
from tests.support.places import ROOT

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


@pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tiff", ".pgm"])
def test_usual_formats_are_read(tmp_path: Path, suffix: str):
    image = PICTURE[..., 0] if suffix == ".pgm" else PICTURE
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(encoded(image, ".jpg" if suffix == ".jfif" else suffix))
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


HEIC_HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def heic(image: np.ndarray) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = BytesIO()
    height, width = image.shape[:2]
    pillow_heif.from_bytes("RGB", (width, height), image[..., ::-1].tobytes()).save(file, quality=95)
    return file.getvalue()


def test_a_photo_as_phones_save_it_is_read():
    smooth = cv2.resize(PICTURE[::12, ::12], (200, 300), interpolation=cv2.INTER_CUBIC)
    photo = decode_photo(heic(smooth), "me.heic")
    assert photo.shape == (300, 200, 3)
    assert photo.dtype == np.uint8
    assert float(np.abs(photo.astype(int) - smooth).mean()) < 8


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "damaged", id="half of it"),
        pytest.param(lambda data: HEIC_HEADER + bytes(400), "damaged", id="only its beginning"),
        pytest.param(
            lambda data: data.replace(struct.pack(">II", 200, 300), struct.pack(">II", 60_000, 60_000)),
            "too many|damaged",
            id="promises 3.6 billion pixels",
        ),
    ],
)
def test_a_damaged_photo_of_a_phone_gets_one_clear_line(spoil, says: str):
    data = heic(cv2.resize(PICTURE, (200, 300)))
    with pytest.raises(MediaError, match=rf"^me\.heic: .*({says})"):
        decode_photo(spoil(data), "me.heic")


def test_a_photo_of_a_phone_is_too_large_where_a_jpeg_would_be():
    with pytest.raises(MediaError, match="too many"):
        decode_photo(heic(cv2.resize(PICTURE, (200, 300))), "me.heic", max_pixels=50_000)


def test_without_the_extra_it_is_said_how_a_phone_saves_jpegs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MediaError, match=r"^me\.heic: a HEIC photo.*`heic`.*iPhone.*Most Compatible"):
        decode_photo(HEIC_HEADER + bytes(400), "me.heic")


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "p-1.jpg")
    with pytest.raises(MediaError, match="it is a pipe"):
        read_photo(tmp_path / "p-1.jpg")


def test_an_absent_photo_and_a_directory_are_named(tmp_path: Path):
    with pytest.raises(MediaError, match="No such file"):
        read_photo(tmp_path / "nobody.jpg")
    with pytest.raises(MediaError, match="Is a directory"):
        read_photo(tmp_path)


def test_a_chunk_that_promises_more_than_the_file_holds_is_not_believed():
    """57 bytes made OpenCV allocate 4.2 GB."""
    whole = encoded(PICTURE)
    at = whole.index(b"IDAT") - 4
    lying = whole[:at] + struct.pack(">I", 0xFFFF_FFF0) + whole[at + 4 :]
    with pytest.raises(MediaError, match="damaged"):
        decode_photo(lying, "photo")


def test_a_photo_of_few_bytes_and_many_pixels_is_made_to_fit_a_command():
    side_px = int(COMMAND_PIXELS**0.5)
    fits, many = encoded(np.zeros((side_px, side_px), np.uint8)), encoded(np.zeros((3000, 6000), np.uint8))
    assert fit_photo(fits, "a photo", len(fits)) is fits
    small = fit_photo(many, "a photo", len(many))
    assert decode_photo(small, "it", max_pixels=COMMAND_PIXELS).shape == (800, 1600, 3)


def test_a_very_large_photo_of_a_phone_is_read_at_half_its_size():
    side = int(HALVED_PIXELS**0.5) + 8
    large = encoded(np.full((side, side, 3), 90, np.uint8), ".jpg")
    assert decode_photo(large, "photo").shape[0] == (side + 1) // 2
    with pytest.raises(MediaError, match="too many"):
        decode_photo(large, "photo", max_pixels=12_000_000)


FUZZ = """
import random, sys
import numpy as np
import edge
from edge.camera.photo import decode_photo
from edge.core.errors import MediaError
import cv2

def peak_mb():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmPeak")).split()[1]) / 1024

suffix, rounds = sys.argv[1], int(sys.argv[2])
picture = np.random.default_rng(0).integers(0, 255, (160, 120, 3), np.uint8)
picture = picture[..., 0] if suffix == ".pgm" else picture
whole = cv2.imencode(suffix, picture)[1].tobytes()
decode_photo(whole, "warm")
before, dice = peak_mb(), random.Random(7)
for _ in range(rounds):
    data = bytearray(whole)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(min(len(data), 400))
        data[at : at + 4] = dice.choice([b"\\xff" * 4, bytes(dice.randbytes(4)), b"\\x7f\\xff\\xff\\xf0"])
    try:
        image = decode_photo(bytes(data), "fuzzed", max_pixels=1_000_000)
    except MediaError:
        continue
print(round(peak_mb() - before))
"""


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".bmp", ".tiff", ".pgm", ".ppm"])
def test_no_damaged_photo_costs_much_memory(suffix: str):
    """Measured in a process of its own: what it ever asked for, touched or not."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, suffix, "1500"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(done.stdout) < 64
