"""The shift of each subject who looks like several others, and the rule of a gallery with all of its shifts.

A gallery's shift says how alike people are on the whole. Children among adults are more alike than that, and
what they have in common raises a shift that keeps adults out. So each subject is compared with its nearest:

1. A subject and its `NEAREST` nearest are as alike as the median of their pairs. One person under two
   ids hardly moves it.
2. What that is above the threshold of `NEAREST_RATE` comparisons, as this gallery shifts it, times
   `STEEPNESS`, is added for this subject besides the gallery's shift: together they are its own shift.
3. Where subjects stand out like this, and the shift of the others alone is at most `OTHERS_SHARE` of that of
   all, the others have that shift, and who stands out, or is as alike to the nearest as chance makes one
   (less `NEARLY`), has at least that of all.

The values were chosen on a half of UTKFace and of lfw-dev; models/MEASURED.md shows the other halves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray
from edge.gallery.alike.shift import (
    MIN_SUBJECTS,
    Flags,
    allowance,
    measure_shift,
    most_shift,
    one_template_each,
    shift_among,
)
from edge.gallery.decision import AGREEING_FMR, Calibration, DecisionRule, GalleryShift
from edge.gallery.gallery import Gallery

NEAREST = 4
"""With 3, galleries of 40 of lfw-dev lose .008 of TPIR instead of .001; with 5, four alike are no group."""

NEAREST_RATE = 1.5
"""Comparisons of a subject with all others that pass a threshold by chance. With 2 the loss is .004."""

STEEPNESS = 5
"""How far the threshold of a subject rises over its excess: the tail of a group lies far above its middle."""

ROUNDS, LEAST_OTHERS = 3, 0.5
"""How often those who stand out are left out, and the share of subjects that have to be left. With one round
60 toddlers among 100 adults raise the threshold of the adults by .12."""

OTHERS_SHARE = 0.25
NEARLY = 0.02
"""A cosine. With 0, galleries of 40 of all ages have 2.1 times the target of .01 instead of 1.8; with .05,
adults among whom 20 toddlers are enrolled lose .03 of TPIR more."""

MOST_NEIGHBOURS = 2_000
"""Subjects, spread over the gallery, among whom the nearest are looked for."""

MOST_SCORES = 200_000_000
"""Compared in all: about 1 s on one core. In larger galleries the nearest are looked for among fewer."""

BLOCK_SCORES = 4_000_000
"""Scores computed at a time: 16 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Shifts:
    """What is added to calibrated thresholds: of `others`, and at least `own`, float32 (n,), of each subject.

    `counted`, bool (n,), are the subjects whose pairs the shift of `others` is taken from.
    """

    others: GalleryShift | None
    own: FloatArray
    counted: Flags

    def thresholds(self, rule: DecisionRule, comparisons: float) -> FloatArray:
        """Return the threshold of each subject, float32 (n,), by a rule without these shifts."""
        rule = replace(rule, gallery_shift=self.others)
        threshold, shift = rule.threshold_for(comparisons), rule.shift_for(comparisons)
        own = np.zeros_like(self.own) if shift is None else np.maximum(0, self.own - shift.value)
        return np.asarray(np.minimum(1, threshold + own), np.float32)


def shifted(rule: DecisionRule, gallery: Gallery, strangers: FloatArray | None = None) -> DecisionRule:
    """Return the rule with the shifts of this gallery; the same one without a calibration.

    `strangers`, float32 (n, D), unit norm, are one embedding of each who was kept; None: nobody was.
    """
    if rule.calibration is None:
        return rule
    rows, several = one_template_each(gallery)
    found = shifts_among(rows, rule.calibration, several)
    of_gallery = found.others
    if strangers is not None:
        of_gallery = measure_shift(gallery, rule.calibration, strangers, found.counted)
    return replace(rule, gallery_shift=of_gallery, own_shifts=_by_id(gallery, found.own))


def shifts_among(rows: FloatArray, calibration: Calibration, several: Flags | None = None) -> Shifts:
    """Return the shifts of subjects, from one embedding of each; the arguments are those of `shift_among`."""
    everybody = shift_among(rows, calibration, several)
    all_of_them = np.ones(len(rows), np.bool_)
    if everybody is None:
        return Shifts(None, np.zeros(len(rows), np.float32), all_of_them)
    alike, chance = _nearest_alike(rows, calibration, several)
    found, others = everybody, all_of_them
    for _ in range(ROUNDS):
        fewer = alike <= chance + found.at(chance)
        too_few = np.count_nonzero(fewer) < max(MIN_SUBJECTS, LEAST_OTHERS * len(rows))
        if too_few or (fewer == others).all():
            break
        of_fewer = shift_among(rows[fewer], calibration, None if several is None else several[fewer])
        if of_fewer is None:
            break
        found, others = of_fewer, fewer
    single = calibration.threshold_at(AGREEING_FMR)
    of_all = everybody.at(single)
    split = not others.all() and found.at(single) <= OTHERS_SHARE * of_all
    if not split:
        found, others = everybody, all_of_them
    excess = alike - chance - found.at(chance)
    own = np.where(excess > 0, found.at(single) + STEEPNESS * excess, 0)
    if split:
        own[alike > chance - NEARLY] = np.maximum(own, of_all)[alike > chance - NEARLY]
    own = np.minimum(own, most_shift(calibration.thresholds)).astype(np.float32)
    return Shifts(found, own, others)


def _nearest_alike(
    rows: FloatArray, calibration: Calibration, several: Flags | None
) -> tuple[FloatArray, float]:
    """Return how alike each subject and its nearest are, float32 (n,), and how alike they are by chance."""
    size = len(rows)
    most = min(size, MOST_NEIGHBOURS, max(MIN_SUBJECTS, MOST_SCORES // size))
    among = np.linspace(0, size - 1, most).astype(np.intp)
    extra = np.zeros(size, np.float32)
    if several is not None:
        extra += np.float32(allowance(calibration)) * several
    alike = np.empty(size, np.float32)
    step = max(1, BLOCK_SCORES // most)
    for start in range(0, size, step):
        block = np.arange(start, min(start + step, size))
        scores = rows[block] @ rows[among].T - extra[among]
        scores[block[:, None] == among] = -np.inf  # nobody is near himself
        nearest = among[np.argpartition(scores, -NEAREST, axis=1)[:, -NEAREST:]]
        alike[block] = _median_pair(rows, extra, np.column_stack([block, nearest]))
    return alike, calibration.threshold_at(NEAREST_RATE / most)


def _median_pair(rows: FloatArray, extra: FloatArray, groups: NDArray[np.intp]) -> FloatArray:
    """Return the median score of the pairs of each group of subjects (m, k), float32 (m,)."""
    each = rows[groups]
    pairs = each @ each.transpose(0, 2, 1) - (extra[groups][:, :, None] + extra[groups][:, None, :])
    first, second = np.triu_indices(groups.shape[1], 1)
    middle: FloatArray = np.median(pairs[:, first, second], axis=1).astype(np.float32)
    return middle


def _by_id(gallery: Gallery, own: FloatArray) -> Mapping[str, float]:
    return {gallery.subjects[at].subject_id: float(own[at]) for at in np.flatnonzero(own)}
