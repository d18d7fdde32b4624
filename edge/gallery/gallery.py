"""The enrolled subjects and their templates as one immutable value that refuses bad values at birth.

Compares nothing with a probe (`matcher`), and neither reads nor writes a file (`store`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from edge.core.access import SubjectState
from edge.core.errors import GalleryError, ModelMismatchError
from edge.core.ids import composed
from edge.core.types import FloatArray, Quality, Subject, Template

MAX_ID_CHARS = 64
MAX_LABEL_CHARS = 128
MAX_GROUPS = 16
MAX_GROUP_CHARS = 32
MAX_CONSENT_CHARS = 64
MAX_NOTES_CHARS = 256
"""What is said of one subject; keeps the table of a bundle within `bundle.MAX_TABLE_BYTES_PER_ROW`."""

MAX_PROTOTYPES = 5
"""Templates per subject. Measured on synthetic faces: three do as well as all 1,000 examples."""

MAX_ROWS = 1_000_000
"""Beyond this a device needs a search engine. Measured: 1M x 128 takes 9 ms a probe in int8, on one core."""

MAX_DIM = 4096
"""Values of an embedding; embedders have 128 to 1024."""

MAX_MODEL_ID_CHARS = 64
MAX_SOURCE_CHARS = 64
"""Of the embedder's model id, and of where a template comes from."""

SEVERAL_PHOTOS = 2.5
"""A template made from several photos counts as this many comparisons with one of a single photo.

Impostors pass it more often: what all faces have in common grows in a mean, what differs shrinks. Measured on
lfw-dev (sface-int8, thresholds for FMR 1e-2 to 1e-4): mean of 2 photos 1.4-1.7 times as often, of 3 1.5-2.2,
of 5 1.7-2.4, of 10 1.9-2.6; three rows of one photo each 2.5-3.1. `edge calibrate` measures it.
"""

MAX_PHOTOS = 1_000_000
"""That one template is made of."""

