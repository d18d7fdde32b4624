"""Faces that are not this subject's, said by an operator: "not him". Sealed beside the gallery.

A gallery that is synchronised does not know of them: they belong to this door and stay when it is replaced.
Kept by embedder, so that a switch to another one and back loses none; they go with their subject.

Who has denials is remembered apart from them, as hashes: where they are damaged or gone, the faces that were
denied are lost, and whoever had some is nobody's match until an operator restores or drops them.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from edge.core import files
from edge.core.errors import FileError, GalleryError, GalleryIntegrityError
from edge.core.types import FloatArray, Probe
from edge.gallery.format.removed import subject_hash
from edge.gallery.format.rows import are_unit, rows_of, rows_text
from edge.gallery.format.seal import Binding
from edge.gallery.store.erasure import ANYBODY
from edge.gallery.store.sealed import SealedFiles

MAX_DENIALS = 1000
"""An operator who denies more should enrol better photos."""

MAX_BYTES = 4 << 20
"""Room for so many rows of 512, as text."""

MAX_SET_ASIDE = 10
"""Damaged files that are kept; the last one makes room for another."""

LOCK_TIMEOUT_S = 10.0
"""A change takes milliseconds; who waits longer waits for a program that hangs."""

BINDING = Binding("denials", "", "", 1)
"""What the file is sealed as."""

KNOWN = "denied.json"
"""Who has denials, beside them: the hashes that audits use."""

MAX_KNOWN_BYTES = 64 * 1024
"""Room for so many hashes."""

SubjectRows = Mapping[str, FloatArray]
"""Unit rows (n, D) by the subject's id."""


@dataclass(frozen=True, slots=True, eq=False)
class Denials:
    """What was denied, by the embedder's model id and the subject's id.

    `lost` is whose denials cannot be read any more, as hashes; `ANYBODY` among them: nobody knows whose.
    """

    rows: Mapping[str, SubjectRows]
    lost: frozenset[str] = frozenset()

    @classmethod
    def none(cls) -> "Denials":
        """Return those of a door where nobody was denied."""
        return cls({})

    def score(self, subject_id: str, probe: Probe) -> float | None:
        """Return how alike a probe is to a face that is not this subject's; None where none was denied.

        Where that face is lost it may be any: as alike as can be, 1.
        """
        if self.lost and self.is_lost(subject_id):
            return 1.0
        rows = self.rows.get(probe.model_id, {}).get(subject_id)
        return None if rows is None else float((rows @ probe.embedding).max())

    def is_lost(self, subject_id: str) -> bool:
        """Return whether faces that are not this subject's may have been denied, and are lost."""
        return ANYBODY in self.lost or subject_hash(subject_id) in self.lost

    def same(self, other: "Denials") -> bool:
        """Return whether exactly the same faces are denied, and the same lost."""
        return self.lost == other.lost and self._bytes() == other._bytes()

    def _bytes(self) -> dict[tuple[str, str], bytes]:
        return {
            (model_id, subject_id): rows.tobytes()
            for model_id, each in self.rows.items()
            for subject_id, rows in each.items()
        }

    def counts(self) -> dict[str, int]:
        """Return how many faces were denied of whom."""
        counts: dict[str, int] = {}
        for each in self.rows.values():
            for subject_id, rows in each.items():
                counts[subject_id] = counts.get(subject_id, 0) + len(rows)
        return counts

    def plus(self, subject_id: str, probe: Probe) -> "Denials":
        """Return these and one more.

        Raises:
            GalleryError: There are too many.
        """
        known = self.rows.get(probe.model_id, {})
        rows = np.vstack([*known.get(subject_id, ()), probe.embedding]).astype(np.float32)
        if sum(self.counts().values()) >= MAX_DENIALS:
            raise GalleryError(f"more than {MAX_DENIALS} denials; remove some, or enrol better photos")
        return replace(self, rows={**self.rows, probe.model_id: {**known, subject_id: rows}})

    def without(self, subject_ids: AbstractSet[str]) -> "Denials":
        """Return these but for those of some subjects, lost ones as well."""
        return self.of(self.counts().keys() - subject_ids).found(subject_ids)

    def found(self, subject_ids: AbstractSet[str] | None = None) -> "Denials":
        """Return the same as if nothing of some subjects (None: of anybody) were lost."""
        gone = self.lost if subject_ids is None else set(map(subject_hash, subject_ids))
        return replace(self, lost=self.lost - gone)

    @property
    def known(self) -> frozenset[str]:
        """Whoever has denials, lost or not, as hashes."""
        return self.lost | frozenset(map(subject_hash, self.counts()))

    def of(self, subject_ids: Iterable[str]) -> "Denials":
        """Return those of these subjects alone; whose they were, where they are lost, stays."""
        wanted = set(subject_ids)
        kept = {
            model_id: {key: rows for key, rows in each.items() if key in wanted}
            for model_id, each in self.rows.items()
        }
        return replace(self, rows={model_id: each for model_id, each in kept.items() if each})


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    subjects: tuple[str, ...]


