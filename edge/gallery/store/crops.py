"""Aligned faces of enrolment, kept only where the operator chose to, sealed under the device's key.

They recognise nobody: a person looks at them. One file per subject, named by the hash of its id.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.core import files
from edge.core.errors import GalleryError, GalleryIntegrityError, MediaError
from edge.core.types import Image
from edge.gallery.format.seal import Binding, device_key, seal, unseal

MAX_CROPS = 12
MAX_BYTES = 2 << 20
NAME_CHARS = 32
_NAME = re.compile(rf"[0-9a-f]{{{NAME_CHARS}}}\.sealed|\.[0-9a-f]{{{NAME_CHARS}}}\.sealed\.tmp")
GAP_PX = 4
COLUMNS = 6
PICTURES = (".png", ".jpg", ".jpeg")


class CropStore:
    """The kept faces of one device; `key` is the file of the device's key."""

    def __init__(self, directory: Path, key: Path, *, make_key: bool = True) -> None:
        self._directory = directory
        self._key = key
        self._make_key = make_key

    def save(self, subject_id: str, crops: Sequence[Image]) -> None:
        """Keep the faces of a subject instead of those before, up to `MAX_CROPS`.

        Raises:
            GalleryError, FileError: They cannot be written.
        """
        files.make_private_directory(self._directory, GalleryError)
        encoded = [cv2.imencode(".png", crop)[1].tobytes() for crop in crops[:MAX_CROPS]]
        plain = json.dumps([base64.b64encode(data).decode() for data in encoded]).encode()
        data = seal(plain, device_key(self._key, make=self._make_key), _binding(subject_id))
        files.write_whole(self._path(subject_id), data)

    def load(self, subject_id: str) -> list[Image]:
        """Return the kept faces of a subject, BGR; none where none are kept.

        Raises:
            GalleryIntegrityError: They were altered, or are another device's.
        """
        data = files.read_bounded(self._path(subject_id), MAX_BYTES)
        if data is None:
            return []
        plain = unseal(data, device_key(self._key, make=False), _binding(subject_id))
        try:
            found = [base64.b64decode(text, validate=True) for text in json.loads(plain)]
        except (ValueError, TypeError, binascii.Error):
            raise GalleryIntegrityError("kept faces are not what was kept") from None
        return [
            np.asarray(cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR), np.uint8)
            for each in found
        ]

    def remove(self, subject_ids: Iterable[str]) -> None:
        """Delete the faces of subjects.

        Raises:
            FileError: Some cannot be deleted.
        """
        for subject_id in subject_ids:
            files.shred(self._path(subject_id))

    def keep_only(self, subject_ids: Iterable[str]) -> None:
        """Delete the faces of everybody else, and what a power cut left half written.

        Raises:
            GalleryError, FileError: Some cannot be deleted.
        """
        kept = {self._path(each).name for each in subject_ids}
        for path in self._files():
            if path.name not in kept:
                files.shred(path)

    def empty(self) -> bool:
        """Return whether nobody's faces are kept.

        Raises:
            GalleryError: The directory cannot be read.
        """
        return not self._files()

    def _files(self) -> list[Path]:
        try:
            return [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise GalleryError(f"{self._directory}: cannot be read: {error.strerror}") from None

    def _path(self, subject_id: str) -> Path:
        return self._directory / f"{hashlib.sha256(subject_id.encode()).hexdigest()[:NAME_CHARS]}.sealed"


def contact_sheet(crops: Sequence[Image]) -> Image:
    """Return one picture of one or more faces, side by side, BGR."""
    size = max(max(crop.shape[:2]) for crop in crops)
    rows = -(-len(crops) // COLUMNS)
    cell = size + GAP_PX
    sheet = np.full((rows * cell + GAP_PX, min(len(crops), COLUMNS) * cell + GAP_PX, 3), 255, np.uint8)
    for number, crop in enumerate(crops):
        y, x = (GAP_PX + cell * i for i in divmod(number, COLUMNS))
        sheet[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return sheet


def encode_sheet(crops: Sequence[Image], path: Path) -> bytes:
    """Return the contact sheet as the picture that a file of this name holds.

    Raises:
        MediaError: The name is none of a picture.
    """
    if path.suffix.lower() not in PICTURES:
        raise MediaError(f"{path}: not the name of a picture; end it in {', '.join(PICTURES)}")
    return cv2.imencode(path.suffix.lower(), contact_sheet(crops))[1].tobytes()


def _binding(subject_id: str) -> Binding:
    return Binding("crops", subject_id, "", 1)
