"""What other ways of deciding from the same weights would gain, on subjects that no statistic was taken from.

The subjects are cut at random into halves, several times: means, cohorts and calibrations come from one
half, the figures from the other. Also whether a calibration made on one collection of photos holds on
another: a door camera takes other pictures than it was made from.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.lab.photos import rates
from edge.lab.photos.measure import NOTHING, OpenSetScores
from edge.lab.photos.protocol import OpenSet
from edge.lab.photos.rates import Scores
from edge.lab.studies.variant_scores import (
    AlignmentMethod,
    Flip,
    Fuse,
    Impostors,
    Norm,
    PhotoViews,
    Variant,
    VariantStatistics,
    calibrate_all,
    enrol,
    present,
    search,
    stacked,
)

FPIRS = (0.01, 0.003)
HALVES = 8
SEED = 20261125
LEAST = 4
"""Subjects to enrol, and strangers, that a half needs."""

ONE_PHOTO = (
    Variant("baseline"),
    Variant("flip in template", flip=Flip.TEMPLATE),
    Variant("flip in both", flip=Flip.BOTH),
    Variant("robust alignment", alignment=AlignmentMethod.ROBUST),
    Variant("robust, flip in template", alignment=AlignmentMethod.ROBUST, flip=Flip.TEMPLATE),
    Variant("centred", centred=True),
    Variant("centred, flip in template", centred=True, flip=Flip.TEMPLATE),
    Variant("centred, flip in both", centred=True, flip=Flip.BOTH),
    Variant("z-norm", norm=Norm.Z),
    Variant("s-norm", norm=Norm.S),
    Variant("adaptive s-norm", norm=Norm.ADAPTIVE),
    Variant("s-norm, flip in template", norm=Norm.S, flip=Flip.TEMPLATE),
    Variant("centred, s-norm", centred=True, norm=Norm.S),
)
"""With one photo enrolled; the first is what the others are compared with."""

SEVERAL = 5
"""Photos that `SEVERAL_PHOTOS` enrol at most. All of them are asked the same probes, the photos after."""

SEVERAL_PHOTOS = (
    Variant("1 photo"),
    Variant("1, flip in template", flip=Flip.TEMPLATE),
    *(Variant(f"{photos}, {fuse}", photos=photos, fuse=fuse) for photos in (2, 3, 5) for fuse in Fuse),
    Variant("3, mean, flip in template", photos=3, flip=Flip.TEMPLATE),
    Variant("3, by gain, flip in template", photos=3, fuse=Fuse.GAIN, flip=Flip.TEMPLATE),
)


Photos = Mapping[str, tuple[Path, ...]]
"""The photos of each subject."""


@dataclass(frozen=True, slots=True)
class Half:
    """One split: who is enrolled, who is a stranger, and the first photos of both halves' subjects."""

    known: tuple[str, ...]
    strangers: tuple[Path, ...]
    tested: tuple[Path, ...]
    cohort: tuple[Path, ...]


def check_enough(protocol: OpenSet) -> None:
    """Refuse what cannot be halved, before anything is embedded.

    Raises:
        MediaError: Too few subjects for halves.
    """
    known, strangers = len(protocol.gallery), len(protocol.strangers)
    if min(known, strangers) < 2 * LEAST:
        raise MediaError(
            f"{known} subjects to enrol and {strangers} strangers cannot be halved; give photos of "
            f"{2 * LEAST} or more of each (strangers are subjects with a single photo)"
        )


def halves(protocol: OpenSet, everybody: Photos, count: int) -> Iterator[Half]:
    """Cut the subjects at random, `count` times; known subjects, strangers and the rest each evenly.

    The same photos give the same halves.

    Raises:
        MediaError: Too few subjects for halves.
    """
    check_enough(protocol)
    strangers = [path.parent.name for path in protocol.strangers]
    known = list(protocol.gallery)
    rest = [name for name in everybody if name not in {*known, *strangers}]
    generator = np.random.default_rng(SEED)
    for _ in range(count):
        orders = [[names[i] for i in generator.permutation(len(names))] for names in (known, strangers, rest)]
        tested, cohort = (
            tuple(everybody[name][0] for names in orders for name in names[start::2]) for start in (0, 1)
        )
        asked = tuple(everybody[name][0] for name in orders[1][::2])
        yield Half(tuple(orders[0][::2]), asked, tested, cohort)


