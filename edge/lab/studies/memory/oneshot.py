"""Does one-shot remove the retraining? A gallery and a trained softmax head on the same photos and probes.

Half of each subject's photos are for enrolment or training, the other half are probes; subjects with a
single photo are strangers. Growth: a newcomer is enrolled in the gallery and brought into the head in
every usual way; measured are what that costs, whether it is recognised, and what it does to the others.
`siamese` has the list.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray, Quality, Subject, Template
from edge.gallery.gallery import Gallery
from edge.gallery.prototypes import photos_of, prototypes
from edge.lab.photos import rates
from edge.lab.photos.rates import Flags, Scores
from edge.lab.studies.memory.softmax import SoftmaxHead, train

FPIRS = (0.01, 0.001)
MEANS = (3, 5, 10)
HEADS = (1, 3, None)
"""Photos per subject that a head is trained with; None: all."""

LOOKUPS = 200
MIN_SUBJECTS = 10

Search = Callable[[FloatArray], FloatArray]
"""Embeddings (N, D) to the score of each subject (N, S)."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Embeddings: photos to enrol (n, D) and probes (m, D) of each subject, and one of each stranger."""

    pools: tuple[FloatArray, ...]
    probes: tuple[FloatArray, ...]
    strangers: FloatArray

    @property
    def labels(self) -> NDArray[np.intp]:
        """Subject of each probe, in the order of `probes`."""
        return np.repeat(np.arange(len(self.probes)), [len(rows) for rows in self.probes])


@dataclass(frozen=True, slots=True)
class GalleryKind:
    """One way to keep subjects: how they are searched, what they take, how long training took."""

    name: str
    search: Search
    rows: int
    bytes: int
    train_s: float


