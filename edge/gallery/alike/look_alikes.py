"""Groups of subjects who look like each other, where the gallery as a whole does not: children among adults.

The threshold follows the gallery, not a part of it. Strangers who are like a part are taken for one of it
more often than promised, which a person has to know.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray
from edge.gallery.alike.shift import allowance, one_template_each
from edge.gallery.decision import Calibration, DecisionRule
from edge.gallery.gallery import Gallery

NEIGHBOURS = 8
"""Of a subject, that have to be alike among themselves. With 5, adults are named by chance."""

GROUP_RATE = 0.01
"""A group's pairs are in the mean as alike as this share of the calibration's pairs.

Measured with sface-int8: of 3,498 adults of lfw-dev and UTKFace none is named; among 2,000 adults 9 of 10
children below three are, 19 of 20 from 3 to 5, 20 of 40 from 6 to 9, 6 of 100 women of one region.
"""

BLOCK_SCORES = 4_000_000
"""Scores computed at a time: 16 MB."""


def look_alike_groups(gallery: Gallery, rule: DecisionRule) -> list[tuple[str, ...]]:
    """Return the ids of subjects who look alike, group by group, the largest first; none of fewer than three.

    What the shift in force accounts for is no group: a school's pupils are alike, and the threshold follows.
    """
    if rule.calibration is None or gallery.size <= NEIGHBOURS:
        return []
    rows, extra = _templates(gallery, rule.calibration)
    nearest = np.empty((len(rows), NEIGHBOURS), np.intp)
    step = max(1, BLOCK_SCORES // len(rows))
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ rows.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf  # nobody with himself
        nearest[start : start + step] = np.argpartition(scores, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    alike = set(np.flatnonzero(_cohesion(rows, nearest, extra) >= _least(rule, rule.calibration)).tolist())
    ids = [subject.subject_id for subject in gallery.subjects]
    groups = []
    while alike:
        group, reached = set[int](), {min(alike)}
        while reached:
            group |= reached
            alike -= reached
            near = {int(each) for one in reached for each in nearest[one]}
            reached = {
                each for each in alike if each in near or not reached.isdisjoint(nearest[each].tolist())
            }
        if len(group) > 2:
            groups.append(tuple(ids[each] for each in sorted(group)))
    return sorted(groups, key=len, reverse=True)


def look_alikes_of(row: FloatArray, gallery: Gallery, rule: DecisionRule) -> tuple[str, ...]:
    """Return the ids of the subjects whom an embedding (D,) is like and who are like each other; none: ()."""
    if rule.calibration is None or gallery.size < NEIGHBOURS:
        return ()
    rows, extra = _templates(gallery, rule.calibration)
    scores = rows @ row - extra
    nearest = np.argpartition(scores, -NEIGHBOURS)[-NEIGHBOURS:]
    among = float(_cohesion(rows, nearest[None], extra)[0])
    if min(among, float(scores[nearest].mean())) < _least(rule, rule.calibration):
        return ()
    return tuple(gallery.subjects[each].subject_id for each in sorted(nearest.tolist()))


def named(ids: Sequence[str], most: int = 3) -> str:
    """Return the first of some ids for a sentence, and how many more there are."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return f"{', '.join(ids[:most])}{more}"


def _templates(gallery: Gallery, calibration: Calibration) -> tuple[FloatArray, FloatArray]:
    """Return a template of each subject, and how much more alike it is for being one of several photos."""
    rows, several = one_template_each(gallery)
    return rows, np.asarray(allowance(calibration) * several, np.float32)


def _least(rule: DecisionRule, calibration: Calibration) -> float:
    """Return the mean score from which subjects are a group."""
    threshold = calibration.threshold_at(GROUP_RATE)
    return threshold + rule.shift_at(threshold)


def _cohesion(rows: FloatArray, nearest: NDArray[np.intp], extra: FloatArray) -> FloatArray:
    """Return the mean score of the pairs among the nearest (m, k) of each of m subjects, float32 (m,)."""
    count = nearest.shape[1]
    sums = np.stack([rows[each].sum(axis=0) for each in nearest])
    pairs = (np.square(sums).sum(axis=1) - count) / (count * (count - 1))
    return np.asarray(pairs - 2 * extra[nearest].mean(axis=1), np.float32)
