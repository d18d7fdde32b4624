"""Aligned faces of enrolment, kept only where the operator chose to, sealed under the device's key.

They recognise nobody: a person looks at them. One file per subject, named by the hash of its id. OpenCV is
loaded where a picture is made or read: a synchronisation only deletes them.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edge.core.errors import GalleryIntegrityError, MediaError
from edge.core.types import Image
from edge.gallery.format.seal import Binding
from edge.gallery.store.sealed import SealedFiles

MAX_CROPS = 12
"""Faces of one subject; a person looks at no more."""

MAX_BYTES = 2 << 20
"""Of one file: so many crops of 112 x 112 take .6 MiB."""

NAME_CHARS = 32
"""Of SHA-256, in hexadecimal digits."""

_NAME = re.compile(rf"[0-9a-f]{{{NAME_CHARS}}}\.sealed|\.[0-9a-f]{{{NAME_CHARS}}}\.sealed\.tmp")
GAP_PX = 4
COLUMNS = 6
"""White between the faces of a contact sheet, and faces in a row."""

PICTURES = (".png", ".jpg", ".jpeg")
"""How a contact sheet's file may be called."""


class CropStore:
    """The kept faces of one device; `key` is the file of the device's key."""

    def __init__(self, directory: Path, key: Path, *, make_key: bool = True) -> None:
        self._files = SealedFiles(directory, key, make_key=make_key)

    def save(self, subject_id: str, crops: Sequence[Image]) -> None:
        """Keep the faces of a subject instead of those before, up to `MAX_CROPS`.

        Raises:
            GalleryError, FileError: They cannot be written.
        """
        import cv2

        encoded = [cv2.imencode(".png", crop)[1].tobytes() for crop in crops[:MAX_CROPS]]
        plain = json.dumps([base64.b64encode(data).decode() for data in encoded]).encode()
        self._files.write(_name(subject_id), plain, _binding(subject_id))

    def load(self, subject_id: str) -> list[Image]:
        """Return the kept faces of a subject, BGR; none where none are kept.

        Raises:
            GalleryIntegrityError: They were altered, or are another device's.
        """
        plain = self._files.read(_name(subject_id), _binding(subject_id), MAX_BYTES)
        if plain is None:
            return []
        import cv2

        try:
            found = [base64.b64decode(text, validate=True) for text in json.loads(plain)]
        except (ValueError, TypeError):
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
        self._files.delete(map(_name, subject_ids))

    def keep_only(self, subject_ids: Iterable[str]) -> None:
        """Delete the faces of everybody else, and what a power cut left half written.

        Raises:
            GalleryError, FileError: Some cannot be deleted.
        """
        kept = set(map(_name, subject_ids))
        self._files.delete(found[0] for found in self._files.named(_NAME) if found[0] not in kept)

    def empty(self) -> bool:
        """Return whether nobody's faces are kept.

        Raises:
            GalleryError: The directory cannot be read.
        """
        return not self._files.named(_NAME)


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
    return encode_picture(contact_sheet(crops), path)


def encode_picture(image: Image, path: Path) -> bytes:
    """Return the bytes of a picture, BGR, of the kind that a file of this name holds.

    Raises:
        MediaError: The name is none of a picture.
    """
    if path.suffix.lower() not in PICTURES:
        raise MediaError(f"{path}: not the name of a picture; end it in {', '.join(PICTURES)}")
    import cv2

    return cv2.imencode(path.suffix.lower(), image)[1].tobytes()


def _name(subject_id: str) -> str:
    return f"{hashlib.sha256(subject_id.encode()).hexdigest()[:NAME_CHARS]}.sealed"


def _binding(subject_id: str) -> Binding:
    return Binding("crops", subject_id, "", 1)