class DenialStore:
    """One file, sealed under the device's key. Whoever changes it holds a lock beside it."""

    def __init__(self, path: Path, key: Path, *, make_key: bool = True) -> None:
        self._path = path
        self._files = SealedFiles(path.parent, key, make_key=make_key)
        mend = "restore it, or drop what is lost with `edge gallery deny --forget-lost`"
        self._known = files.StateFile(
            path.with_name(KNOWN), _Known, MAX_KNOWN_BYTES, GalleryIntegrityError, mend
        )

    def stamp(self) -> int:
        """Return what changes when the file does; 0 where there is none. Cheap enough to be polled."""
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def load(self) -> Denials:
        """Return what was denied; where there is no file, whose was lost, if anybody's.

        Raises:
            GalleryIntegrityError: It is damaged. It is not taken for "nobody was denied".
            FileError: It, or the device's key, cannot be read.
        """
        try:
            plain = self._files.read(self._path.name, BINDING, MAX_BYTES)
            if plain is None:
                return self.lost(())
            said = json.loads(plain)
            models = said["models"] if "models" in said else {said["model_id"]: said}
            rows = {str(name): _rows(each) for name, each in models.items() if each["rows"]}
            return Denials(rows, frozenset(map(str, said.get("lost", ()))))
        except (GalleryIntegrityError, ValueError, KeyError, TypeError, AttributeError):
            raise GalleryIntegrityError(
                f"{self._path}: damaged, or of another device; move it away, and deny again"
            ) from None

    def lost(self, otherwise: Iterable[str] = (ANYBODY,)) -> Denials:
        """Return what is left where denials cannot be read: whose are lost.

        That is `otherwise` where nobody remembers who had some, and anybody where that cannot be read either.
        """
        try:
            known = self._known.read()
        except (GalleryIntegrityError, FileError):
            return Denials({}, frozenset({ANYBODY}))
        return Denials({}, frozenset(otherwise if known is None else known.subjects))

    def remember(self) -> None:
        """Remember who has denials, where an earlier release did not.

        Raises:
            GalleryError, FileError: They cannot be read, that cannot be written, or somebody is at it.
        """
        with self._alone(0):
            self._remember(self.load().known)

    def change(self, how: Callable[[Denials], Denials]) -> Denials:
        """Write what `how` makes of what is denied, and return it; nobody else changes it meanwhile.

        Raises:
            GalleryIntegrityError: It is damaged, and stays.
            GalleryError, FileError: `how` refuses, or it cannot be read or written.
        """
        with self._alone():
            before = self.load()
            after = how(before)
            if not after.same(before):
                self._remember(before.known | after.known)
                self._save(after)
            self._remember(after.known)
            return after

    def set_aside(self, timeout_s: float = LOCK_TIMEOUT_S) -> Path | None:
        """Keep a damaged file under another name, which it returns; None where it is not damaged.

        Raises:
            FileError: It cannot be renamed, or somebody else is at it for longer than `timeout_s`.
        """
        with self._alone(timeout_s):
            try:
                self.load()
            except GalleryIntegrityError:
                self._remember(self.lost().lost)
                names = [self._aside(number) for number in range(MAX_SET_ASIDE)]
                free = next((name for name in names if not name.exists()), names[-1])
                try:
                    self._path.replace(free)
                except OSError as error:
                    raise FileError(f"{self._path}: cannot be set aside: {error.strerror}") from None
                return free
            return None

    def purge(self) -> None:
        """Delete what is denied, and what was set aside.

        Raises:
            FileError: It cannot be deleted.
        """
        with self._alone():
            files.shred(self._known.path)
            files.shred(self._path)
        self.purge_set_aside()

    def purge_set_aside(self) -> int:
        """Delete what was set aside: nobody can tell who is in it. Returns how many files there were."""
        found = [path for number in range(MAX_SET_ASIDE) if (path := self._aside(number)).exists()]
        for path in found:
            files.shred(path)
        return len(found)

    def _alone(self, timeout_s: float = LOCK_TIMEOUT_S) -> AbstractContextManager[None]:
        return files.sole_user(self._path.with_suffix(".lock"), timeout_s, time.monotonic)

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.damaged{f'-{number}' if number else ''}")

    def _remember(self, known: frozenset[str]) -> None:
        document = _Known(subjects=tuple(sorted(known)))
        try:
            if self._known.read() == document or (not known and self._known.read() is None):
                return
        except GalleryIntegrityError:
            pass  # it is replaced by what is known now
        self._known.write(document)

    def _save(self, denials: Denials) -> None:
        models = {
            model_id: {
                "dim": next(iter(each.values())).shape[1],
                "rows": {subject_id: rows_text(rows) for subject_id, rows in each.items()},
            }
            for model_id, each in denials.rows.items()
        }
        said = {"models": models} | ({"lost": sorted(denials.lost)} if denials.lost else {})
        self._files.write(self._path.name, json.dumps(said).encode(), BINDING)


def _rows(said: Mapping[str, Any]) -> dict[str, FloatArray]:
    dim = int(said["dim"])
    return {str(subject_id): _unit_rows(text, dim) for subject_id, text in said["rows"].items()}


def _unit_rows(text: str, dim: int) -> FloatArray:
    rows = rows_of(text, dim)
    if not are_unit(rows):
        raise ValueError("not unit rows")
    return rows
