"""How much more alike the enrolled are than the faces of the calibration, from their pairs alone.

Strangers who come to a door are like those who are enrolled there: of one age, under one light, of one
region. Where the enrolled look more alike than the calibration says, so do strangers, and the threshold
rises. Every pair of two subjects is one of two different people, but for duplicates.

The rule, chosen on a half of UTKFace (groups of one age or ethnic group, 20 to 100 enrolled) and on lfw-dev;
models/MEASURED.md shows it on the other half:

1. The excess of the pairs' quantiles over the thresholds of the calibration is a line over those thresholds,
   fitted from a rate of .5 down to the last pairs that duplicates cannot fill. Alone, its level misses the
   tail: in every group the excess rises as the rate falls.
2. Subjects who are more alike than this line lets one pair in twenty galleries be count as one: a person
   under several ids, twins. They are no strangers of each other.
3. Leaving out a twentieth of the subjects in turn says how sure the line is: its standard error.
4. The shift is the excess and `CAUTION` standard errors, less `DOUBT` (error / excess)^2 of it: a gallery
   that is as mixed as the calibration is left alone, and a group is not trusted to be less alike than it may
   be. It is never below 0 and never above `most_shift`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray
from edge.gallery.decision import AGREEING_FMR, Calibration, GalleryShift
from edge.gallery.gallery import SEVERAL_PHOTOS, Gallery

MIN_SUBJECTS = 20
"""Fewer have less than 190 pairs: the error would be as large as the shift of an ethnic group."""

LEAST_PEOPLE = 15
"""Different people that have to be among them: two strangers may be so alike by chance, in one
gallery of 20."""

MAX_SUBJECTS = 500
"""That are compared with each other, spread over the gallery: 125,000 pairs, .1 s on a busy x86_64 core."""

FIT_FROM = 0.5
"""Rate at which the fit begins: the middle of the pairs is surest, and tells a group's slope best."""

LEAST_PAIRS = 8
"""Pairs that reach a threshold for its rate to be fitted."""

DUPLICATES = 0.25
"""Share of subjects that may be somebody else's duplicate without their pairs deciding the fit."""

BULK_RATE = 0.02
"""Down to which rate the first fit goes, which finds who is there twice."""

CHANCE = 0.05
"""Share of galleries in which two strangers count as one."""

FIT_POINTS = 20
FIT_WEIGHT = 0.25
"""Power of the rate by which a point counts: the last pairs decide little, the middle not everything."""

SLOPES = (-0.3, 0.5)
"""Of the excess over the calibrated threshold. Measured: .1 to .3 in groups, 1.2 where children and adults
are enrolled together."""

GROUPS_LEFT_OUT = 20
CAUTION = 1.5
DOUBT = 1.5
"""Chosen together on the first half: LFW galleries of 40 lose .002 of TPIR, groups of 40 keep FPIR .01 within
2. With 1 and 1 the loss is the same and Indian women have 2.2; with 2 and 3 people over 75 have 3.6."""

MOST_SHIFT = 0.4
"""A cosine. Children under three need .39. More would only keep the enrolled themselves out."""

STRANGERS_MOST = 0.05
"""By which strangers who were kept raise a shift at most, a cosine: whoever walks by a camera may do that."""

SHARE_LEFT = 0.9
"""Of the way from the last calibrated threshold to 1 that a shift may take."""

NORMAL_95 = 1.96
MEMBER_RATE = 0.01
"""Rate at which the allowance for templates of several photos is taken."""

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Excess:
    """A line over calibrated thresholds: `level` at the threshold `middle`, and how it rises."""

    middle: float
    level: float
    slope: float

    def at(self, threshold: float) -> float:
        return self.level + self.slope * (threshold - self.middle)


