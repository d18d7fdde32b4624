"""One version of a gallery as bytes: fixed header, subject table, raw rows, checksum.

    offset        content, little-endian
    0             magic "EDGEGAL" and a zero byte
    8             format u32, dim u32, version u64, rows u32, table bytes u32
    32            subject table: JSON, UTF-8, padded with spaces so that the rows start at a multiple of 64
    32 + table    rows: float32, rows x dim
    end - 32      SHA-256 of everything before

Every length is checked against what is really there before anything is allocated. The checksum tells
accidents, not attacks; who made a bundle is not known here. Reads and writes no file.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from edge.errors import GalleryError, GalleryIntegrityError
from edge.gallery.gallery import MAX_DIM, MAX_ROWS, Gallery, Provenance
from edge.types import Quality, Refusal, Subject

MAGIC = b"EDGEGAL\0"
FORMAT = 1
HEADER = Struct("<8sIIQII")
DIGEST_BYTES = 32
ALIGNMENT = 64
"""A cache line: rows can be used where they lie, also when a file is mapped."""

MAX_TABLE_BYTES_PER_ROW = 4096
"""No honest subject needs more (`subjects`): 3.5 KiB with every field full of four-byte characters."""

MAX_BUNDLE_BYTES = 1 << 30
"""A million rows of 128 with their table; more does not fit the memory of a door."""


def _utc(at: datetime) -> datetime:
    if at.utcoffset() != timedelta(0):
        raise ValueError("must be UTC")
    return at.replace(tzinfo=UTC)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class _Quality(_Table):
    face_px: float
    sharpness: float
    yaw_deg: float
    exposure: float
    detector_score: float
    weight: float
    refused: Refusal | None


class _Template(_Table):
    source: str
    created_at: Annotated[AwareDatetime, AfterValidator(_utc)]
    quality: _Quality


class _Subject(_Table):
    id: str
    label: str
    groups: tuple[str, ...]
    templates: tuple[_Template, ...] = Field(min_length=1)


class _Subjects(_Table):
    model_id: str
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
    header = HEADER.pack(MAGIC, FORMAT, gallery.dim, gallery.version, len(rows), len(table))
    body = b"".join((header, table, rows.data))
    return body + hashlib.sha256(body).digest()


def decode(data: bytes) -> Gallery:
    """Return the gallery that `encode` wrote. Its rows are a view into `data`.

    Raises:
        GalleryIntegrityError: Truncated, altered or forged; says what is wrong.
        GalleryError: Written by a newer version of this software.
    """
    dim, version, rows, table_bytes = _read_header(data)
    body = len(data) - DIGEST_BYTES
    if hashlib.sha256(memoryview(data)[:body]).digest() != data[body:]:
        raise GalleryIntegrityError("gallery: the checksum does not fit the content")
    table = _read_table(data[HEADER.size : HEADER.size + table_bytes])
    provenance = tuple(_provenance(row) for entry in table.subjects for row in entry.templates)
    matrix = np.frombuffer(data, "<f4", rows * dim, HEADER.size + table_bytes).reshape(rows, dim)
    try:
        return Gallery(
            version,
            table.model_id,
            tuple(Subject(entry.id, entry.label, entry.groups) for entry in table.subjects),
            tuple(len(entry.templates) for entry in table.subjects),
            provenance,
            matrix.astype(np.float32, copy=False),
        )
    except GalleryError as error:
        raise GalleryIntegrityError(f"gallery: {error}") from None


def _read_header(data: bytes) -> tuple[int, int, int, int]:
    """Return dim, version, rows and table bytes, all within bounds and in agreement with the length."""
    if len(data) < HEADER.size + DIGEST_BYTES:
        raise GalleryIntegrityError(f"gallery: {len(data)} bytes are too few; the file is truncated")
    if len(data) > MAX_BUNDLE_BYTES:
        raise GalleryIntegrityError(
            f"gallery: {len(data)} bytes are more than the {MAX_BUNDLE_BYTES} allowed"
        )
    magic, form, dim, version, rows, table_bytes = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise GalleryIntegrityError("gallery: this is not a gallery file")
    if form != FORMAT:
        raise GalleryError(f"gallery: format {form} is unknown, only {FORMAT} is read here; update edge")
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
            "id": subject.subject_id,
            "label": subject.label,
            "groups": subject.groups,
            "templates": [_template(next(templates)) for _ in range(count)],
        }
        for subject, count in zip(gallery.subjects, gallery.counts, strict=True)
    ]
    table = {"model_id": gallery.model_id, "subjects": subjects}
    return json.dumps(table, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _read_table(table: bytes) -> _Subjects:
    try:
        return _Subjects.model_validate_json(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the table"
        raise GalleryIntegrityError(
            f"gallery: subject table: {where}: {first['msg']} ({error.error_count()} problems)"
        ) from None


def _template(row: Provenance) -> dict[str, object]:
    quality = row.quality
    return {
        "source": row.source,
        "created_at": row.created_at.isoformat(),
        "quality": {
            "face_px": float(quality.face_px),
            "sharpness": float(quality.sharpness),
            "yaw_deg": float(quality.yaw_deg),
            "exposure": float(quality.exposure),
            "detector_score": float(quality.detector_score),
            "weight": float(quality.weight),
            "refused": quality.refused,
        },
    }


def _provenance(row: _Template) -> Provenance:
    return Provenance(Quality(**dict(row.quality)), row.source, row.created_at)
