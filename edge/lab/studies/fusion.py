"""How to make one answer of the shots of a visit: several ways, compared on the same visits.

A visit is a few photos of one subject, some of them spoiled. The product's own way (`edge.recognition.visit`)
is the quality-weighted mean of the embeddings that passed the gate. Decides nothing about time or tracks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.lab.photos import rates
from edge.lab.photos.measure import NOTHING
from edge.lab.photos.protocol import subjects
from edge.lab.photos.rates import Scores
from edge.lab.photos.shots import Shot, Shots

VISIT_SHOTS = 3
MIN_IMAGES = 6
"""Photos of a subject who is enrolled: one for the gallery and at least one visit."""

MAX_VISITS = 4
"""Visits per subject at most, so that the few with hundreds of photos do not decide the figure."""

FPIRS = (0.01, 0.003)
DRAW_SEED = 20261124


@dataclass(frozen=True, slots=True)
class Visits:
    """The photo enrolled of each subject, and visits: index of the subject (-1: a stranger) and photos."""

    gallery: tuple[Path, ...]
    owners: tuple[int, ...]
    photos: tuple[tuple[Path, ...], ...]


def visits(images: Path) -> Visits:
    """Return the visits of a folder: of subjects with MIN_IMAGES photos, who are enrolled, and of strangers.

    Strangers are the subjects with fewer photos, as far as they fill a visit.

    Raises:
        MediaError: Fewer than two subjects can be enrolled.
    """
    gallery: list[Path] = []
    owners: list[int] = []
    groups: list[tuple[Path, ...]] = []
    for photos in subjects(images).values():
        known = len(photos) >= MIN_IMAGES
        rest = photos[1:] if known else photos[:VISIT_SHOTS]
        if known:
            gallery.append(photos[0])
        for start in range(0, min(len(rest), MAX_VISITS * VISIT_SHOTS) - VISIT_SHOTS + 1, VISIT_SHOTS):
            owners.append(len(gallery) - 1 if known else -1)
            groups.append(rest[start : start + VISIT_SHOTS])
    if len(gallery) < 2:
        raise MediaError(
            f"{images}: {len(gallery)} subjects with {MIN_IMAGES} photos; fusion needs two or more"
        )
    return Visits(tuple(gallery), tuple(owners), tuple(groups))


def best_shot(scores: FloatArray, shots: Sequence[Shot], gallery: FloatArray) -> FloatArray:
    """Return the scores of the shot with the highest quality weight."""
    return np.asarray(scores[int(np.argmax([shot.quality.weight for shot in shots]))], np.float32)


def max_score(scores: FloatArray, shots: Sequence[Shot], gallery: FloatArray) -> FloatArray:
    """Return each subject's best score over the shots."""
    return np.asarray(scores.max(axis=0), np.float32)


def plain_mean(scores: FloatArray, shots: Sequence[Shot], gallery: FloatArray) -> FloatArray:
    """Return the scores of the mean embedding."""
    return gallery @ mean_embedding(shots, [1.0] * len(shots))


def weighted_mean(scores: FloatArray, shots: Sequence[Shot], gallery: FloatArray) -> FloatArray:
    """Return the scores of the quality-weighted mean embedding: what the product does."""
    return gallery @ mean_embedding(shots, [shot.quality.weight for shot in shots])


METHODS: Mapping[str, Callable[[FloatArray, Sequence[Shot], FloatArray], FloatArray]] = {
    "best shot": best_shot,
    "best score": max_score,
    "mean": plain_mean,
    "weighted mean": weighted_mean,
}
"""Each takes scores (shots, subjects), the shots and the gallery (subjects, D); gives scores (subjects,)."""


def mean_embedding(shots: Sequence[Shot], weights: Sequence[float]) -> FloatArray:
    """Return the weighted mean of the shots' embeddings, float32 (D,), unit norm."""
    total = np.asarray(weights, np.float32) @ np.stack([shot.embedding for shot in shots])
    return np.asarray(total / np.linalg.norm(total), np.float32)


def compare(who: Visits, enrolled: FloatArray, clean: Shots, spoiled: Shots) -> dict[str, Any]:
    """Report TPIR of every method with 0 to all shots of each visit spoiled, with the gate and without.

    `enrolled` is the gallery (subjects, D). A visit of an enrolled subject is also a stranger's to the
    gallery without that subject, so that there are enough strangers for small FPIR.
    """
    generator = np.random.default_rng(DRAW_SEED)
    order = [generator.permutation(VISIT_SHOTS) for _ in who.photos]
    report: dict[str, Any] = {}
    for count in range(VISIT_SHOTS + 1):
        seen = [
            [shot for i, path in enumerate(photos) if (shot := (spoiled if turn[i] < count else clean)[path])]
            for photos, turn in zip(who.photos, order, strict=True)
        ]
        passed = [[shot for shot in shots if shot.quality.refused is None] for shots in seen]
        report[f"{count} of {VISIT_SHOTS} spoiled"] = {
            "ungated": _methods(who, enrolled, seen),
            "gated": _methods(who, enrolled, passed),
        }
    return {
        "n_subjects": len(enrolled),
        "n_visits": sum(owner >= 0 for owner in who.owners),
        "n_unknown": len(who.owners),
        "conditions": report,
    }


def _methods(who: Visits, enrolled: FloatArray, shots: Sequence[Sequence[Shot]]) -> dict[str, Any]:
    report: dict[str, Any] = {"fta": round(float(np.mean([not taken for taken in shots])), 5)}
    for name, method in METHODS.items():
        fused = np.full((len(shots), len(enrolled)), NOTHING)
        for row, taken in enumerate(shots):
            if taken:
                scores = np.stack([shot.embedding for shot in taken]) @ enrolled.T
                fused[row] = method(scores, taken, enrolled)
        report[name] = _tpir(fused, np.array(who.owners))
    return report


def _tpir(fused: Scores, owners: np.ndarray[tuple[int], np.dtype[np.intp]]) -> dict[str, float]:
    """Return TPIR at each FPIR from fused scores (visits, subjects)."""
    genuine = np.flatnonzero(owners >= 0)
    best, right = fused[genuine].max(axis=1), fused[genuine].argmax(axis=1) == owners[genuine]
    others = fused.copy()
    others[genuine, owners[genuine]] = NOTHING
    strangers = others.max(axis=1)
    named = right & np.isfinite(best)
    return {
        str(fpir): round(rates.identified(best, named, rates.threshold_at(strangers, fpir)), 5)
        for fpir in FPIRS
    }
