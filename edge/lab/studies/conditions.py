"""What light, distance and compression cost: the open-set protocol with probes, or both sides, made worse.

Each condition is decided as at a door: what the quality gate refuses is a failure to acquire. Besides the
rates it says how often pairs of two people reach the thresholds of the calibration, against what these
promise. Enrolment has its own, stricter gate.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray
from edge.face.quality import QualityGate
from edge.gallery.decision import DecisionRule
from edge.lab.photos import rates
from edge.lab.photos.measure import FPIRS, open_set_scores
from edge.lab.photos.protocol import OpenSet
from edge.lab.photos.shots import Shots

FMRS = (0.01, 0.001, 0.0001)
"""False match rates whose thresholds are tried."""

BOOTSTRAPS, BOOTSTRAP_SEED = 300, 20261129
"""Draws for an interval, and where they begin."""

SIDES = ("probes", "both")
"""What is made worse: the probes alone, or the enrolled photos too."""


def compare(
    protocol: OpenSet,
    shots: Mapping[str, Shots],
    rule: DecisionRule,
    enrolment: QualityGate,
    max_prototypes: int,
) -> dict[str, Any]:
    """Report each condition, first with a clean gallery and then with one as bad as the probes.

    `shots` holds all photos of the protocol in every condition; the first is the clean one. A photo that
    `enrolment` refuses is not enrolled.
    """
    clean = _usable(next(iter(shots.values())), enrolment)
    report: dict[str, Any] = {
        "target_fpir": rule.target_fpir,
        "n_subjects": len(protocol.gallery),
        "n_genuine": len(protocol.genuine),
        "n_unknown": len(protocol.strangers),
        **{side: {} for side in SIDES},
    }
    enrolled = [path for photos in protocol.gallery.values() for path in photos]
    for name, taken in shots.items():
        rows, fit = _usable(taken), _usable(taken, enrolment)
        spoiled = [shot.quality for shot in taken.values() if shot is not None]
        known = [each.recognisability for each in spoiled if each.recognisability is not None]
        for side in SIDES:
            gallery = {path: (clean if side == "probes" else fit)[path] for path in enrolled}
            report[side][name] = {
                **judge(protocol, gallery, rows, rule, max_prototypes),
                "lifted": round(float(np.median([each.lifted for each in spoiled])), 1) if spoiled else None,
                "recognisability": round(float(np.median(known)), 3) if known else None,
            }
    return report


def judge(
    protocol: OpenSet,
    gallery: Mapping[Path, FloatArray | None],
    rows: Mapping[Path, FloatArray | None],
    rule: DecisionRule,
    max_prototypes: int,
) -> dict[str, Any]:
    """Return the rates of one condition; None in `gallery` and `rows` is a photo without a usable face."""
    if not any(row is not None for row in gallery.values()):
        return {"fta": 1.0, "enrolled": 0, "tpir": {}, "tpir_by_rule": 0.0, "fpir_by_rule": 0.0, "fmr": {}}
    asked = {path: rows[path] for path in (*(path for _, path in protocol.genuine), *protocol.strangers)}
    scores = open_set_scores(protocol, {**asked, **gallery}, max_prototypes)
    threshold = rule.threshold_for(scores.comparisons)
    found = np.isfinite(scores.best)
    return {
        "fta": round(float((~found).mean()), 5),
        "enrolled": scores.enrolled,
        "tpir": {
            str(rate): round(
                rates.identified(
                    scores.best, scores.right & found, rates.threshold_at(scores.strangers, rate)
                ),
                5,
            )
            for rate in FPIRS
        },
        "tpir_by_rule": round(rates.identified(scores.best, scores.right, threshold), 5),
        "fpir_by_rule": round(rates.accepted(scores.strangers, threshold), 5),
        "fmr": _false_matches(protocol, gallery, asked, rule),
    }


def _false_matches(
    protocol: OpenSet,
    gallery: Mapping[Path, FloatArray | None],
    asked: Mapping[Path, FloatArray | None],
    rule: DecisionRule,
) -> dict[str, dict[str, Any]]:
    """Return how often a probe and an enrolled photo of two people reach the thresholds of the calibration.

    By promised rate: the share obtained over the promise, its 95 % interval over enrolled photos and people
    before the camera, and the pairs that were to be expected.
    """
    if rule.calibration is None:
        return {}
    names = {path: name for name, photos in protocol.gallery.items() for path in photos}
    enrolled = [(names[path], row) for path, row in gallery.items() if row is not None]
    probes = [(name, asked[path]) for name, path in protocol.genuine]
    probes += [("", asked[path]) for path in protocol.strangers]
    seen = [(name, row) for name, row in probes if row is not None]
    if not seen:
        return {}
    scores = np.stack([row for _, row in seen]) @ np.stack([row for _, row in enrolled]).T
    others = np.array([[name != who for who, _ in enrolled] for name, _ in seen])
    if not others.any():
        return {}
    people = {name or str(number): number for number, (name, _) in enumerate(seen)}
    whose = np.array([people[name or str(number)] for number, (name, _) in enumerate(seen)])
    told: dict[str, dict[str, Any]] = {}
    for rate in FMRS:
        reached = others & (scores >= rule.calibration.threshold_at(rate))
        low, high = _interval(reached, others, whose)
        told[str(rate)] = {
            "times_promised": round(float(reached.sum() / others.sum()) / rate, 3),
            "interval": [round(low / rate, 3), round(high / rate, 3)],
            "expected": round(float(others.sum()) * rate, 1),
        }
    return told


def _interval(
    reached: NDArray[np.bool_], counted: NDArray[np.bool_], whose: NDArray[np.intp]
) -> tuple[float, float]:
    """Return the 95 % interval of the share of the pairs that are `reached` among those `counted`.

    Bootstrap over the enrolled photos (columns) and over the people (`whose`) that the rows show.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    rows, columns = reached.shape
    hits, pairs = reached.astype(np.float32), counted.astype(np.float32)
    shares = []
    for _ in range(BOOTSTRAPS):
        photos = np.bincount(generator.integers(0, columns, columns), minlength=columns).astype(np.float32)
        drawn = np.bincount(generator.integers(0, rows, rows), minlength=rows)[whose].astype(np.float32)
        if (number := float(drawn @ pairs @ photos)) > 0:
            shares.append(float(drawn @ hits @ photos) / number)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def _usable(shots: Shots, enrolment: QualityGate | None = None) -> dict[Path, FloatArray | None]:
    """Return the embeddings of the shots that the gate passed, and `enrolment` too; None for the others."""
    rows: dict[Path, FloatArray | None] = dict.fromkeys(shots)
    for path, shot in shots.items():
        if shot is None or shot.quality.refused is not None:
            continue
        if enrolment is None or enrolment.judge(shot.quality) is None:
            rows[path] = shot.embedding
    return rows
