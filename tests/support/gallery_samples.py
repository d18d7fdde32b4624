"""Galleries, templates and probes for the tests; embeddings are random unit vectors."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edge.core.types import FloatArray, Probe, Quality, Subject, Template
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore

MODEL = "sface-int8@0123abcd"
QUALITY = Quality(112.0, 0.81, -8.0, 0.7, 0.93, 0.6)
AT = datetime(2026, 8, 1, 7, 31, 22, 481000, tzinfo=UTC)


def unit_rows(count: int, dim: int = 128, seed: int = 0) -> FloatArray:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def alike_rows(count: int, alike: float, dim: int = 128, seed: int = 0) -> FloatArray:
    """Return unit rows of a mean cosine of about `alike`."""
    rows = np.sqrt(1 - alike) * unit_rows(count, dim, seed) + np.sqrt(alike) * unit_rows(1, dim, 4711)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def template(embedding: FloatArray, model_id: str = MODEL) -> Template:
    return Template(embedding, model_id, QUALITY, "photo", AT)


def probe(embedding: FloatArray, model_id: str = MODEL) -> Probe:
    return Probe(embedding, model_id, QUALITY)


def gallery_of(counts: list[int], dim: int = 128, seed: int = 0) -> Gallery:
    """Return a gallery with subjects p-0, p-1 and so on, of that many templates each."""
    rows = iter(unit_rows(sum(counts), dim, seed))
    return Gallery.empty(MODEL).with_subjects(
        (Subject(f"p-{i}", f"Subject {i}", ("staff",)), [template(next(rows)) for _ in range(count)])
        for i, count in enumerate(counts)
    )


def enrolled_as(rows: FloatArray) -> Gallery:
    """Return a gallery with subjects p-0, p-1 and so on, of one of these templates each."""
    return Gallery.empty(MODEL).with_subjects(
        (Subject(f"p-{i}", ""), [template(row)]) for i, row in enumerate(rows)
    )


def assert_equal(first: Gallery, second: Gallery) -> None:
    assert (first.version, first.model_id) == (second.version, second.model_id)
    assert (first.subjects, first.counts) == (second.subjects, second.counts)
    assert first.provenance == second.provenance
    assert first.matrix.tobytes() == second.matrix.tobytes()
    assert first.matrix.shape == second.matrix.shape


def enrol(store: GalleryStore, *subject_ids: str) -> Gallery:
    """Commit one version per subject."""
    gallery = store.load(MODEL)
    for subject_id in subject_ids:
        row = template(unit_rows(1, seed=len(subject_id))[0])
        gallery = store.commit(gallery.with_subject(Subject(subject_id, ""), [row]))
    return gallery


def ids(gallery: Gallery) -> list[str]:
    return [subject.subject_id for subject in gallery.subjects]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
