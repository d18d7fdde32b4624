"""What changed between two versions of a gallery, as bytes: who is gone, and the subjects that are new.

    0     magic "EDGEDIFF"
    8     format u32, length of the head u32, little-endian
    16    head: JSON {base, version, removed: [ids], sha256 of the whole result as `bundle.encode` writes it}
    ...   a bundle with the subjects that are new or have changed

A difference is applied to exactly the version it was made from, and what comes out is the published gallery
byte for byte, or nothing. Seals and fetches nothing.
"""

import hashlib
from dataclasses import replace
from struct import Struct

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.core.types import Subject
from edge.gallery.format.bundle import decode, encode
from edge.gallery.gallery import MAX_ROWS, Gallery, Provenance

MAGIC = b"EDGEDIFF"
FORMAT = 1
HEADER = Struct("<8sII")
"""Magic, format, bytes of the head."""

MAX_HEAD_BYTES = 1 << 20
"""Room for the ids of some ten thousand subjects that are gone."""

MAX_ADDED = 1000
"""Where more subjects are new, the whole gallery is published alone: a difference would save little."""


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    base: int = Field(ge=0, lt=2**63)
    version: int = Field(ge=1, lt=2**63)
    removed: tuple[str, ...] = Field(max_length=MAX_ROWS)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def encode_delta(base: Gallery, new: Gallery) -> bytes | None:
    """Return what turns `base` into `new`, None where only the whole gallery can say it."""
    if base.model_id != new.model_id or base.dim != new.dim or base.version >= new.version:
        return None
    before, after = _entries(base), _entries(new)
    kept = {subject_id for subject_id, entry in after.items() if before.get(subject_id) == entry}
    if len(after) - len(kept) > MAX_ADDED:
        return None
    head = _Head(
        base=base.version,
        version=new.version,
        removed=tuple(subject_id for subject_id in before if subject_id not in kept),
        sha256=hashlib.sha256(encode(new)).hexdigest(),
    )
    text = head.model_dump_json().encode()
    if len(text) > MAX_HEAD_BYTES:
        return None
    data = HEADER.pack(MAGIC, FORMAT, len(text)) + text + encode(new.without_subjects(kept))
    try:
        apply_delta(base, data)
    except GalleryError:
        return None
    return data


def apply_delta(base: Gallery, data: bytes) -> Gallery:
    """Return the gallery that `encode_delta` was given as `new`; `base.version` is the published version.

    Raises:
        GalleryIntegrityError: Truncated, altered, made from another version, or the result is another one.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise GalleryIntegrityError("gallery difference: this is not one, or it is truncated")
    _, number, head_bytes = HEADER.unpack_from(data)
    if number != FORMAT or head_bytes > min(MAX_HEAD_BYTES, len(data) - HEADER.size):
        raise GalleryIntegrityError(
            f"gallery difference: format {number} with a head of {head_bytes} bytes is not read here"
        )
    try:
        head = _Head.model_validate_json(data[HEADER.size : HEADER.size + head_bytes])
    except ValidationError as error:
        raise GalleryIntegrityError(
            f"gallery difference: its head has {error.error_count()} mistakes"
        ) from None
    if base.version != head.base:
        raise GalleryIntegrityError(
            f"gallery difference: made from version {head.base}, version {base.version} is here"
        )
    added = decode(data[HEADER.size + head_bytes :])
    entries = [(subject, added.templates_of(subject.subject_id)) for subject in added.subjects]
    result = replace(base.without_subjects(set(head.removed)).with_subjects(entries), version=head.version)
    if hashlib.sha256(encode(result)).hexdigest() != head.sha256:
        raise GalleryIntegrityError("gallery difference: the result is not the published gallery")
    return result


def keeps_templates(base: Gallery, new: Gallery) -> bool:
    """Say whether every template of `base` is in `new`, of the same subject."""
    after = _entries(new)
    return all(
        subject_id in after and after[subject_id][1:] == entry[1:]
        for subject_id, entry in _entries(base).items()
    )


def _entries(gallery: Gallery) -> dict[str, tuple[Subject, tuple[Provenance, ...], bytes]]:
    """Return everything that is known of each subject, by its id and in their order."""
    found = {}
    for subject, start, count in zip(gallery.subjects, gallery.starts, gallery.counts, strict=True):
        rows = slice(int(start), int(start) + count)
        found[subject.subject_id] = (subject, gallery.provenance[rows], gallery.matrix[rows].tobytes())
    return found