def measure_shift(
    gallery: Gallery,
    calibration: Calibration,
    strangers: FloatArray | None = None,
    counted: Flags | None = None,
) -> GalleryShift | None:
    """Return the shift of a gallery: `shift_among` the template of the fewest photos of each subject.

    `counted`, bool (size,), are the subjects to compare, None: all.

    Strangers may raise it, by `STRANGERS_MOST` at most, and never lower it: nobody asks who they are. Those
    who may be a subject are left out, and there are no more of them than subjects, or than `MIN_SUBJECTS`.
    """
    enrolled, several = one_template_each(gallery)
    rows = enrolled
    if counted is not None:
        rows, several = enrolled[counted], several[counted]
    own = shift_among(rows, calibration, several)
    if strangers is None or not len(strangers):
        return own
    if len(rows):
        single = calibration.threshold_at(AGREEING_FMR)
        least = single + (0.0 if own is None else own.at(single))
        strangers = strangers[(strangers @ enrolled.T).max(axis=1) < least]
    strangers = strangers[: max(MIN_SUBJECTS, len(rows))]
    everybody = np.concatenate([rows, strangers]) if len(rows) else strangers
    both = shift_among(everybody, calibration, np.append(several, np.zeros(len(strangers), np.bool_)))
    return own if both is None else _raised(own, both, len(rows), len(strangers))


def one_template_each(gallery: Gallery) -> tuple[FloatArray, Flags]:
    """Return the template of the fewest photos of each subject, (size, D), and whether it is of several."""
    photos = np.array([row.photos for row in gallery.provenance], np.intp)
    if len(photos) != gallery.size:
        spans = zip(gallery.starts.tolist(), gallery.counts, strict=True)
        rows = np.array([at + int(np.argmin(photos[at : at + count])) for at, count in spans], np.intp)
        return gallery.matrix[rows], photos[rows] > 1
    return gallery.matrix, photos > 1


def shift_among(
    rows: FloatArray, calibration: Calibration, several: Flags | None = None
) -> GalleryShift | None:
    """Return how much more alike people are than the calibration says.

    Args:
        rows: One embedding of each subject, float32 (n, D), unit norm. Some may be of one person.
        calibration: Of the embedder that made them.
        several: Which are the mean of several photos, bool (n,); None: none. They are more alike, which
            `Match.comparisons` accounts for.

    Returns:
        The shift for each entry of the calibration. None where it cannot be told: fewer than `MIN_SUBJECTS`,
        or a calibration without the rates that so few pairs show.
    """
    if len(rows) < MIN_SUBJECTS:
        return None
    if several is None:
        several = np.zeros(len(rows), np.bool_)
    if len(rows) > MAX_SUBJECTS:
        spread = np.linspace(0, len(rows) - 1, MAX_SUBJECTS).astype(np.intp)
        rows, several = rows[spread], several[spread]
    scores = (rows @ rows.T).astype(np.float64)
    if several.any():
        scores -= allowance(calibration) * (several[:, None].astype(np.float64) + several)
    people = _people(scores, calibration)
    if people is None:
        return None
    scores = scores[np.ix_(people, people)]
    first, second = np.triu_indices(len(people), 1)
    order = np.argsort(-scores[first, second])
    first, second = first[order], second[order]
    ranked = scores[first, second]
    excess = _line(ranked, calibration, _lowest(len(people)))
    left = []
    for out in range(GROUPS_LEFT_OUT):
        kept = (first % GROUPS_LEFT_OUT != out) & (second % GROUPS_LEFT_OUT != out)
        left.append(_line(ranked[kept], calibration, _lowest(len(people))))
    return _shift(len(people), excess, left, calibration.thresholds)


def most_shift(thresholds: Sequence[float]) -> float:
    """Return the largest shift, a cosine: with it the last calibrated threshold still lies below 1."""
    return max(0.0, min(MOST_SHIFT, SHARE_LEFT * (1 - thresholds[-1])))


def _raised(own: GalleryShift | None, both: GalleryShift, subjects: int, strangers: int) -> GalleryShift:
    """Return the shift of a gallery, raised as far as strangers may by what they show together."""
    before = [0.0] * len(both.shifts) if own is None else own.shifts
    shifts = tuple(
        max(alone, min(together, alone + STRANGERS_MOST))
        for alone, together in zip(before, both.shifts, strict=True)
    )
    if own is not None and shifts == tuple(own.shifts):
        return own
    return replace(both, subjects=subjects, shifts=shifts, strangers=strangers)


