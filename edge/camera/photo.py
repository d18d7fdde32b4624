"""Photos from disk or from bytes as BGR images, whatever an operator's phone or scanner wrote.

Looks at the header before decoding, so that a small file cannot ask for gigabytes. Does not look for faces.
"""

from io import BytesIO
from pathlib import Path

import cv2
import imagesize
import numpy as np

from edge.core.errors import MediaError
from edge.core.types import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""File names that a folder of photos is searched for."""

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64_000_000
"""Larger than any phone's picture; decoded it takes 192 MB. A PNG bomb of 854 KiB asked for 5.1 GiB."""

FITTING = ((1600, 90), (1600, 80), (1280, 80), (960, 80), (720, 75))
"""Longer side in pixels and JPEG quality of 100, tried in turn for a photo that has to be small: a face that
fills a tenth of the width keeps 72 pixels or more.
"""

MIN_SIDE_PX = 16
"""Less cannot hold a face that any detector finds."""


def read_photo(path: Path) -> Image:
    """Read a photo, upright as its EXIF orientation says, grey, alpha and 16 bit brought to BGR uint8.

    Raises:
        MediaError: The file is absent, not a photo, damaged, too small or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MediaError(f"{path}: cannot read the photo: {error.strerror}") from None
    except ValueError:  # a NUL in its name
        raise MediaError(f"{path}: cannot read the photo: no file can have this name") from None
    return decode_photo(data, str(path))


def decode_photo(data: bytes, name: str) -> Image:
    """Decode a photo from memory; `name` says in errors which one it was.

    Raises:
        MediaError: As for `read_photo`.
    """
    if not data:
        raise MediaError(f"{name}: the file is empty; use a JPEG, PNG, WebP, BMP or TIFF photo")
    if len(data) > MAX_BYTES:
        raise MediaError(f"{name}: larger than {MAX_BYTES >> 20} MiB; reduce the photo first")
    width, height = imagesize.get(BytesIO(data))  # (-1, -1) for what is no picture
    if width <= 0 or height <= 0:
        raise MediaError(f"{name}: not a photo that can be read; use JPEG, PNG, WebP, BMP or TIFF")
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{name}: {width}x{height} pixels are too many (at most {MAX_PIXELS:,}); reduce it first"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise MediaError(f"{name}: {width}x{height} pixels are too few to show a face")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise MediaError(
            f"{name}: the photo is damaged or of a kind that cannot be decoded; save it as JPEG or PNG"
        )
    return image.astype(np.uint8, copy=False)


def fit_photo(data: bytes, name: str, max_bytes: int) -> bytes:
    """Return a photo as it is where it has at most `max_bytes`, else one that has: smaller, as JPEG.

    Raises:
        MediaError: As for `decode_photo`, or it cannot be made small enough.
    """
    image = decode_photo(data, name)
    if len(data) <= max_bytes:
        return data
    for side_px, quality in FITTING:
        scale = min(1.0, side_px / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        ok, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok and jpeg.size <= max_bytes:
            return bytes(jpeg)
    raise MediaError(f"{name}: cannot be made as small as {max_bytes >> 10} KiB; crop it to the face")
