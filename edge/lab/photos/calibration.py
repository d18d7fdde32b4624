"""Calibrate an embedder: the [calibration] table of its manifest, how sure it is, and whether it holds.

Takes embeddings of one photo per subject. What the decision rule makes of the table is `gallery.decision`'s.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.errors import MediaError, ModelError
from edge.core.types import FloatArray
from edge.face.manifest import read_manifest
from edge.gallery.alike.own_shift import shifts_among
from edge.gallery.decision import Calibration, DecisionRule
from edge.lab.photos.rates import Scores, accepted
from edge.lab.photos.tail import fit_tail, impostor_scores, interval, measured_thresholds

RATES = (0.5, 0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7)
"""False match rates of the table. A target FPIR of .001 for 10,000 subjects needs 1e-7."""

LEAST_MEASURED = 100
"""Pairs that must reach a threshold for it to be taken from them; beyond, the fit speaks.

The last pairs of a public collection are one person under two names.
"""

CHECK_RATES = (1e-2, 1e-3, 1e-4)
CHECK_TARGETS = (0.01, 0.003)
CHECK_SPLITS = 20
CHECK_GALLERIES = 20
SEED = 20261124


@dataclass(frozen=True, slots=True)
class FittedRates:
    """False match rate over threshold, the 95 % interval of each threshold, and where the fit begins."""

    thresholds: tuple[float, ...]
    fmr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fitted_below: float
    pairs: int
    subjects: int
    source: str

    @property
    def calibration(self) -> Calibration:
        """What the decision rule takes."""
        return Calibration(self.thresholds, self.fmr)


def calibrate(embeddings: FloatArray, source: str) -> FittedRates:
    """Measure impostor pairs of embeddings (n, D), one per subject, unit norm; `source` says whose.

    Raises:
        MediaError: Too few subjects.
    """
    scores = impostor_scores(embeddings)
    thresholds = measured_thresholds(scores, RATES, fit_tail(scores), LEAST_MEASURED)
    below, above = interval(embeddings, RATES, LEAST_MEASURED)
    return FittedRates(
        thresholds=_rising(thresholds),
        fmr=RATES,
        low=_told(value - far for value, far in zip(thresholds, below, strict=True)),
        high=_told(value + far for value, far in zip(thresholds, above, strict=True)),
        fitted_below=min(rate for rate in RATES if round(rate * len(scores)) >= LEAST_MEASURED),
        pairs=len(scores),
        subjects=len(embeddings),
        source=source,
    )


def check_halves(embeddings: FloatArray, *, splits: int = CHECK_SPLITS) -> dict[str, Any]:
    """Calibrate on one half of the subjects and test on the other, for several random splits.

    Reported as obtained rate over promised rate, median and 10th to 90th percentile over the splits: `fmr`
    over all pairs of the other half; `fpir` with the decision rule, strangers of the other half searched in
    `CHECK_GALLERIES` galleries drawn from it (a tenth and a half of its subjects); `fpir_with_shift` the same
    with the shift that each gallery shows by itself, as doors have it.
    """
    generator = np.random.default_rng(SEED)
    obtained: dict[tuple[str, str], list[float]] = {}
    for _ in range(splits):
        order = generator.permutation(len(embeddings))
        mine, others = embeddings[order[::2]], embeddings[order[1::2]]
        scores = impostor_scores(mine)
        thresholds = measured_thresholds(scores, RATES, fit_tail(scores), LEAST_MEASURED)
        table, theirs = Calibration(_rising(thresholds), RATES), impostor_scores(others)
        for rate in CHECK_RATES:
            share = accepted(theirs, table.threshold_at(rate))
            obtained.setdefault(("fmr", f"{rate:g}"), []).append(share / rate)
        for size in (len(others) // 10, len(others) // 2):
            galleries = list(_galleries(others, size, generator))
            shifts = [shifts_among(gallery, table) for gallery, _, _ in galleries]
            for target in CHECK_TARGETS:
                rule = DecisionRule(target, None, 0.0, table)
                plain = [np.full(size, rule.threshold_for(size), np.float32)] * len(shifts)
                learned = [shift.thresholds(rule, size) for shift in shifts]
                for kind, of_galleries in (("fpir", plain), ("fpir_with_shift", learned)):
                    passed = [
                        best >= of_each[whom]
                        for (_, best, whom), of_each in zip(galleries, of_galleries, strict=True)
                    ]
                    key = (kind, f"{target:g} of {size}")
                    obtained.setdefault(key, []).append(float(np.concatenate(passed).mean()) / target)
    report: dict[str, Any] = {"splits": splits, "fmr": {}, "fpir": {}, "fpir_with_shift": {}}
    for (kind, name), ratios in obtained.items():
        low, median, high = np.quantile(ratios, (0.1, 0.5, 0.9))
        within = float(np.mean([0.5 <= ratio <= 2 for ratio in ratios]))
        report[kind][name] = {
            "median": round(float(median), 3),
            "p10": round(float(low), 3),
            "p90": round(float(high), 3),
            "within_factor_2": round(within, 3),
        }
    return report


def several_photos(
    examples: Sequence[FloatArray], strangers: FloatArray, photos: int, table: Calibration
) -> dict[str, float]:
    """Return how many times as often impostors pass a template that is the mean of `photos` photos.

    Args:
        examples: The photos of each subject, (n, D) each, unit norm; those with fewer are left out.
        strangers: One photo of each of other subjects, (m, D), unit norm.
        photos: Photos per template.
        table: Thresholds for templates of one photo.
    """
    means = np.stack([rows[:photos].mean(axis=0) for rows in examples if len(rows) >= photos])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    scores = (means @ strangers.T).ravel().astype(np.float64)
    return {f"{rate:g}": round(accepted(scores, table.threshold_at(rate)) / rate, 2) for rate in CHECK_RATES}


def as_toml(table: FittedRates) -> str:
    """Return the table as a manifest holds it."""

    def numbers(values: Sequence[float]) -> str:
        return "[" + ", ".join(f"{value:g}" for value in values) + "]"

    return (
        "# Cosine that this share of impostor pairs reaches; `edge calibrate --images DIR --write`.\n"
        "[calibration]\n"
        f"thresholds = {numbers(table.thresholds)}\n"
        f"fmr = {numbers(table.fmr)}\n"
        f"low = {numbers(table.low)}\n"
        f"high = {numbers(table.high)}\n"
        f"fitted_below = {table.fitted_below:g}\n"
        f"pairs = {table.pairs}\n"
        f"subjects = {table.subjects}\n"
        f'source = "{table.source}"\n'
    )


def write_table(table: str, manifest: Path) -> None:
    """Replace a table of a manifest file by this TOML, or add it at the end.

    Raises:
        ModelError: The file cannot be read or written, or would no longer be a manifest.
    """
    try:
        text = manifest.read_text()
        [name] = re.findall(r"^\[(\w+)\]$", table, flags=re.MULTILINE)
        kept = re.sub(rf"^(?:#.*\n)*\[{name}\]\n(?:(?![\[#]).*\n?)*", "", text, flags=re.MULTILINE).rstrip()
        manifest.write_text(f"{kept}\n\n{table}")
        read_manifest(manifest)
    except OSError as error:
        raise ModelError(f"{manifest}: cannot write the calibration: {error.strerror}") from None
    except ModelError:
        manifest.write_text(text)
        raise


def _galleries(
    embeddings: FloatArray, size: int, generator: np.random.Generator
) -> Iterator[tuple[FloatArray, Scores, NDArray[np.intp]]]:
    """Yield galleries drawn at random, the best score in each of everybody else, and with whom it is."""
    for _ in range(CHECK_GALLERIES):
        order = generator.permutation(len(embeddings))
        gallery, strangers = embeddings[order[:size]], embeddings[order[size:]]
        scores = strangers @ gallery.T
        yield gallery, scores.max(axis=1).astype(np.float64), scores.argmax(axis=1)


def _rising(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return rounded thresholds that strictly rise: the fit may start a hair below the last measured one."""
    found: list[float] = []
    for value in _told(thresholds):
        found.append(
            value if not found or value > found[-1] else round(math.nextafter(found[-1], 2) + 1e-4, 4)
        )
    if found[-1] >= 1:
        raise MediaError("many pairs of different subjects are the same photo; give each subject one name")
    return tuple(found)


def _told(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
