"""Look a gallery over: the threshold in force, look-alikes, duplicates, poor templates; and its self-test.

Judges only what can be seen in templates: how strangers of the site fare is measured with photos of them.
Changes nothing, and knows no embedder and no camera.
"""

from dataclasses import dataclass

import numpy as np

from edge.core.errors import GalleryError
from edge.core.types import FloatArray, Probe, ScoredSubject
from edge.gallery.alike.look_alikes import look_alike_groups
from edge.gallery.alike.shift import Scores
from edge.gallery.decision import DecisionRule, ThresholdShift
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import make_matcher
from edge.gallery.search import Mask, Scope

PROBES = 16
"""Rows of its own that a gallery has to find before it may serve."""

MIN_SCORE = 0.999
"""A unit row compared with itself; the int8 search ranks again in float32 and loses nothing."""

BLOCK_SCORES = 16_000_000
"""Scores computed at a time: 64 MB."""

POOR_WEIGHT = 0.25
"""Quality weight below which a template is poor."""

UNSURE = 0.1
"""Recognisability below which a template is hardly a face's; no photo is enrolled below it."""

OWN_SCORE = 0.25
"""Templates of one subject less alike than this are probably two people.

Measured on lfw-dev: .3 % of the pairs of one person score less, 3 % of the pairs of two people more.
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two subjects and the score of their most alike templates."""

    first: str
    second: str
    score: float