def split(everybody: Mapping[str, Sequence[Path]], embeddings: Mapping[Path, FloatArray | None]) -> Faces:
    """Divide photos into pools, probes and strangers; photos without a face are left out.

    Raises:
        MediaError: Fewer than `MIN_SUBJECTS` subjects with two photos, or strangers.
    """
    pools, probes, strangers = [], [], []
    for photos in everybody.values():
        rows = [row for path in photos if (row := embeddings[path]) is not None]
        if len(rows) == 1:
            strangers.append(rows[0])
        elif rows:
            pools.append(np.stack(rows[: len(rows) // 2]))
            probes.append(np.stack(rows[len(rows) // 2 :]))
    if min(len(pools), len(strangers)) < MIN_SUBJECTS:
        raise MediaError(
            f"{len(pools)} subjects with two photos or more and {len(strangers)} with one (strangers) are "
            f"too few; {MIN_SUBJECTS} of each are needed"
        )
    return Faces(tuple(pools), tuple(probes), np.stack(strangers))


def variants(faces: Faces, logits: int, max_prototypes: int, step: Progress) -> list[GalleryKind]:
    """Return every way to keep the subjects of `faces`, trained where that is needed."""
    found = [_rows("1 template", [pool[:1] for pool in faces.pools])]
    found += [_rows(f"mean of {k}", [_mean(pool[:k]) for pool in faces.pools]) for k in MEANS]
    few = [prototypes(pool, np.ones(len(pool), np.float32), max_prototypes) for pool in faces.pools]
    found.append(_rows(f"1-{max_prototypes} prototypes", few))
    found.append(_rows("all photos as rows", faces.pools))
    for done, photos in enumerate(HEADS):
        step("training", done, len(HEADS))
        head, train_s = trained(faces.pools, logits, photos)
        name = f"softmax, {photos or 'all'} photo{'s' * (photos != 1)}"
        size = head.weights.nbytes + head.biases.nbytes
        found.append(GalleryKind(name, by_logit(head), logits, size, train_s))
    step("training", len(HEADS), len(HEADS))
    return found


def trained(pools: Sequence[FloatArray], logits: int, photos: int | None) -> tuple[SoftmaxHead, float]:
    """Return a head trained on up to `photos` photos of each subject, and the seconds it took."""
    kept = [pool[:photos] for pool in pools]
    labels = np.repeat(np.arange(len(kept)), [len(rows) for rows in kept])
    started = time.perf_counter()
    head = train(SoftmaxHead.blank(logits, kept[0].shape[1], len(kept)), np.concatenate(kept), labels)
    return head, time.perf_counter() - started


def measure(faces: Faces, found: Sequence[GalleryKind]) -> dict[str, dict[str, Any]]:
    """Return rank-1, TPIR at FPIR, rows, bytes, training time and, taken in turn, ms per lookup of each."""
    report = {}
    times = lookup_ms({variant.name: variant.search for variant in found}, faces.strangers)
    for variant in found:
        best, right, strangers = open_set(faces, variant.search)
        report[variant.name] = {
            "rank1": round(float(right.mean()), 4),
            "tpir": {
                str(fpir): round(rates.identified(best, right, rates.threshold_at(strangers, fpir)), 4)
                for fpir in FPIRS
            },
            "rows": variant.rows,
            "bytes": variant.bytes,
            "ms_lookup": round(times[variant.name], 4),
            "train_s": round(variant.train_s, 2),
        }
    return report


def open_set(faces: Faces, search: Search) -> tuple[Scores, Flags, Scores]:
    """Return the best score of each probe, whether it named the right subject, and strangers' best scores."""
    found = search(np.concatenate(faces.probes))
    right = found.argmax(axis=1) == faces.labels
    strangers = search(faces.strangers).max(axis=1)
    return found.max(axis=1).astype(np.float64), right, strangers.astype(np.float64)


def lookup_ms(searches: Mapping[str, Search], embeddings: FloatArray) -> dict[str, float]:
    """Return the median milliseconds of one lookup of one embedding, all searches in turn."""
    spent: dict[str, list[float]] = {name: [] for name in searches}
    for round_number in range(LOOKUPS):
        row = embeddings[round_number % len(embeddings)][None]
        for name, search in searches.items():
            started = time.perf_counter()
            search(row)
            spent[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) * 1e3 for name, values in spent.items()}


def by_logit(head: SoftmaxHead) -> Search:
    """Return what scores embeddings by the logits of a head."""
    return lambda rows: head.scores(rows, probability=False)


def gallery_search(templates: Sequence[FloatArray]) -> Search:
    """Return a search by cosine; a subject scores what its best template does."""
    matrix = np.ascontiguousarray(np.concatenate(templates), np.float32)
    starts = np.cumsum([0, *(len(rows) for rows in templates[:-1])])
    if len(matrix) == len(templates):
        return lambda rows: rows @ matrix.T
    return lambda rows: np.maximum.reduceat(rows @ matrix.T, starts, axis=1)


def _rows(name: str, templates: Sequence[FloatArray]) -> GalleryKind:
    count = sum(len(rows) for rows in templates)
    return GalleryKind(name, gallery_search(templates), count, count * templates[0].shape[1] * 4, 0.0)


def _mean(rows: FloatArray) -> FloatArray:
    mean = rows.mean(axis=0, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


NEWCOMERS = 20
NEWCOMER_PHOTOS = 3
"""Photos of the newcomer that are enrolled or learned."""

FINE_STEPS = 50
FINE_RATE = 0.005

NOTHING_KNOWN = Quality(112.0, 1.0, 0.0, 1.0, 1.0, 1.0)
MODEL = "measured"

Grow = Callable[[FloatArray], Search]
"""The newcomer's photos (k, D) to a search over everybody, the newcomer last."""


def measure_growth(faces: Faces, logits: int, max_prototypes: int, step: Progress) -> dict[str, Any]:
    """Return for every way to add a subject: ms, the newcomer's rank-1, and the damage to all others.

    Newcomers are the last `NEWCOMERS` subjects with `NEWCOMER_PHOTOS` photos to enrol (half of all subjects
    where there are fewer than twice as many), each added alone to a base without any of them. Retraining from
    nothing is done for the first one only.
    """
    by_photos = sorted(range(len(faces.pools)), key=lambda i: min(len(faces.pools[i]), NEWCOMER_PHOTOS))
    chosen = by_photos[-min(NEWCOMERS, len(by_photos) // 2) :]
    kept = [i for i in range(len(faces.pools)) if i not in set(chosen)]
    base = Faces(tuple(faces.pools[i] for i in kept), tuple(faces.probes[i] for i in kept), faces.strangers)
    head, _ = trained(base.pools, logits, None)
    gallery = _gallery(base, max_prototypes)
    ways: dict[str, tuple[Search, Grow]] = {
        "enrol": (_search(gallery), lambda photos: _search(_enrol(gallery, photos, max_prototypes))),
        "mean into a spare logit": (
            by_logit(head),
            lambda photos: by_logit(head.with_mean(photos.mean(axis=0))),
        ),
        "fine-tune on the newcomer": (by_logit(head), lambda photos: by_logit(_fine_tune(head, photos))),
        "fine-tune on everybody": (by_logit(head), lambda photos: by_logit(_replay(head, photos, base))),
        "retrain from nothing": (by_logit(head), lambda photos: by_logit(_retrain(base, photos, logits))),
    }
    report = {}
    for done, (name, (before, grow)) in enumerate(ways.items()):
        step("adding a subject", done, len(ways))
        few = chosen[:1] if name == "retrain from nothing" else chosen
        report[name] = _judge(base, before, grow, [(faces.pools[i], faces.probes[i]) for i in few])
    step("adding a subject", len(ways), len(ways))
    return report


def _judge(
    base: Faces, before: Search, grow: Grow, newcomers: list[tuple[FloatArray, FloatArray]]
) -> dict[str, Any]:
    """Average over the newcomers, each added alone."""
    old = _figures(base, before)
    spent, hits, claimed, new = [], [], [], []
    for pool, probes in newcomers:
        started = time.perf_counter()
        search = grow(pool[:NEWCOMER_PHOTOS])
        spent.append(time.perf_counter() - started)
        hits.append(float((search(probes).argmax(axis=1) == len(base.pools)).mean()))
        others = search(np.concatenate([*base.probes, base.strangers]))
        claimed.append(float((others.argmax(axis=1) == len(base.pools)).mean()))
        new.append(_figures(base, search))
    change = np.mean(new, axis=0) - old
    return {
        "ms": round(float(np.median(spent)) * 1e3, 3),
        "newcomer_rank1": round(float(np.mean(hits)), 4),
        "others_claimed": round(float(np.mean(claimed)), 5),
        "others_rank1_change": round(float(change[0]), 4),
        "others_tpir_change": {str(f): round(float(c), 4) for f, c in zip(FPIRS, change[1:], strict=True)},
        "newcomers": len(newcomers),
    }


def _figures(base: Faces, search: Search) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    best, right, strangers = open_set(base, search)
    tpir = [rates.identified(best, right, rates.threshold_at(strangers, fpir)) for fpir in FPIRS]
    return np.array([right.mean(), *tpir])


def _gallery(base: Faces, max_prototypes: int) -> Gallery:
    return Gallery.empty(MODEL).with_subjects(
        (Subject(str(i), ""), _templates(pool, max_prototypes)) for i, pool in enumerate(base.pools)
    )


def _enrol(gallery: Gallery, photos: FloatArray, max_prototypes: int) -> Gallery:
    return gallery.with_subject(Subject("newcomer", ""), _templates(photos, max_prototypes))


def _templates(photos: FloatArray, max_prototypes: int) -> list[Template]:
    rows = prototypes(photos, np.ones(len(photos), np.float32), max_prototypes)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Template(row, MODEL, NOTHING_KNOWN, "photo", at, count)
        for row, count in zip(rows, photos_of(rows, photos), strict=True)
    ]


def _search(gallery: Gallery) -> Search:
    return lambda rows: np.maximum.reduceat(rows @ gallery.matrix.T, gallery.starts, axis=1)


def _fine_tune(head: SoftmaxHead, photos: FloatArray) -> SoftmaxHead:
    labels = np.full(len(photos), head.used)
    return train(head.with_logit(), photos, labels, steps=FINE_STEPS, rate=FINE_RATE)


def _replay(head: SoftmaxHead, photos: FloatArray, base: Faces) -> SoftmaxHead:
    pools = [*base.pools, photos]
    labels = np.repeat(np.arange(len(pools)), [len(rows) for rows in pools])
    return train(head.with_logit(), np.concatenate(pools), labels, steps=FINE_STEPS, rate=FINE_RATE)


def _retrain(base: Faces, photos: FloatArray, logits: int) -> SoftmaxHead:
    return trained([*base.pools, photos], logits, None)[0]
