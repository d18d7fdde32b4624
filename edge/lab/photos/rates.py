"""Error rates from scores. Pure arithmetic: knows no image, no model and no file.

Vocabulary of ISO/IEC 19795: FMR and FNMR (TAR = 1 - FNMR) for 1:1, FPIR and FNIR (TPIR = 1 - FNIR) for 1:N.
A score is accepted when score >= threshold. A failure to acquire is a score of minus infinity: a miss for a
genuine probe, no alarm for a stranger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

BOOTSTRAP_ROUNDS = 1000
BOOTSTRAP_SEED = 20261123
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with the bounds of its bootstrap interval (95 %)."""

    value: float
    low: float
    high: float


def threshold_at(strangers: Scores, rate: float) -> float:
    """Return the lowest threshold at which at most `rate` of the strangers' scores (n,) are accepted.

    It lies just above a stranger's score, so that equal scores are never split.

    Raises:
        ValueError: No strangers.
    """
    if not len(strangers):
        raise ValueError("no strangers: a false accept rate cannot be set")
    ranked = np.sort(strangers)[::-1]
    allowed = int(np.floor(rate * len(ranked) + 1e-9))
    if allowed >= len(ranked):
        return float("-inf")
    return float(np.nextafter(ranked[allowed], np.inf))


def accepted(scores: Scores, threshold: float) -> float:
    """Return the share of scores (n,) that reach `threshold`."""
    return float((scores >= threshold).mean()) if len(scores) else float("nan")


def identified(best: Scores, right: Flags, threshold: float) -> float:
    """Return TPIR: the share of genuine probes whose best subject is right and reaches `threshold`."""
    return float((right & (best >= threshold)).mean())


def tpir_at(best: Scores, right: Flags, strangers: Scores, fpir: float) -> Rate:
    """Return TPIR at an FPIR with its bootstrap interval over probes and strangers."""
    value = identified(best, right, threshold_at(strangers, fpir))
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = np.empty(BOOTSTRAP_ROUNDS)
    for i in range(BOOTSTRAP_ROUNDS):
        probes = generator.integers(0, len(best), len(best))
        others = generator.integers(0, len(strangers), len(strangers))
        drawn[i] = identified(best[probes], right[probes], threshold_at(strangers[others], fpir))
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Rate(value, float(low), float(high))


def det_curve(best: Scores, right: Flags, strangers: Scores) -> tuple[Scores, Scores]:
    """Return (FPIR, FNIR) at every threshold that a stranger sets, FPIR falling."""
    thresholds = np.unique(strangers[np.isfinite(strangers)])
    ranked = np.sort(strangers)
    fpir = 1 - np.searchsorted(ranked, thresholds, side="left") / len(ranked)
    hits = np.sort(np.where(right, best, -np.inf))
    tpir = 1 - np.searchsorted(hits, thresholds, side="left") / len(hits)
    return fpir, 1 - tpir


def tar_at_far(genuine: Scores, impostor: Scores, far: float) -> float:
    """Return the share of genuine pairs accepted where `far` of the impostor pairs are."""
    return accepted(genuine, threshold_at(impostor, far))


def roc_curve(genuine: Scores, impostor: Scores) -> tuple[Scores, Scores]:
    """Return (FAR, TAR) over all thresholds, FAR rising from 0 to 1."""
    thresholds = np.unique(np.concatenate([genuine, impostor]))[::-1]
    far = 1 - np.searchsorted(np.sort(impostor), thresholds, side="left") / len(impostor)
    tar = 1 - np.searchsorted(np.sort(genuine), thresholds, side="left") / len(genuine)
    return np.concatenate([[0.0], far]), np.concatenate([[0.0], tar])


def best_threshold(scores: Scores, same: Flags) -> float:
    """Return the threshold that classifies most pairs rightly, the middle of the gap it lies in."""
    order = np.argsort(scores)
    ranked, labels = scores[order], same[order]
    # Right with the threshold before position i: different pairs below it, same pairs from it on.
    right = np.concatenate([[0], np.cumsum(~labels)]) + np.concatenate([np.cumsum(labels[::-1])[::-1], [0]])
    at = int(np.argmax(right))
    below = ranked[at - 1] if at > 0 else ranked[0] - 1e-6
    above = ranked[at] if at < len(ranked) else ranked[-1] + 1e-6
    return float((below + above) / 2) if np.isfinite(below) else float(above)


def fold_accuracy(scores: Scores, same: Flags, folds: Sequence[NDArray[np.intp]]) -> list[float]:
    """Return the accuracy on each fold with the threshold that is best on all the others."""
    everything = np.arange(len(scores))
    accuracies = []
    for fold in folds:
        rest = np.setdiff1d(everything, fold)
        threshold = best_threshold(scores[rest], same[rest])
        accuracies.append(float(((scores[fold] >= threshold) == same[fold]).mean()))
    return accuracies