def allowance(calibration: Calibration) -> float:
    """Return how much more alike a template of several photos is to others because it is one, a cosine.

    Measured on lfw-dev between templates of 2, 3 and 5 photos: .010, .014 and .019 for each of a pair; this
    is .014 with the built-in tables.
    """
    single = calibration.threshold_at(MEMBER_RATE)
    return (calibration.threshold_at(MEMBER_RATE / SEVERAL_PHOTOS) - single) / 2


def _lowest(people: int) -> float:
    """Return the lowest rate of the fit."""
    return max(LEAST_PAIRS, DUPLICATES * people) / (people * (people - 1) / 2)


def _people(scores: Scores, calibration: Calibration) -> NDArray[np.intp] | None:
    """Return which subjects to compare: the first of those who seem to be one person.

    A subject is one person with others where it is so alike to them in the mean: of children, who are like
    each other, not all are one. None where they are too few, or the calibration does not have the rates that
    their pairs show.
    """
    pairs = np.sort(scores[np.triu_indices(len(scores), 1)])[::-1]
    if calibration.fmr[0] < 2 * max(_lowest(len(scores)), BULK_RATE) or calibration.fmr[-1] > BULK_RATE:
        return None
    bulk = _line(pairs, calibration, max(BULK_RATE, LEAST_PAIRS / len(pairs)))
    rarest = calibration.threshold_at(CHANCE / len(pairs))
    same = rarest + bulk.at(rarest)
    people: list[int] = []
    sizes, sums = np.zeros(len(scores)), np.zeros(scores.shape)
    for each in range(len(scores)):
        means = sums[: len(people), each] / sizes[: len(people)]
        at = int(means.argmax()) if people else 0
        if not people or means[at] < same:
            at = len(people)
            people.append(each)
        sizes[at] += 1
        sums[at] += scores[each]
    return np.array(people, np.intp) if len(people) >= LEAST_PEOPLE else None


def _line(scores: Scores, calibration: Calibration, lowest: float) -> _Excess:
    """Return the line of least squares of the excess, from `FIT_FROM` down to a rate of `lowest`."""
    highest = min(FIT_FROM, calibration.fmr[0])
    ranks = np.round(np.geomspace(min(lowest, highest / 2), highest, FIT_POINTS) * len(scores))
    ranks = np.maximum(1, ranks).astype(np.intp)
    rates = ranks / len(scores)
    expected = np.array([calibration.threshold_at(rate) for rate in rates.tolist()])
    found = scores[ranks - 1] - expected
    weights = rates**FIT_WEIGHT
    middle, level = np.average(expected, weights=weights), np.average(found, weights=weights)
    spread = float(weights @ (expected - middle) ** 2)
    slope = float(weights @ ((expected - middle) * (found - level))) / spread
    return _Excess(float(middle), float(level), min(max(slope, SLOPES[0]), SLOPES[1]))


def _shift(
    subjects: int, excess: _Excess, left: Sequence[_Excess], thresholds: Sequence[float]
) -> GalleryShift:
    """Return the shift at each threshold from the excess of all and of all but each of the groups.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), 11 (the jackknife); the shrinkage
    is Breiman's non-negative garrote for one coefficient (1995).
    """
    most = most_shift(thresholds)
    shifts: list[float] = []
    low: list[float] = []
    high: list[float] = []
    for at, threshold in enumerate(thresholds):
        value = excess.at(threshold)
        each = np.array([other.at(threshold) for other in left])
        error = math.sqrt((len(each) - 1) / len(each) * float(((each - each.mean()) ** 2).sum()))
        shift = 0.0
        if value > 0:
            shift = (value + CAUTION * error) * max(0.0, 1 - DOUBT * (error / value) ** 2)
        if at:
            # So that the shifted thresholds rise.
            shift = max(shift, shifts[-1] - SHARE_LEFT * (threshold - thresholds[at - 1]))
        shifts.append(min(shift, most))
        low.append(min(max(0.0, value - NORMAL_95 * error), most))
        high.append(min(max(0.0, value + NORMAL_95 * error), most))
    return GalleryShift(subjects, tuple(thresholds), tuple(shifts), tuple(low), tuple(high))
