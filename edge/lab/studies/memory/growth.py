"""How far a memory of faces goes: recognition, false positives and thresholds while the gallery grows.

Subjects are divided into two halves. One half lends distractors, who fill the gallery up, and the axes on
which embeddings are shortened. Of the other half some are enrolled with their first photo, their other
photos are probes, and those with one photo are strangers. So no probe has a part in what it is compared with.

A distractor is a blend: from the mean of the lending half, two of its subjects at a random angle, of length
one. `likeness` compares that with real people of the same half, and with draws from its covariance alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray
from edge.gallery.decision import DecisionRule
from edge.lab.photos import rates
from edge.lab.photos.rates import Flags, Scores

TARGET = 0.01
"""Share of strangers that may pass."""

LIKENESS = (1e-2, 1e-3, 1e-4, 1e-5)
"""False match rates at which distractors are compared with real people, as far as there are pairs."""

LIKENESS_DRAWS = 20_000
CHUNK = 50_000
SEED = 20261129
LEAST = 20
"""Subjects of each kind."""

FAR = (10**6, 10**7, 10**8, 10**9)
"""Sizes at which the tail of the impostor scores says what is needed; the first is measured as well."""

TAIL, TAIL_POINTS = (1e-7, 1e-3), 30
"""False match rates between which the tail is fitted, and at how many: log10 FMR as a parabola."""

TAIL_STRANGERS, TAIL_DRAWS = 400, 1_000_000
"""Their comparisons: of the rarest rate 40 are expected."""

ROUNDS = 200
"""Bootstraps over probes and strangers."""


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Unit embeddings: lenders (A, D), enrolled (E, D), probes (P, D) of `labels` (P,), strangers (S, D)."""

    lenders: FloatArray
    enrolled: FloatArray
    probes: FloatArray
    labels: NDArray[np.intp]
    strangers: FloatArray

    def shortened(self, dim: int) -> "Halves":
        """Return the same on the `dim` axes along which the lenders differ most, of length one again."""
        if dim == self.lenders.shape[1]:
            return self
        mean = self.lenders.mean(axis=0)
        axes = np.linalg.svd(self.lenders - mean, full_matrices=False)[2][: dim - 1]
        common = mean / np.linalg.norm(mean)
        basis = np.linalg.qr(np.vstack([common, axes]).T)[0]
        cut = [_unit(rows @ basis) for rows in (self.lenders, self.enrolled, self.probes, self.strangers)]
        return Halves(cut[0], cut[1], cut[2], self.labels, cut[3])


def halves(everybody: Mapping[str, Sequence[Path]], embeddings: Mapping[Path, FloatArray | None]) -> Halves:
    """Divide subjects at random; photos without a face are left out.

    Raises:
        MediaError: Fewer than `LEAST` subjects of a kind.
    """
    rows = [
        np.stack(found)
        for photos in everybody.values()
        if (found := [row for path in photos if (row := embeddings[path]) is not None])
    ]
    order = np.random.default_rng(SEED).permutation(len(rows))
    lending, other = ([rows[place] for place in order[start::2]] for start in (0, 1))
    known, single = [each for each in other if len(each) > 1], [each for each in other if len(each) == 1]
    if min(len(lending), len(known), len(single)) < LEAST:
        raise MediaError(
            f"{len(known)} subjects with two photos and {len(single)} with one are too few in half of the "
            f"photos; {LEAST} of each are needed"
        )
    return Halves(
        np.stack([each[0] for each in lending]),
        np.stack([each[0] for each in known]),
        np.concatenate([each[1:] for each in known]),
        np.repeat(np.arange(len(known)), [len(each) - 1 for each in known]),
        np.stack([each[0] for each in single]),
    )