def compare(
    variants: Sequence[Variant],
    protocol: OpenSet,
    everybody: Photos,
    views: PhotoViews,
    max_prototypes: int,
    progress: Progress,
    *,
    count: int = HALVES,
) -> dict[str, Any]:
    """Measure every variant on every half; each figure as a mean and against the first variant's.

    `tpir` is at a threshold set by the half's strangers. `tpir_by_pairs` is at that of the false match rate
    which gives this FPIR, over all pairs of the half's subjects: steadier, as six times as many comparisons
    decide it; None where several photos are enrolled. `at_target` is what the threshold obtains that was
    calibrated for the variant on the other half; `at_target_unchanged` what the first variant's threshold
    does, None where the scores are on another scale.

    Raises:
        MediaError: Too few subjects for halves, or photos without faces.
    """
    measured: dict[str, list[dict[str, float]]] = {variant.name: [] for variant in variants}
    for number, half in enumerate(halves(protocol, everybody, count)):
        cohort, tested = stacked(half.cohort, views), stacked(half.tested, views)
        calibrated = calibrate_all(variants, cohort)
        for variant in variants:
            statistics, own = calibrated[variant.calibrated_as]
            calibrations = {"own": own}
            if variant.plain_cosine:
                calibrations["first"] = calibrated[variants[0].calibrated_as][1]
            if variant.photos == 1:
                calibrations["pairs"] = _pairs(variant, tested, statistics)
            scores = _open_set(variant, half, protocol, views, statistics, max_prototypes)
            measured[variant.name].append(_figures(scores, calibrations))
        progress("halves", number + 1, count)
    reference = measured[variants[0].name]
    return {name: _summary(figures, reference) for name, figures in measured.items()}


def _pairs(variant: Variant, tested: FloatArray, statistics: VariantStatistics) -> Impostors:
    """Compare every subject of a half with every other, one photo each (n, len(VIEWS), D)."""
    gallery = enrol(variant, list(tested[:, None]), statistics, 1)
    scores = search(variant, gallery, present(variant, tested, statistics), statistics)
    return Impostors.of(scores[~np.eye(len(scores), dtype=bool)])


def _open_set(
    variant: Variant,
    half: Half,
    protocol: OpenSet,
    views: PhotoViews,
    statistics: VariantStatistics,
    max_prototypes: int,
) -> OpenSetScores:
    """Enrol the half's known subjects and search with its probes; no face scores minus infinity."""
    shown = {
        name: np.stack(rows)
        for name in half.known
        if (rows := [row for path in protocol.gallery[name] if (row := views[path]) is not None])
    }
    gallery = enrol(variant, list(shown.values()), statistics, max_prototypes)
    names = np.array(list(shown))
    genuine = [(name, path) for name, path in protocol.genuine if name in set(half.known)]

    def ask(photos: Sequence[Path]) -> tuple[Scores, np.ndarray[Any, np.dtype[np.str_]]]:
        best, who = np.full(len(photos), NOTHING), np.full(len(photos), "", names.dtype)
        seen = [i for i, path in enumerate(photos) if views[path] is not None]
        probes = present(variant, stacked(photos, views), statistics)
        scores = search(variant, gallery, probes, statistics)
        best[seen], who[seen] = scores.max(axis=1), names[scores.argmax(axis=1)]
        return best, who

    best, who = ask([path for _, path in genuine])
    right = who == np.array([name for name, _ in genuine])
    return OpenSetScores(best, right, ask(half.strangers)[0], len(names), gallery.comparisons)


def _figures(scores: OpenSetScores, calibrations: dict[str, Impostors]) -> dict[str, float]:
    """Return the figures of one half, by its strangers and by impostor pairs."""
    figures = {"rank1": float(scores.right.mean())}
    for fpir in FPIRS:
        threshold = rates.threshold_at(scores.strangers, fpir)
        figures[f"tpir {fpir}"] = rates.identified(scores.best, scores.right, threshold)
        fmr = -math.expm1(math.log1p(-fpir) / max(1, scores.comparisons))
        for name, pairs in calibrations.items():
            threshold = pairs.threshold_at(fmr)
            figures[f"{name} fpir {fpir}"] = rates.accepted(scores.strangers, threshold)
            figures[f"{name} tpir {fpir}"] = rates.identified(scores.best, scores.right, threshold)
    return figures


