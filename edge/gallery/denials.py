"""Faces that are not this subject's, said by an operator: "not him". Sealed beside the gallery.

A gallery that is synchronised does not know of them: they belong to this door and stay when it is replaced.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge import safefile
from edge.errors import GalleryError, GalleryIntegrityError
from edge.gallery.keys import device_key
from edge.gallery.seal import Binding, seal, unseal
from edge.types import FloatArray, Probe

MAX_BYTES = 4 << 20
MAX_DENIALS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Denials:
    """Unit rows (n, D) of one embedder by the subject's id."""

    model_id: str
    rows: Mapping[str, FloatArray]

    @classmethod
    def none(cls, model_id: str = "") -> "Denials":
        """Return those of a door where nobody was denied."""
        return cls(model_id, {})

    def score(self, subject_id: str, probe: Probe) -> float | None:
        """Return how alike a probe is to a face that is not this subject's; None where none was denied."""
        rows = self.rows.get(subject_id)
        if rows is None or probe.model_id != self.model_id:
            return None
        return float((rows @ probe.embedding).max())

    def plus(self, subject_id: str, probe: Probe) -> "Denials":
        """Return these and one more.

        Raises:
            GalleryError: There are too many.
        """
        rows = dict(self.rows) if probe.model_id == self.model_id else {}
        rows[subject_id] = np.vstack([*rows.get(subject_id, ()), probe.embedding]).astype(np.float32)
        if sum(map(len, rows.values())) > MAX_DENIALS:
            raise GalleryError(f"more than {MAX_DENIALS} denials; remove some, or enrol better photos")
        return Denials(probe.model_id, rows)

    def of(self, subject_ids: Iterable[str]) -> "Denials":
        """Return those of these subjects alone."""
        wanted = set(subject_ids)
        return Denials(self.model_id, {key: rows for key, rows in self.rows.items() if key in wanted})


class DenialStore:
    """One file, sealed under the device's key."""

    def __init__(self, path: Path, key: Path, *, make_key: bool = True) -> None:
        self._path = path
        self._key = key
        self._make_key = make_key

    def stamp(self) -> int:
        """Return what changes when the file does; 0 where there is none. Cheap enough to be polled."""
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def load(self) -> Denials:
        """Return what was denied; nothing where there is no file.

        Raises:
            GalleryError: It cannot be read. It is not taken for "nobody was denied".
        """
        data = safefile.read_bounded(self._path, MAX_BYTES)
        if data is None:
            return Denials.none()
        try:
            said = json.loads(unseal(data, device_key(self._key, make=False), BINDING))
            rows = {str(key): _rows(text, int(said["dim"])) for key, text in said["rows"].items()}
            return Denials(str(said["model_id"]), rows)
        except (GalleryIntegrityError, ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            raise GalleryIntegrityError(
                f"{self._path}: damaged, or of another device; remove it, and deny again"
            ) from None

    def save(self, denials: Denials) -> None:
        """Write what is denied.

        Raises:
            FileError: It cannot be written.
        """
        dim = next((rows.shape[1] for rows in denials.rows.values()), 0)
        text = {
            key: base64.b64encode(np.ascontiguousarray(rows, "<f4").tobytes()).decode()
            for key, rows in denials.rows.items()
        }
        plain = json.dumps({"model_id": denials.model_id, "dim": dim, "rows": text}).encode()
        safefile.write_whole(self._path, seal(plain, device_key(self._key, make=self._make_key), BINDING))


BINDING = Binding("denials", "", "", 1)


def _rows(text: str, dim: int) -> FloatArray:
    flat = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    rows: FloatArray = flat.reshape(-1, dim)
    if not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):
        raise ValueError
    return rows
