"""One version of a gallery as bytes: fixed header, subject table, raw rows, checksum.

    offset        content, little-endian
    0             magic "EDGEGAL" and a zero byte
    8             format u32, dim u32, version u64, rows u32, table bytes u32
    32            subject table: JSON, UTF-8, padded with spaces so that the rows start at a multiple of 64
    32 + table    rows: float32, rows x dim
    end - 32      SHA-256 of everything before

Magic, format and checksum stand where they are in every format. Every length is checked against what is
really there before anything is allocated. The checksum tells accidents, not attacks: who made a bundle is
not known here. Reads and writes no file.
"""

import hashlib
import json
from struct import Struct

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from edge.core.access import ALWAYS, Access, SubjectState, Window
from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.core.text import first_problem
from edge.core.types import Quality, Refusal, Subject
from edge.gallery.gallery import MAX_DIM, MAX_ROWS, Gallery, Provenance, check_subject

MAGIC = b"EDGEGAL\0"
FORMAT = 4
"""How a bundle begins that is written now, where a template has its recognisability."""

FORMAT_BEFORE = 3
"""How one begins that earlier releases read, too: no template has its recognisability."""

READABLE = (2, FORMAT_BEFORE, FORMAT)
"""Format 2 had no access, consent and notes."""

HEADER = Struct("<8sIIQII")
"""Magic, format, dim, version, rows, table bytes."""

DIGEST_BYTES = 32
"""Of SHA-256."""

ALIGNMENT = 64
"""A cache line: rows can be used where they lie, also when a file is mapped."""

MAX_TABLE_BYTES_PER_ROW = 8192
"""No honest subject needs more (`subjects`): 5.7 KiB with every field full of four-byte characters."""

MAX_BUNDLE_BYTES = 1 << 30
"""A million rows of 128 with their table; more does not fit the memory of a door."""

_Row = (
    tuple[str, AwareDatetime, float, float, float, float, float, float, Refusal | None, int]
    | tuple[str, AwareDatetime, float, float, float, float, float, float, float, Refusal | None, int]
    | tuple[str, AwareDatetime, float, float, float, float, float, float, float, float, Refusal | None, int]
)
"""source, created_at, `Quality.numbers` (six to eight), `Quality.refused`, photos."""


