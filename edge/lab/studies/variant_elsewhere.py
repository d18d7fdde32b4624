"""Whether a calibration made on one collection of photos holds on another, for each way of deciding.

A door camera takes other pictures than a calibration was made from. What is tried is listed in `variants`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.lab.photos import rates
from edge.lab.photos.rates import Scores
from edge.lab.studies.variant_embeddings import PhotoViews, stacked
from edge.lab.studies.variant_scores import (
    Statistics,
    Variant,
    calibrate_all,
    enrol,
    present,
    search,
)
from edge.lab.studies.variants import Photos

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
    variant: Variant, shown: Sequence[FloatArray], statistics: Statistics, max_prototypes: int
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