def blended(lenders: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
    """Return distractors (count, D), unit length."""
    mean = lenders.mean(axis=0)
    first, second = lenders[generator.integers(0, len(lenders), (2, count))] - mean
    angle = generator.uniform(0, np.pi / 2, (count, 1)).astype(np.float32)
    return _unit(mean + np.cos(angle) * first + np.sin(angle) * second)


def drawn(lenders: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
    """Return rows (count, D) of a normal distribution with the lenders' mean and covariance, unit length."""
    values, axes = np.linalg.eigh(np.cov(lenders.T))
    spread = (axes * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    noise = generator.standard_normal((count, lenders.shape[1])).astype(np.float32)
    return _unit(lenders.mean(axis=0) + noise @ spread.T)


def likeness(people: Halves) -> dict[str, Any]:
    """Return how often distractors pass for a real person of the other half, over how often others do."""
    others = np.concatenate([people.enrolled, people.strangers])
    real = np.sort((people.lenders @ others.T).ravel())
    generator = np.random.default_rng(SEED)
    report: dict[str, Any] = {}
    for name, make in (("blended", blended), ("drawn", drawn)):
        scores = (make(people.lenders, LIKENESS_DRAWS, generator) @ others.T).ravel()
        report[name] = {
            f"{rate:g}": round(float((scores >= real[-int(rate * len(real))]).mean() / rate), 2)
            for rate in LIKENESS
            if rate * len(real) >= 10
        }
    return report


def grow(people: Halves, sizes: Sequence[int], rule: DecisionRule | None, step: Progress) -> dict[str, Any]:
    """Return by size: rank-1, TPIR while `TARGET` of these strangers pass, and what `rule` obtains.

    Sizes rise. Below the number of the enrolled, a random part of them is enrolled and asked for.
    """
    report: dict[str, Any] = {}
    own = np.einsum("ij,ij->i", people.probes, people.enrolled[people.labels]).astype(np.float64)
    distractors = _chunks(people.lenders, max(sizes))
    nearest = [np.full(len(rows), -np.inf) for rows in (people.probes, people.strangers)]
    filled, chunk = 0, np.empty((0, people.lenders.shape[1]), np.float32)
    for done, size in enumerate(sizes):
        step(f"{size:,} enrolled", done, len(sizes))
        real = min(size, len(people.enrolled))
        chosen = np.sort(np.random.default_rng(SEED).permutation(len(people.enrolled))[:real])
        while filled < size - real:
            if not len(chunk):
                chunk = next(distractors)
            part, chunk = np.split(chunk, [size - real - filled])
            filled += len(part)
            for best, rows in zip(nearest, (people.probes, people.strangers), strict=True):
                np.maximum(best, (rows @ part.T).max(axis=1), out=best)
        asked = np.isin(people.labels, chosen)
        among = people.probes[asked] @ people.enrolled[chosen].T
        among[np.arange(len(among)), np.searchsorted(chosen, people.labels[asked])] = -np.inf
        others = np.maximum(among.max(axis=1), nearest[0][asked]).astype(np.float64)
        best, right = np.maximum(own[asked], others), own[asked] > others
        strangers = np.maximum((people.strangers @ people.enrolled[chosen].T).max(axis=1), nearest[1])
        report[str(size)] = _figures(best, right, strangers.astype(np.float64), size, rule)
    step("measured", len(sizes), len(sizes))
    return report


def farther(people: Halves) -> dict[str, Any]:
    """Return for `FAR` sizes the threshold that `TARGET` needs, and TPIR there, with 95 % intervals.

    FPIR is size times FMR. The scores of distractors and strangers give log10 FMR over the threshold, from
    which a parabola goes on. A probe counts as recognised when its own score reaches the threshold. The
    intervals are of these strangers and probes; that the tail goes on as the parabola does is assumed.
    """
    generator = np.random.default_rng(SEED)
    own = np.einsum("ij,ij->i", people.probes, people.enrolled[people.labels]).astype(np.float64)
    asked = people.strangers[:TAIL_STRANGERS]
    scores, whose = _tail(asked, people.lenders)
    wanted = np.linspace(math.log10(TAIL[0]), math.log10(TAIL[1]), TAIL_POINTS)
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in FAR}
    for turn in range(ROUNDS):
        # The first turn is the estimate, the others draw strangers and probes again.
        times = np.bincount(generator.integers(0, len(asked), len(asked)), minlength=len(asked))
        weights = np.ones(len(scores)) if turn == 0 else times[whose].astype(np.float64)
        above = np.log10(np.maximum(np.cumsum(weights[::-1])[::-1], 0.5) / (len(asked) * TAIL_DRAWS))
        measured = np.interp(wanted, above[::-1], scores[::-1])
        places, first = np.unique(measured, return_index=True)
        if len(places) < TAIL_POINTS // 2:
            continue  # of few strangers, those were drawn whom no distractor is like
        curve = np.polynomial.Polynomial.fit(places, wanted[first], 2)
        probes = own if turn == 0 else own[generator.integers(0, len(own), len(own))]
        for size in FAR:
            threshold = _reaches(curve, math.log10(TARGET / size), float(measured[0]))
            found[size].append((threshold, float((probes >= threshold).mean())))
    return {
        str(size): {
            "threshold": _spread([each[0] for each in values]),
            "tpir": _spread([each[1] for each in values]),
        }
        for size, values in found.items()
    }


def _reaches(curve: np.polynomial.Polynomial, wanted: float, start: float) -> float:
    """Return where a falling parabola reaches a value, from `start` on; where it turns, its slope goes on."""
    roots: list[complex] = (curve - wanted).roots().tolist()
    ahead = [root.real for root in roots if abs(root.imag) < 1e-9 and root.real >= start]
    if not ahead:
        return min(1.0, start + (wanted - float(curve(start))) / float(curve.deriv()(start)))
    return min(1.0, *ahead)


def _tail(strangers: FloatArray, lenders: FloatArray) -> tuple[Scores, NDArray[np.intp]]:
    """Return the highest scores of strangers against distractors, rising, and whose each is."""
    least = float(np.quantile(strangers @ next(_chunks(lenders, CHUNK)).T, 1 - 2 * TAIL[1]))
    scores, whose = [], []
    for chunk in _chunks(lenders, TAIL_DRAWS):
        found = strangers @ chunk.T
        above = np.nonzero(found >= least)
        scores.append(found[above])
        whose.append(above[0])
    order = np.argsort(ranked := np.concatenate(scores).astype(np.float64))
    return ranked[order], np.concatenate(whose)[order]


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return {"value": round(values[0], 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _figures(
    best: Scores, right: Flags, strangers: Scores, size: int, rule: DecisionRule | None
) -> dict[str, Any]:
    tpir = rates.tpir_at(best, right, strangers, TARGET)
    figures = {
        "probes": len(best),
        "rank1": round(float(right.mean()), 4),
        "tpir": {"value": round(tpir.value, 4), "low": round(tpir.low, 4), "high": round(tpir.high, 4)},
        "threshold": round(rates.threshold_at(strangers, TARGET), 4),
    }
    if rule is not None:
        threshold = rule.threshold_for(size)
        figures["by_rule"] = {
            "threshold": round(threshold, 4),
            "fpir": round(rates.accepted(strangers, threshold), 4),
            "tpir": round(rates.identified(best, right, threshold), 4),
        }
    return figures


def _chunks(lenders: FloatArray, count: int) -> Iterator[FloatArray]:
    """Yield so many distractors: always the same ones, whatever is taken at once."""
    generator = np.random.default_rng(SEED)
    for start in range(0, count, CHUNK):
        yield blended(lenders, CHUNK, generator)[: count - start]


def _unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