def _summary(halves: Sequence[dict[str, float]], reference: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return means over the halves, and for rank-1 and TPIR in how many halves they beat the reference's."""

    def against(key: str) -> dict[str, Any]:
        gains = [mine[key] - theirs[key] for mine, theirs in zip(halves, reference, strict=True)]
        return {
            "mean": round(float(np.mean([half[key] for half in halves])), 5),
            "gain": round(float(np.mean(gains)), 5),
            "better": sum(gain > 0 for gain in gains),
            "worse": sum(gain < 0 for gain in gains),
            "halves": [round(half[key], 5) for half in halves],
        }

    def obtained(name: str, fpir: float) -> dict[str, float]:
        fpirs = [half[f"{name} fpir {fpir}"] for half in halves]
        return {
            "fpir": round(float(np.mean(fpirs)), 5),
            "fpir_low": round(min(fpirs), 5),
            "fpir_high": round(max(fpirs), 5),
            "tpir": round(float(np.mean([half[f"{name} tpir {fpir}"] for half in halves])), 5),
        }

    def has(name: str) -> bool:
        return f"{name} fpir {FPIRS[0]}" in halves[0]

    return {
        "rank1": against("rank1"),
        "tpir": {str(fpir): against(f"tpir {fpir}") for fpir in FPIRS},
        "tpir_by_pairs": {str(fpir): against(f"pairs tpir {fpir}") for fpir in FPIRS}
        if has("pairs")
        else None,
        "at_target": {str(fpir): obtained("own", fpir) for fpir in FPIRS},
        "at_target_unchanged": {str(fpir): obtained("first", fpir) for fpir in FPIRS}
        if has("first")
        else None,
    }


FMRS = (1e-2, 1e-3, 1e-4)


def elsewhere(
    variants: Sequence[Variant],
    cohort: Sequence[Path],
    other: Photos,
    views: PhotoViews,
    max_prototypes: int,
    progress: Progress,
) -> dict[str, Any]:
    """Calibrate on a cohort (one photo per subject), then compare all photos of `other` subjects.

    `fmr` is the share of impostor pairs that pass where a rate was promised (`fmr_unchanged` with the first
    variant's thresholds), `tar` the genuine pairs at the same thresholds, `tar_at_far` those at the
    threshold which is right for these photos.

    Variants that enrol more photos than the other subjects can spare are left out.

    Raises:
        MediaError: Not even one photo can be enrolled and another be compared, for two other subjects.
    """
    calibrated = calibrate_all(variants, stacked(cohort, views))
    first = calibrated[variants[0].calibrated_as][1]
    shown = [
        np.stack(rows)
        for paths in other.values()
        if (rows := [row for path in paths if (row := views[path]) is not None])
    ]
    report: dict[str, Any] = {}
    for number, variant in enumerate(variants):
        statistics, pairs = calibrated[variant.calibrated_as]
        found = _everyone(variant, shown, statistics, max_prototypes)
        if found is None:
            continue
        genuine, others = found
        own = [pairs.threshold_at(fmr) for fmr in FMRS]
        old = [first.threshold_at(fmr) for fmr in FMRS] if variant.plain_cosine else None
        report[variant.name] = {
            "fmr": _by_rate(rates.accepted(others, threshold) for threshold in own),
            "fmr_unchanged": _by_rate(rates.accepted(others, at) for at in old) if old else None,
            "tar": _by_rate(rates.accepted(genuine, threshold) for threshold in own),
            "tar_at_far": _by_rate(rates.tar_at_far(genuine, others, far) for far in FMRS),
        }
        progress("other photos", number + 1, len(variants))
    if not report:
        raise MediaError(
            f"{len(other)} other subjects, {len(shown)} with a face: two subjects with two or more photos "
            "each are the least to compare"
        )
    return report


def _everyone(
    variant: Variant, shown: Sequence[FloatArray], statistics: VariantStatistics, max_prototypes: int
) -> tuple[Scores, Scores] | None:
    """Return the genuine and the impostor scores of the views of each subject with all templates.

    Each subject's photos are enrolled in groups, as many together as the variant enrols; a photo is never
    compared with a template that it is part of. None where not even two subjects have a photo to spare.
    """
    size = variant.photos
    groups = [
        (who, start, rows[start : start + size])
        for who, rows in enumerate(shown)
        for start in range(0, len(rows) - size + 1, size)
    ]
    if len({who for who, _, _ in groups if len(shown[who]) > size}) < 2:
        return None
    gallery = enrol(variant, [rows for _, _, rows in groups], statistics, max_prototypes)
    probes = present(variant, np.concatenate(shown), statistics)
    scores = search(variant, gallery, probes, statistics).astype(np.float64)
    owners = np.concatenate([np.full(len(rows), who) for who, rows in enumerate(shown)])
    numbers = np.concatenate([np.arange(len(rows)) for rows in shown])
    of, start = np.array([who for who, _, _ in groups]), np.array([first for _, first, _ in groups])
    same = owners[:, None] == of
    within = same & (numbers[:, None] >= start) & (numbers[:, None] < start + size)
    return scores[same & ~within], scores[~same]


def _by_rate(values: Iterable[float]) -> dict[str, float]:
    return {f"{rate:g}": round(value, 6) for rate, value in zip(FMRS, values, strict=True)}
