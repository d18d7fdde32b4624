"""One probe against a list of candidates, 1:1 each, as a siamese pair network is used; or all in one product.

How long the list may be: with a fixed threshold strangers pass more often the longer it is.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.core.types import FloatArray
from edge.gallery.decision import Calibration, DecisionRule
from edge.lab.photos import rates
from edge.lab.studies.memory.oneshot import Faces

SIZES = (10, 100, 1000)
FPIR = 0.01
SEED = 20261124
LOOKUPS = 20


def measure_lists(faces: Faces, calibration: Calibration) -> dict[str, Any]:
    """Return for lists of N candidates, each with the true subject: TPIR and FPIR, thresholds, times.

    One photo per subject is enrolled. Three thresholds: one for 1:1 whatever the list, the product's rule for
    N, and the one that meets FPIR .01 on these very strangers. Lists end where the gallery does.
    """
    generator = np.random.default_rng(SEED)
    matrix = np.concatenate([pool[:1] for pool in faces.pools])
    probes, labels = np.concatenate(faces.probes), faces.labels
    sizes = sorted({min(size, len(matrix)) for size in SIZES} | {len(matrix)})
    report: dict[str, Any] = {}
    for size in sizes:
        drawn = [_candidates(generator, len(matrix), size, int(label)) for label in labels]
        genuine = [(probe @ matrix[rows].T, rows) for probe, rows in zip(probes, drawn, strict=True)]
        best = np.array([scores.max() for scores, _ in genuine], np.float64)
        right = np.array(
            [rows[scores.argmax()] == label for (scores, rows), label in zip(genuine, labels, strict=True)]
        )
        strangers = np.array(
            [(row @ matrix[drawn[i % len(drawn)]].T).max() for i, row in enumerate(faces.strangers)],
            np.float64,
        )
        thresholds = {
            "one_to_one": DecisionRule(FPIR, None, 0.0, calibration).threshold_for(1),
            "rule": DecisionRule(FPIR, None, 0.0, calibration).threshold_for(size),
            "needed": rates.threshold_at(strangers, FPIR),
        }
        report[str(size)] = {
            name: {
                "threshold": round(threshold, 4),
                "fpir": round(rates.accepted(strangers, threshold), 4),
                "tpir": round(rates.identified(best, right, threshold), 4),
            }
            for name, threshold in thresholds.items()
        }
        report[str(size)] |= _times(matrix[:size], probes)
    return report


def _candidates(
    generator: np.random.Generator, subjects: int, size: int, label: int
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return `size` different subjects, `label` among them."""
    others = generator.permutation(subjects - 1)[: size - 1]
    return np.append(others + (others >= label), label)


def _times(matrix: FloatArray, probes: FloatArray) -> dict[str, float]:
    """Return the milliseconds of a list compared one by one and in one product, in turn."""

    def one_by_one(probe: FloatArray) -> float:
        return max(float(probe @ row) for row in matrix)

    def together(probe: FloatArray) -> float:
        return float((matrix @ probe).max())

    ways: dict[str, Callable[[FloatArray], float]] = {"ms_one_by_one": one_by_one, "ms_product": together}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for probe in probes[:LOOKUPS]:
        for name, way in ways.items():
            started = time.perf_counter()
            way(probe)
            spent[name].append(time.perf_counter() - started)
    return {name: round(float(np.median(values)) * 1e3, 4) for name, values in spent.items()}