NORM_TOLERANCE = 1e-3
"""Rounding stays below 1e-6. Measured: one row scaled x50 matched 863 of 2,000 strangers."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is known of a template besides its embedding."""

    quality: Quality
    source: str
    created_at: datetime
    photos: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Subjects and their templates, all of one embedder.

    `matrix` is float32 (rows, D), contiguous, unit rows; the first `counts[0]` rows belong to `subjects[0]`,
    the next `counts[1]` to `subjects[1]` and so on; `provenance` has one entry per row. `version` is assigned
    by the store; a changed gallery keeps the version it was made from until it is committed. After
    `not_after` (aware; None: never) whoever published it wants it trusted no more.

    Raises:
        GalleryError: Not finite, not of unit norm, wrong shape, too large, a subject twice or badly named.
    """

    version: int
    model_id: str
    subjects: tuple[Subject, ...]
    counts: tuple[int, ...]
    provenance: tuple[Provenance, ...]
    matrix: FloatArray
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        _check_frame(self)
        _check_rows(self.matrix)
        for subject in self.subjects:
            check_subject(subject)
        if len(self.ids) != self.size:
            raise GalleryError("a subject's id is there twice; ids are unique")
        for row in self.provenance:
            _check_provenance(row)
        if self.not_after is not None and self.not_after.tzinfo is None:
            raise GalleryError("the gallery's not_after has no time zone")
        self.matrix.setflags(write=False)

    @classmethod
    def empty(cls, model_id: str, version: int = 0, dim: int = 0) -> "Gallery":
        """Return a gallery without subjects; of dimension 0 it takes that of its first template."""
        return cls(version, model_id, (), (), (), np.empty((0, dim), np.float32))

    @property
    def size(self) -> int:
        """The number of subjects."""
        return len(self.subjects)

    @property
    def dim(self) -> int:
        """The length of an embedding."""
        return int(self.matrix.shape[1])

    @property
    def starts(self) -> NDArray[np.intp]:
        """The first row of each subject, intp (size,)."""
        return np.cumsum((0, *self.counts), dtype=np.intp)[:-1]

    @property
    def owners(self) -> NDArray[np.intp]:
        """The position in `subjects` that each row belongs to, intp (rows,)."""
        return np.repeat(np.arange(self.size), self.counts)

    @property
    def comparisons(self) -> FloatArray:
        """What each subject counts as chances of a false match, float32 (size,); see `SEVERAL_PHOTOS`."""
        each = np.array([worth(row.photos) for row in self.provenance], np.float32)
        return np.add.reduceat(each, self.starts) if self.size else each

    @property
    def ids(self) -> set[str]:
        """The ids of all subjects."""
        return {subject.subject_id for subject in self.subjects}

    @property
    def active(self) -> frozenset[str]:
        """The ids of the subjects that are neither suspended nor revoked."""
        return frozenset(
            subject.subject_id for subject in self.subjects if subject.access.state == SubjectState.ACTIVE
        )

    def subject(self, subject_id: str) -> Subject | None:
        """Return the subject with this id, None if it is not enrolled."""
        return next((subject for subject in self.subjects if subject.subject_id == subject_id), None)

    def id_of(self, text: str) -> str:
        """Return the id under which somebody is enrolled whose id is `text`, in whatever form of Unicode.

        Where nobody is, the id in the form that new ones are kept in.
        """
        ids = self.ids
        if text in ids:
            return text
        wanted = composed(text)
        return next((each for each in ids if composed(each) == wanted), wanted)

    def rows_of(self, subject_id: str) -> FloatArray:
        """Return the rows of a subject's templates, float32 (n, D); none if it is unknown."""
        end = 0
        for subject, count in zip(self.subjects, self.counts, strict=True):
            end += count
            if subject.subject_id == subject_id:
                return self.matrix[end - count : end]
        return self.matrix[:0]

    def templates_of(self, subject_id: str) -> tuple[Template, ...]:
        """Return a subject's templates, in the order of their enrolment; none if it is unknown."""
        end = 0
        for subject, count in zip(self.subjects, self.counts, strict=True):
            end += count
            if subject.subject_id == subject_id:
                rows = zip(self.matrix[end - count : end], self.provenance[end - count : end], strict=True)
                return tuple(
                    Template(embedding, self.model_id, row.quality, row.source, row.created_at, row.photos)
                    for embedding, row in rows
                )
        return ()

    def with_subject(self, subject: Subject, templates: Sequence[Template]) -> "Gallery":
        """Return a gallery in which `subject` has exactly these templates, 1 to `MAX_PROTOTYPES`.

        Raises:
            ModelMismatchError: A template comes from another embedder.
            GalleryError: The subject or a template cannot be used.
        """
        return self.with_subjects([(subject, templates)])

    def with_subjects(self, entries: Iterable[tuple[Subject, Sequence[Template]]]) -> "Gallery":
        """Do `with_subject` for many subjects at once."""
        entries = list(entries)
        base = self.without_subjects({subject.subject_id for subject, _ in entries})
        templates = [template for _, rows in entries for template in rows]
        dim = self.dim or (len(templates[0].embedding) if templates else 0)
        for template in templates:
            if template.model_id != self.model_id:
                raise ModelMismatchError(
                    f"a template of {template.model_id!r} cannot join a gallery of {self.model_id!r}; "
                    "enrol the photo again with this embedder"
                )
            if template.embedding.shape != (dim,):
                raise GalleryError(
                    f"an embedding of shape {template.embedding.shape} cannot join a gallery of length {dim}"
                )
        return replace(
            base,
            subjects=(*base.subjects, *(subject for subject, _ in entries)),
            counts=(*base.counts, *(len(rows) for _, rows in entries)),
            provenance=(
                *base.provenance,
                *(Provenance(t.quality, t.source, t.created_at, t.photos) for t in templates),
            ),
            matrix=np.concatenate(
                [base.matrix.reshape(len(base.matrix), dim), *(t.embedding[None] for t in templates)],
                dtype=np.float32,
            ),
        )

    def without_subject(self, subject_id: str) -> "Gallery":
        """Return a gallery without this subject.

        Raises:
            GalleryError: It is not enrolled.
        """
        if self.subject(subject_id) is None:
            raise GalleryError(f"subject {subject_id!r} is not enrolled; `edge subjects list` shows who is")
        return self.without_subjects({subject_id})

    def without_subjects(self, subject_ids: set[str]) -> "Gallery":
        """Return a gallery without any of these subjects, in whatever form of Unicode their ids are written.

        Ids that are not enrolled are no error.
        """
        gone = set(map(composed, subject_ids))
        keep = np.array([composed(subject.subject_id) not in gone for subject in self.subjects], bool)
        if keep.all():
            return self
        rows = keep[self.owners]
        return replace(
            self,
            subjects=tuple(s for s, kept in zip(self.subjects, keep, strict=True) if kept),
            counts=tuple(c for c, kept in zip(self.counts, keep, strict=True) if kept),
            provenance=tuple(p for p, kept in zip(self.provenance, rows, strict=True) if kept),
            matrix=self.matrix[rows],
        )