class _Access(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    state: SubjectState = SubjectState.ACTIVE
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    windows: tuple[str, ...] = ()
    time_zone: str = ""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    id: str
    label: str
    groups: tuple[str, ...]
    access: _Access | None = None
    consent: str = ""
    notes: str = ""


class _Subject(_Entry):
    templates: tuple[_Row, ...]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model_id: str
    not_after: AwareDatetime | None = None
    subjects: tuple[_Subject, ...]


def encode(gallery: Gallery) -> bytes:
    """Return a gallery as bytes; equal galleries give equal bytes.

    Raises:
        GalleryError: It is larger than a bundle may be.
    """
    table = _write_table(gallery)
    table += b" " * (-(HEADER.size + len(table)) % ALIGNMENT)
    rows = np.ascontiguousarray(gallery.matrix, "<f4")
    if HEADER.size + len(table) + rows.nbytes + DIGEST_BYTES > MAX_BUNDLE_BYTES:
        raise GalleryError(
            f"a gallery of {gallery.size} subjects is larger than {MAX_BUNDLE_BYTES} bytes; split it by door"
        )
    known = any(row.quality.recognisability is not None for row in gallery.provenance)
    number = FORMAT if known else FORMAT_BEFORE
    header = HEADER.pack(MAGIC, number, gallery.dim, gallery.version, len(rows), len(table))
    body = b"".join((header, table, rows.data))
    return body + hashlib.sha256(body).digest()


def decode(data: bytes) -> Gallery:
    """Return the gallery that `encode` wrote. Its rows are a view into `data`.

    Raises:
        GalleryIntegrityError: Truncated, altered or forged; says what is wrong.
        GalleryError: Whole, but of a format that only a newer version of this software reads.
    """
    _check_seal(data)
    dim, version, rows, table_bytes = _read_header(data)
    table = _read_table(data[HEADER.size : HEADER.size + table_bytes])
    provenance = tuple(_provenance(row) for entry in table.subjects for row in entry.templates)
    matrix = np.frombuffer(data, "<f4", rows * dim, HEADER.size + table_bytes).reshape(rows, dim)
    try:
        return Gallery(
            version,
            table.model_id,
            tuple(map(_subject, table.subjects)),
            tuple(len(entry.templates) for entry in table.subjects),
            provenance,
            matrix.astype(np.float32, copy=False),
            table.not_after,
        )
    except GalleryError as error:
        raise GalleryIntegrityError(f"gallery: {error}") from None


def _check_seal(data: bytes) -> None:
    """Check what is the same in every format: the magic in front, the checksum behind, the size."""
    if len(data) < HEADER.size + DIGEST_BYTES:
        raise GalleryIntegrityError(f"gallery: {len(data)} bytes are too few; the file is truncated")
    if len(data) > MAX_BUNDLE_BYTES:
        raise GalleryIntegrityError(
            f"gallery: {len(data)} bytes are more than the {MAX_BUNDLE_BYTES} allowed"
        )
    if not data.startswith(MAGIC):
        raise GalleryIntegrityError("gallery: this is not a gallery file")
    body = len(data) - DIGEST_BYTES
    if hashlib.sha256(memoryview(data)[:body]).digest() != data[body:]:
        raise GalleryIntegrityError("gallery: the checksum does not fit; the file is truncated or altered")


def _read_header(data: bytes) -> tuple[int, int, int, int]:
    """Return dim, version, rows and table bytes, all within bounds and in agreement with the length."""
    _, number, dim, version, rows, table_bytes = HEADER.unpack_from(data)
    if number not in READABLE:
        raise GalleryError(
            f"gallery: format {number} is unknown, {FORMAT} is the newest read here; update edge"
        )
    if dim > MAX_DIM or rows > MAX_ROWS:
        raise GalleryIntegrityError(
            f"gallery: {rows} rows of {dim} are declared, at most {MAX_ROWS} of {MAX_DIM} are allowed"
        )
    if table_bytes > MAX_TABLE_BYTES_PER_ROW * (rows + 1) or (HEADER.size + table_bytes) % ALIGNMENT:
        raise GalleryIntegrityError(
            f"gallery: a subject table of {table_bytes} bytes is declared for {rows} rows"
        )
    declared = HEADER.size + table_bytes + 4 * rows * dim + DIGEST_BYTES
    if declared != len(data):
        raise GalleryIntegrityError(f"gallery: the header declares {declared} bytes, {len(data)} are there")
    return dim, version, rows, table_bytes


def _write_table(gallery: Gallery) -> bytes:
    templates = iter(gallery.provenance)
    subjects = [
        {
            **subject_entry(subject),
            "templates": [_template(next(templates)) for _ in range(count)],
        }
        for subject, count in zip(gallery.subjects, gallery.counts, strict=True)
    ]
    table: dict[str, object] = {"model_id": gallery.model_id}
    if gallery.not_after is not None:
        table["not_after"] = gallery.not_after.isoformat()
    table["subjects"] = subjects
    return json.dumps(table, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def subject_entry(subject: Subject) -> dict[str, object]:
    """Return a subject as JSON holds it; what few subjects have costs the others nothing."""
    access = subject.access
    told = {
        "state": access.state if access.state != SubjectState.ACTIVE else None,
        "not_before": access.not_before.isoformat() if access.not_before else None,
        "not_after": access.not_after.isoformat() if access.not_after else None,
        "windows": [str(window) for window in access.windows],
        "time_zone": access.time_zone,
    }
    entry = {
        "id": subject.subject_id,
        "label": subject.label,
        "groups": subject.groups,
    }
    beyond = {
        "access": {key: value for key, value in told.items() if value},
        "consent": subject.consent,
        "notes": subject.notes,
    }
    return entry | {key: value for key, value in beyond.items() if value}


def subject_of(entry: object) -> Subject:
    """Return the subject that `subject_entry` was given, from whoever kept it.

    Raises:
        GalleryError: It is none.
    """
    try:
        subject = _subject(_Entry.model_validate(entry, strict=False))
    except ValidationError:
        raise GalleryError("this is not a subject") from None
    check_subject(subject)
    return subject


def _subject(entry: _Entry) -> Subject:
    """Return a subject of the table.

    Raises:
        GalleryError: A window that is none.
    """
    said = entry.access
    if said is None:
        return Subject(entry.id, entry.label, entry.groups, ALWAYS, entry.consent, entry.notes)
    try:
        windows = tuple(map(Window.parse, said.windows))
    except ValueError as error:
        raise GalleryError(f"a subject's access: {error}") from None
    access = Access(said.state, said.not_before, said.not_after, windows, said.time_zone)
    return Subject(entry.id, entry.label, entry.groups, access, entry.consent, entry.notes)


def _read_table(table: bytes) -> _Table:
    try:
        return _Table.model_validate_json(table)
    except ValidationError as error:
        raise GalleryIntegrityError(
            f"gallery: subject table, {first_problem(error)} ({error.error_count()} problems)"
        ) from None


def _template(row: Provenance) -> tuple[str | float | None, ...]:
    quality = row.quality
    numbers = map(float, quality.numbers)
    return (row.source, row.created_at.isoformat(), *numbers, quality.refused, row.photos)


def _provenance(row: _Row) -> Provenance:
    source, created_at, *numbers, refused, photos = row
    return Provenance(Quality.of(numbers, refused), source, created_at, photos)
