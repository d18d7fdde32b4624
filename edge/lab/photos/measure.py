"""Run the protocols for one embedder: what `edge evaluate` reports, as plain dictionaries."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.types import FloatArray
from edge.gallery.decision import DecisionRule
from edge.gallery.gallery import worth
from edge.gallery.prototypes import photos_of, prototypes
from edge.lab.photos import rates
from edge.lab.photos.protocol import OpenSet, Pairs
from edge.lab.photos.rates import Flags, Scores

FPIRS = (0.01, 0.003, 0.001)
FARS = (0.01, 0.001)
NOTHING = float("-inf")
"""Score of a probe without a face, or of a subject who could not be enrolled: never accepted."""

Embeddings = Mapping[Path, FloatArray | None]


@dataclass(frozen=True, slots=True, eq=False)
class OpenSetScores:
    """Best scores of genuine probes, whether the best subject was the right one, best scores of strangers.

    `comparisons` is what the gallery counts for the threshold rule.
    """

    best: Scores
    right: Flags
    strangers: Scores
    enrolled: int
    comparisons: float


def open_set_scores(protocol: OpenSet, embeddings: Embeddings, max_prototypes: int) -> OpenSetScores:
    """Enrol, search with every probe; a failure to acquire scores minus infinity."""
    names: list[str] = []
    templates: list[FloatArray] = []
    comparisons = 0.0
    for name, paths in protocol.gallery.items():
        rows = [row for path in paths if (row := embeddings[path]) is not None]
        if rows:
            names.append(name)
            photos = np.stack(rows)
            templates.append(prototypes(photos, np.ones(len(rows), np.float32), max_prototypes))
            comparisons += sum(map(worth, photos_of(templates[-1], photos)))
    starts = np.cumsum([0, *(len(rows) for rows in templates[:-1])])
    matrix = np.concatenate(templates)

    def search(row: FloatArray | None) -> tuple[float, str]:
        if row is None:
            return NOTHING, ""
        scores = np.maximum.reduceat(matrix @ row, starts)
        top = int(scores.argmax())
        return float(scores[top]), names[top]

    found = [(name, *search(embeddings[path])) for name, path in protocol.genuine]
    return OpenSetScores(
        best=np.array([score for _, score, _ in found]),
        right=np.array([name == guess for name, _, guess in found]),
        strangers=np.array([search(embeddings[path])[0] for path in protocol.strangers]),
        enrolled=len(names),
        comparisons=comparisons,
    )


def identification(
    protocol: OpenSet, scores: OpenSetScores, rule: DecisionRule | None = None
) -> dict[str, Any]:
    """Return rank-1, failures to acquire, TPIR with intervals and thresholds; with `rule` what it obtains."""
    report: dict[str, Any] = {
        "rank1": round(float(scores.right.mean()), 5),
        "fta": int((~np.isfinite(scores.best)).sum() + (~np.isfinite(scores.strangers)).sum()),
        "n_subjects": len(protocol.gallery),
        "n_enrolled": scores.enrolled,
        "n_genuine": len(scores.best),
        "n_unknown": len(scores.strangers),
        "tpir": {},
        "tpir_interval": {},
        "threshold": {},
    }
    for fpir in FPIRS:
        rate = rates.tpir_at(scores.best, scores.right, scores.strangers, fpir)
        report["tpir"][str(fpir)] = round(rate.value, 5)
        report["tpir_interval"][str(fpir)] = [round(rate.low, 5), round(rate.high, 5)]
        report["threshold"][str(fpir)] = round(rates.threshold_at(scores.strangers, fpir), 5)
    if rule is not None:
        threshold = rule.threshold_for(scores.comparisons)
        report["at_target_fpir"] = {
            "target": rule.target_fpir,
            "threshold": round(threshold, 5),
            "fpir": round(rates.accepted(scores.strangers, threshold), 5),
            "tpir": round(rates.identified(scores.best, scores.right, threshold), 5),
        }
    return report


def pair_scores(pairs: Pairs, embeddings: Embeddings) -> Scores:
    """Return the cosine of each pair, minus infinity where a face was not found."""
    scores = []
    for first, second in zip(pairs.first, pairs.second, strict=True):
        a, b = embeddings[first], embeddings[second]
        scores.append(NOTHING if a is None or b is None else float(a @ b))
    return np.array(scores)


def verification(pairs: Pairs, scores: Scores) -> dict[str, Any]:
    """Return the accuracy over the folds and TAR at FAR."""
    accuracies = rates.fold_accuracy(scores, pairs.same, pairs.folds)
    genuine, impostor = scores[pairs.same], scores[~pairs.same]
    return {
        "accuracy": round(float(np.mean(accuracies)), 5),
        "accuracy_std": round(float(np.std(accuracies)), 5),
        "tar": {str(far): round(rates.tar_at_far(genuine, impostor, far), 5) for far in FARS},
        "fta": int((~np.isfinite(scores)).sum()),
        "n_pairs": len(scores),
        "n_genuine": len(genuine),
        "n_folds": len(pairs.folds),
    }


def agreement(reference: Embeddings, other: Embeddings) -> dict[str, float] | None:
    """Return how close another model's embeddings are to the reference's, where both found a face.

    None where no cosine can be taken: there are none, or they are of other lengths.
    """
    both = [
        (row, theirs)
        for path, row in reference.items()
        if row is not None and (theirs := other[path]) is not None
    ]
    if any(row.shape != theirs.shape for row, theirs in both) or not both:
        return None
    cosines = np.array([float(row @ theirs) for row, theirs in both])
    return {
        "mean": round(float(cosines.mean()), 5),
        "p01": round(float(np.quantile(cosines, 0.01)), 5),
        "min": round(float(cosines.min()), 5),
    }