def check_subject(subject: Subject) -> None:
    """Accept a subject whose id, label and groups are safe in a file, a log line and a message.

    Raises:
        GalleryError: Says what is wrong with which part; shows neither id nor label.
    """
    problem = _name_problem(subject.subject_id, MAX_ID_CHARS)
    if problem:
        raise GalleryError(f"the subject's id {problem}; use for example p-1042")
    if len(subject.label) > MAX_LABEL_CHARS or not subject.label.isprintable():
        raise GalleryError(
            f"the subject's label must be one printable line of at most {MAX_LABEL_CHARS} characters"
        )
    if len(subject.groups) > MAX_GROUPS or len(set(subject.groups)) != len(subject.groups):
        raise GalleryError(f"a subject has at most {MAX_GROUPS} groups, each of them once")
    for group in subject.groups:
        problem = _name_problem(group, MAX_GROUP_CHARS)
        if problem:
            raise GalleryError(f"the name of a subject's group {problem}; use for example staff")
    for what, text, most in (
        ("consent reference", subject.consent, MAX_CONSENT_CHARS),
        ("notes", subject.notes, MAX_NOTES_CHARS),
    ):
        if len(text) > most or not text.isprintable():
            raise GalleryError(
                f"the subject's {what} must be one printable line of at most {most} characters"
            )
    if (problem := subject.access.problem()) is not None:
        raise GalleryError(f"the subject's access: {problem}")


def worth(photos: int) -> float:
    """Return how many comparisons with one photo a template made of this many counts as."""
    return SEVERAL_PHOTOS if photos > 1 else 1.0


def _check_frame(gallery: Gallery) -> None:
    """Check everything that can be checked without looking at a row."""
    rows = len(gallery.provenance)
    if not 0 <= gallery.version < 2**63:
        raise GalleryError(f"gallery version {gallery.version} is not a version number")
    model_id = gallery.model_id
    if not 0 < len(model_id) <= MAX_MODEL_ID_CHARS or not model_id.isprintable():
        raise GalleryError(
            f"a gallery needs the embedder's model id, 1 to {MAX_MODEL_ID_CHARS} printable characters"
        )
    if rows > MAX_ROWS:
        raise GalleryError(f"{rows} templates are too many for one gallery, at most {MAX_ROWS} are allowed")
    if (
        gallery.matrix.dtype != np.float32
        or gallery.matrix.ndim != 2
        or not gallery.matrix.flags.c_contiguous
    ):
        raise GalleryError("embeddings must be a contiguous float32 array of two dimensions")
    if gallery.dim > MAX_DIM or (rows and not gallery.dim):
        raise GalleryError(f"embeddings of length {gallery.dim} are not possible, allowed are 1 to {MAX_DIM}")
    if len(gallery.counts) != gallery.size or not len(gallery.matrix) == rows == sum(gallery.counts):
        raise GalleryError(
            f"{gallery.size} subjects, {sum(gallery.counts)} templates, {len(gallery.matrix)} embeddings: "
            "the numbers do not agree"
        )
    for count in gallery.counts:
        if not 1 <= count <= MAX_PROTOTYPES:
            raise GalleryError(f"a subject has {count} templates, 1 to {MAX_PROTOTYPES} are allowed")


def _check_rows(matrix: FloatArray) -> None:
    """Refuse rows that would match everybody: not finite, or not of unit norm."""
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))  # a NaN compares as wrong
    if len(wrong):
        raise GalleryError(
            f"embedding {wrong[0]} has norm {norms[wrong[0]]:.4g} instead of 1 "
            f"({len(wrong)} of {len(matrix)} are wrong); enrol the subject again"
        )


def _check_provenance(row: Provenance) -> None:
    if not all(map(isfinite, row.quality.numbers)):
        raise GalleryError("a template's quality holds a number that is not finite; enrol the subject again")
    if not 0 < len(row.source) <= MAX_SOURCE_CHARS or not row.source.isprintable():
        raise GalleryError(f"a template's source must be 1 to {MAX_SOURCE_CHARS} printable characters")
    if row.created_at.utcoffset() != timedelta(0):
        raise GalleryError("a template's created_at must be in UTC")
    if not 1 <= row.photos <= MAX_PHOTOS:
        raise GalleryError(f"a template made of {row.photos} photos is not possible, 1 to {MAX_PHOTOS} are")


def _name_problem(name: str, max_chars: int) -> str | None:
    """Return what is wrong with an id or the name of a group, None where nothing is."""
    if not name:
        return "is empty"
    if len(name) > max_chars:
        return f"has {len(name)} characters, at most {max_chars} are allowed"
    if not name.isprintable():
        return "holds a character that cannot be printed"
    if "/" in name or "\\" in name or ".." in name:
        return "looks like a path: '/', '\\' and '..' are not allowed"
    if name != name.strip():
        return "begins or ends with a space"
    return None
