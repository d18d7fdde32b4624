"""The tail of the impostor scores: false match rate over threshold, measured and, where data ends, fitted.

The logarithm of the rate is a parabola of the threshold, fitted from a rate of .1 down to the last twenty
pairs. Measured on lfw-dev, thresholds of a few subjects judged on all 2,364, 20 draws each: from 100 subjects
(4,950 pairs) the rate obtained at the fitted threshold for 1e-5 is .9 times what was wanted
(10th to 90th percentile .3-2.2); a line through the last decade .2 (.1-.2), a generalised Pareto tail .9
(.2-19) or, started at a rate of .1, 10.6 (1.9-30). From 400 subjects: .9 (.75-1.4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.lab.photos.rates import CONFIDENCE, Scores

FIT_FROM = 0.1
"""Rate at which the fit begins; closer to the middle the scores are shaped by other things than the tail."""

LEAST_PAIRS = 20
"""Pairs above a threshold from which its rate counts as measured in the fit."""

FIT_POINTS = 40
MIN_SUBJECTS = 100
"""Fewer subjects fix a shift of a known tail (`site_shift`), not a tail of their own."""

MIN_COHORT = 20
"""Source: lfw-dev, shift from 20 subjects: rates within .7-2.3 times at 1e-3 and 1e-4; from 60, .7-1.1."""

SHIFT_POINTS = 30
ROUNDS = 100
SEED = 20261124


@dataclass(frozen=True, slots=True)
class Tail:
    """log(rate) = a + b t + c t^2 for thresholds t right of `start`, where the rate is `FIT_FROM`."""

    a: float
    b: float
    c: float
    start: float

    def rate_at(self, threshold: float) -> float:
        """Return the false match rate at a threshold not left of `start`."""
        return math.exp(self.a + self.b * threshold + self.c * threshold**2)

    def threshold_at(self, rate: float) -> float:
        """Return the threshold of a false match rate up to `FIT_FROM`, at most 1."""
        y = self.a - math.log(rate)
        if self.c == 0:
            return min(1.0, -y / self.b)
        root = math.sqrt(max(0.0, self.b**2 - 4 * self.c * y))
        return min(1.0, (-self.b - root) / (2 * self.c))


def impostor_scores(embeddings: FloatArray) -> Scores:
    """Return the cosines of all pairs of embeddings (n, D), one per subject: (n (n-1) / 2,), falling."""
    upper = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    return np.sort(upper.astype(np.float64))[::-1]


def fit_tail(scores: Scores) -> Tail:
    """Fit the tail of impostor scores (n,), highest first.

    A parabola that would bend upwards is replaced by the line of least squares: a tail that grows heavier is
    noise, and a line does not run away.

    Raises:
        MediaError: Fewer pairs than `MIN_SUBJECTS` subjects give.
    """
    count = len(scores)
    needed = MIN_SUBJECTS * (MIN_SUBJECTS - 1) // 2
    if count < needed:
        raise MediaError(f"{count} impostor pairs do not fix a tail; give photos of {MIN_SUBJECTS} subjects")
    ranks = np.unique(np.geomspace(LEAST_PAIRS, FIT_FROM * count, FIT_POINTS).astype(np.intp))
    at, rates = scores[ranks - 1], np.log(ranks / count)
    weights = ranks**0.25  # the last pairs decide little, the first do not decide everything
    c, b, a = np.polyfit(at, rates, 2, w=weights)
    if c > 0 or 2 * c * at[-1] + b > 0:
        (b, a), c = np.polyfit(at, rates, 1, w=weights), 0.0
    return Tail(float(a), float(b), float(c), float(at[-1]))


def measured_thresholds(scores: Scores, rates: Sequence[float], tail: Tail, least: int) -> list[float]:
    """Return the threshold of each rate: from the pairs where `least` reach it, from the fit beyond."""
    counts = [round(rate * len(scores)) for rate in rates]
    return [
        float(scores[count - 1]) if count >= least else tail.threshold_at(rate)
        for rate, count in zip(rates, counts, strict=True)
    ]


def interval(embeddings: FloatArray, rates: Sequence[float], least: int) -> tuple[list[float], list[float]]:
    """Return how far below and above each threshold its 95 % interval reaches, both >= 0.

    Subjects are the unit of chance, not pairs: thresholds of random halves of the subjects scatter by the
    square root of two more than those of all.
    Source: Politis and Romano, Large Sample Confidence Regions Based on Subsamples (1994).
    """
    generator = np.random.default_rng(SEED)
    drawn = []
    for _ in range(ROUNDS):
        half = generator.permutation(len(embeddings))[: len(embeddings) // 2]
        scores = impostor_scores(embeddings[half])
        drawn.append(measured_thresholds(scores, rates, fit_tail(scores), least))
    spread: NDArray[np.float64] = (np.array(drawn) - np.mean(drawn, axis=0)) / math.sqrt(2)
    low, high = np.quantile(spread, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0)
    return (-low).tolist(), high.tolist()


def site_shift(embeddings: FloatArray, thresholds: Sequence[float], fmr: Sequence[float]) -> float:
    """Return how much higher the scores of a site's impostors lie than a calibration says, a cosine.

    The mean distance of the two curves over the rates that the cohort's embeddings (n, D), one per subject,
    can measure: the shape of the tail is taken from the calibration, its place from the site.

    Raises:
        MediaError: Fewer than `MIN_COHORT` subjects.
    """
    if len(embeddings) < MIN_COHORT:
        raise MediaError(
            f"{len(embeddings)} subjects do not show a shift; give photos of {MIN_COHORT} or more"
        )
    scores = impostor_scores(embeddings)
    lowest = max(LEAST_PAIRS / len(scores), fmr[-1])
    rates = np.geomspace(lowest, max(fmr[0], lowest), SHIFT_POINTS)
    here = scores[np.maximum(1, (rates * len(scores)).astype(np.intp)) - 1]
    expected = np.interp(np.log(rates), np.log(fmr[::-1]), thresholds[::-1])
    return float((here - expected).mean())
