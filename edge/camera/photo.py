"""Photos from disk, a store or bytes as BGR images, whatever an operator's phone or scanner wrote.

Looks at the header before decoding, so that a small file cannot ask for gigabytes. Does not look for faces.
"""

import contextlib
import importlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import cv2
import imagesize
import numpy as np

from edge.camera.photo_store import STORED, told_of_store
from edge.core.errors import PhotoError
from edge.core.types import Image

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif"),
    }
)
"""File names that a folder of photos is searched for."""

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
"""How files of these formats begin."""

MAX_BYTES = 64 * 1024 * 1024
"""Of a photo's file; those of cameras with 100 megapixels take half of it."""

MAX_PIXELS = 64_000_000
"""Decoded it takes 192 MB, and as much again meanwhile. A PNG bomb of 854 KiB asked for 5.1 GiB."""

MAX_JPEG_PIXELS = 120_000_000
"""The largest pictures of phones have 108 megapixels. Large JPEGs are decoded at half their size."""

COMMAND_PIXELS = 12_000_000
"""Of a photo in a command over MQTT: that of a phone. Decoded it takes 36 MB, and as much again meanwhile."""

HALVED_PIXELS = 24_000_000
"""JPEGs above this are decoded at half their size: a face is large enough there all the same."""

FITTING = ((1600, 90), (1600, 80), (1280, 80), (960, 80), (720, 75))
"""Longer side in pixels and JPEG quality of 100, tried in turn for a photo that has to be small: a face that
fills a tenth of the width keeps 72 pixels or more.
"""

MIN_SIDE_PX = 16
"""Less cannot hold a face that any detector finds."""


HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
"""Kinds of a file that begins with a box `ftyp`. Source: ISO/IEC 23008-12, annex B; AV1 image format, 6."""

HEIF_ADVICE = (
    "a HEIC photo, and the extra `heic` (pillow-heif) is not installed; install it, or export the photo as "
    "JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"
)


def read_photo(path: Path, *, max_pixels: int = MAX_JPEG_PIXELS) -> Image:
    """Read a photo, upright as its EXIF orientation says, grey, alpha and 16 bit brought to BGR uint8.

    `max_pixels` bounds it further than this file does.

    Raises:
        PhotoError: The file is absent, not a photo, damaged, too small or too large.
    """
    return decode_photo(photo_bytes(path), str(path), max_pixels=max_pixels)


def photo_bytes(path: Path) -> bytes:
    """Return a photo's file, or a little more of it than `decode_photo` takes.

    Raises:
        PhotoError: It is absent, or cannot be read.
        PhotoStoreError: The store that it lies in does not answer.
    """
    if STORED in str(path):
        with told_of_store(path), path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise PhotoError(f"{path}: cannot read the photo: it is a pipe or a device")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PhotoError(f"{path}: cannot read the photo: {error.strerror}") from None
    except ValueError:  # a NUL in its name
        raise PhotoError(f"{path}: cannot read the photo: no file can have this name") from None


def decode_photo(data: bytes, name: str, *, max_pixels: int = MAX_JPEG_PIXELS) -> Image:
    """Decode a photo from memory; `name` says in errors which one it was.

    Raises:
        PhotoError: As for `read_photo`.
    """
    if not data:
        raise PhotoError(f"{name}: the file is empty; use a JPEG, PNG, WebP, AVIF, BMP or TIFF photo")
    if len(data) > MAX_BYTES:
        raise PhotoError(f"{name}: larger than {MAX_BYTES >> 20} MiB; reduce the photo first")
    if _is_heif(data):
        return _decode_heif(data, name, max_pixels)
    width, height = imagesize.get(BytesIO(data))  # (-1, -1) for what is no picture
    if width <= 0 or height <= 0:
        raise PhotoError(f"{name}: not a photo that can be read; use JPEG, PNG, WebP, AVIF, BMP or TIFF")
    jpeg = data.startswith(JPEG)
    _check_size(width, height, name, min(max_pixels, MAX_JPEG_PIXELS if jpeg else MAX_PIXELS))
    halved = jpeg and width * height > HALVED_PIXELS
    how = cv2.IMREAD_REDUCED_COLOR_2 if halved else cv2.IMREAD_COLOR
    image = None
    if not data.startswith(PNG) or _chunks_fit(data):
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    if image is None:
        raise _damaged(name)
    return image.astype(np.uint8, copy=False)


def _check_size(width: int, height: int, name: str, most: int) -> None:
    if width * height > most:
        raise PhotoError(f"{name}: {width}x{height} pixels are too many (at most {most:,}); reduce it first")
    if min(width, height) < MIN_SIDE_PX:
        raise PhotoError(f"{name}: {width}x{height} pixels are too few to show a face")


def _damaged(name: str) -> PhotoError:
    return PhotoError(
        f"{name}: the photo is damaged or of a kind that cannot be decoded; save it as JPEG or PNG"
    )


def _is_heif(data: bytes) -> bool:
    """Return whether a photo is of the kind that OpenCV cannot decode: HEVC in a HEIF file."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return not brands & AVIF_BRANDS and bool(brands & HEIF_BRANDS)


def _decode_heif(data: bytes, name: str, max_pixels: int) -> Image:
    """Decode a HEIC photo; libheif turns it upright."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")  # the extra `heic`
    except ImportError:
        raise PhotoError(f"{name}: {HEIF_ADVICE}") from None
    try:
        heif = pillow_heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)  # reads the header alone
        width, height = heif.size
        _check_size(width, height, name, min(max_pixels, MAX_PIXELS))
        image = np.asarray(heif)
    except (ValueError, RuntimeError, EOFError, OSError, SyntaxError):
        raise _damaged(name) from None
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[0] * image.shape[1] > HALVED_PIXELS:
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., :3], np.uint8)


def _chunks_fit(png: bytes) -> bool:
    """Return whether no chunk promises more than the file holds: OpenCV allocates what it promises.

    Source: PNG specification, 5.3: length (4 bytes), type (4), data, CRC (4).
    """
    at = len(PNG)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if end > len(png):
            return False
        if png[at + 4 : at + 8] == b"IEND":
            return True
        at = end
    return True


def fit_photo(data: bytes, name: str, max_bytes: int) -> bytes:
    """Return a photo as it is where it fits into a command, else one that does: smaller, as JPEG.

    It fits with `max_bytes` and `COMMAND_PIXELS`.

    Raises:
        PhotoError: As for `decode_photo`, or it cannot be made small enough.
    """
    image = decode_photo(data, name)
    width, height = imagesize.get(BytesIO(data))
    if len(data) <= max_bytes and width * height <= COMMAND_PIXELS:
        return data
    small = small_jpeg(image, FITTING, max_bytes)
    if small is None:
        raise PhotoError(f"{name}: cannot be made as small as {max_bytes >> 10} KiB; crop it to the face")
    return small


def small_jpeg(image: Image, tried: Iterable[tuple[int, int]], max_bytes: int) -> bytes | None:
    """Return a BGR picture as JPEG of at most `max_bytes`, by the first side in pixels and quality that does.

    None: by none of them.
    """
    for side_px, quality in tried:
        ok, jpeg = cv2.imencode(".jpg", fitted(image, side_px), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok and jpeg.size <= max_bytes:
            return bytes(jpeg)
    return None


def fitted(image: Image, side_px: int) -> Image:
    """Return a picture whose longer side has at most `side_px`, the same one where it is no larger."""
    scale = side_px / max(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