@dataclass(frozen=True, slots=True)
class Complaint:
    """A subject whose templates are not as they should be, and why."""

    subject_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is to be said about a gallery.

    `threshold` is the one in force for the `admitted` subjects, who may pass and are worth `comparisons`;
    `shift` is what was added to the calibrated one (None: it is a raw one); `expected_fpir` is the share of
    strangers it lets pass (None without a calibration). `duplicates` are subjects that may be taken for each
    other, `look_alikes` come close; `more` is how many further pairs are as alike as duplicates. `groups` are
    the ids of subjects who look alike together: strangers like them may be taken for one of them more often
    than promised. `own` are the ids of those whose own shift is higher than `shift`, the highest first.
    `unmeasured` templates have no recognisability: they are of an earlier release.
    """

    subjects: int
    templates: int
    admitted: int
    comparisons: float
    threshold: float
    shift: ThresholdShift | None
    expected_fpir: float | None
    duplicates: tuple[Pair, ...]
    look_alikes: tuple[Pair, ...]
    more: int
    groups: tuple[tuple[str, ...], ...]
    own: tuple[str, ...]
    poor: tuple[Complaint, ...]
    unmeasured: int


def examine(
    gallery: Gallery, rule: DecisionRule, allowed: Mask | None = None, *, pairs: int = 10
) -> Diagnosis:
    """Return the diagnosis of a gallery, with up to `pairs` closest pairs of different subjects.

    `allowed`, bool (size,), is who may pass (`Admission.allowed`), None: everybody.
    """
    admitted, comparisons = Scope(gallery).measure(allowed)
    threshold, shift = rule.threshold_for(comparisons), rule.shift_for(comparisons)
    thresholds = _thresholds(gallery, rule, comparisons)
    closest, alike = _closest(gallery, pairs, thresholds)
    needed = {who.subject_id: least for who, least in zip(gallery.subjects, thresholds, strict=True)}
    duplicates = tuple(pair for pair in closest if pair.score >= min(needed[pair.first], needed[pair.second]))
    higher = {who: own for who, own in rule.own_shifts.items() if shift is not None and own > shift.value}
    return Diagnosis(
        subjects=gallery.size,
        templates=len(gallery.matrix),
        admitted=admitted,
        comparisons=comparisons,
        threshold=threshold,
        shift=shift,
        expected_fpir=rule.expected_fpir(comparisons),
        duplicates=duplicates,
        look_alikes=tuple(pair for pair in closest if pair not in duplicates),
        more=alike - len(duplicates),
        groups=tuple(look_alike_groups(gallery, rule)),
        own=tuple(sorted(higher, key=lambda who: -higher[who])),
        poor=tuple(_poor(gallery)),
        unmeasured=sum(row.quality.recognisability is None for row in gallery.provenance),
    )


def strangers_let_in(
    gallery: Gallery, strangers: FloatArray, rule: DecisionRule, allowed: Mask | None = None
) -> tuple[float, dict[str, int]]:
    """Return the share of strangers (m, D) that pass as one of those `allowed`, and how many as whom.

    Unlike the expectation it sees this gallery's own look-alikes; the margin rule is left out.
    """
    if not gallery.size or not len(strangers):
        return 0.0, {}
    scores = np.maximum.reduceat(strangers @ gallery.matrix.T, gallery.starts, axis=1)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    best = scores.argmax(axis=1)
    _, comparisons = Scope(gallery).measure(allowed)
    passed = scores[np.arange(len(strangers)), best] >= _thresholds(gallery, rule, comparisons)[best]
    taken: dict[str, int] = {}
    for index in best[passed]:
        subject_id = gallery.subjects[index].subject_id
        taken[subject_id] = taken.get(subject_id, 0) + 1
    return float(passed.mean()), dict(sorted(taken.items(), key=lambda item: -item[1]))


def self_test(gallery: Gallery) -> None:
    """Look up some of the gallery's own rows, spread over all of it.

    Raises:
        GalleryError: One is not found.
    """
    if not gallery.size:
        return
    matcher = make_matcher(gallery)
    rows = len(gallery.matrix)
    for row in np.unique(np.linspace(0, rows - 1, min(PROBES, rows)).astype(int)):
        probe = Probe(gallery.matrix[row], gallery.model_id, gallery.provenance[row].quality)
        best = matcher.match(probe).best
        if best is None or not best.score >= MIN_SCORE:
            raise GalleryError(
                f"gallery self-test: row {row} of {rows} does not find itself; publish it again"
            )


def _thresholds(gallery: Gallery, rule: DecisionRule, comparisons: float) -> Scores:
    """Return the threshold of each subject, (size,)."""
    each = [rule.threshold_for(comparisons, ScoredSubject(who, 0.0)) for who in gallery.subjects]
    return np.array(each, np.float64)


def _closest(gallery: Gallery, count: int, thresholds: Scores) -> tuple[list[Pair], int]:
    """Return the closest pairs of subjects, most alike first, and how many reach the threshold of either."""
    starts, rows = gallery.starts, len(gallery.matrix)
    ends = np.append(starts[1:], rows)
    found: list[tuple[float, int, int]] = []
    alike, first = 0, 0
    while first < gallery.size:
        # As many subjects as the block holds, at least one.
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + BLOCK_SCORES // rows, side="right")))
        scores = gallery.matrix[starts[first] : ends[last - 1]] @ gallery.matrix.T
        each = np.maximum.reduceat(scores, starts, axis=1)
        each = np.maximum.reduceat(each, starts[first:last] - starts[first], axis=0)
        each[
            np.arange(first, last)[:, None] >= np.arange(gallery.size)
        ] = -np.inf  # nobody with himself or twice
        alike += int((each >= np.minimum(thresholds[first:last, None], thresholds)).sum())
        keep = min(each.size, count)
        for flat in np.argpartition(each.ravel(), -keep)[-keep:]:
            row, column = divmod(int(flat), gallery.size)
            if np.isfinite(each[row, column]):
                found.append((float(each[row, column]), first + row, column))
        first = last
    ids = [subject.subject_id for subject in gallery.subjects]
    best = sorted(found, key=lambda pair: (-pair[0], pair[1:]))[:count]
    return [Pair(ids[a], ids[b], score) for score, a, b in best], alike


def _poor(gallery: Gallery) -> list[Complaint]:
    complaints = []
    end = 0
    for subject, count in zip(gallery.subjects, gallery.counts, strict=True):
        start, end = end, end + count
        weight = max(row.quality.weight for row in gallery.provenance[start:end])
        if weight < POOR_WEIGHT:
            problem = f"best template's quality is {weight:.2f}; enrol a larger, sharper, frontal photo"
            complaints.append(Complaint(subject.subject_id, problem))
        sure = [row.quality.recognisability for row in gallery.provenance[start:end]]
        if (least := min((each for each in sure if each is not None), default=1.0)) < UNSURE:
            problem = (
                f"a template is hardly a face's (recognisability {least:.2f}): upside down, or covered? "
                "enrol another photo"
            )
            complaints.append(Complaint(subject.subject_id, problem))
        own = gallery.matrix[start:end] @ gallery.matrix[start:end].T
        if own.min() < OWN_SCORE:
            problem = f"its templates differ (score {own.min():.2f}): two people under one id?"
            complaints.append(Complaint(subject.subject_id, problem))
    return complaints
