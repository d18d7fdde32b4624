"""One more subject: what it costs, whether it is recognised, and what it does to all the others.

The same newcomer is enrolled in a gallery and brought into a trained softmax head in every usual way.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from edge.core.download import Progress
from edge.core.types import FloatArray, Quality, Subject, Template
from edge.gallery.gallery import Gallery
from edge.gallery.prototypes import photos_of, prototypes
from edge.lab.photos import rates
from edge.lab.studies.oneshot import FPIRS, Faces, Search, by_logit, open_set, trained
from edge.lab.studies.softmax import SoftmaxHead, train

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
