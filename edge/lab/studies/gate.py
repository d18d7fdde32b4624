"""What the quality gate buys: decisions with and without it, on photos made worse in known ways.

Enrolment stays clean and only probes are spoiled, as at a door. A refused shot is a failure to acquire: a
miss for a subject, no alarm for a stranger. At a door another shot follows, so the shots that passed are
also judged by themselves.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edge.core.errors import MediaError
from edge.core.types import Quality, Refusal
from edge.gallery.decision import DecisionRule
from edge.lab.photos import rates
from edge.lab.photos.measure import NOTHING, Embeddings, OpenSetScores, open_set_scores
from edge.lab.photos.protocol import FIRST_PROBE, OpenSet, open_set, subjects
from edge.lab.photos.rates import Flags, Scores
from edge.lab.photos.shots import Shot, Shots

T = TypeVar("T")

FPIR = 0.01
"""Rate at which the threshold is also set from the strangers at hand, each condition by itself."""

MEASURES: Mapping[str, Callable[[Quality], float]] = {
    "weight": lambda quality: quality.weight,
    "sharpness": lambda quality: quality.sharpness,
    "exposure": lambda quality: quality.exposure,
    "face_px": lambda quality: quality.face_px,
    "detector_score": lambda quality: quality.detector_score,
    "recognisability": lambda quality: 0.0 if quality.recognisability is None else quality.recognisability,
    "frontal": lambda quality: -abs(quality.yaw_deg),
    "weight without recognisability": lambda quality: quality.weight / (quality.recognisability or 1.0),
}
"""What the gate measures on a shot; higher should mean more useful."""


CURVES = ("weight without recognisability", "recognisability", "weight")
"""Measures by which the worst shots are refused in turn."""

REFUSED = tuple(round(0.05 * step, 2) for step in range(15))
"""Shares of shots refused, 0 to .7."""


def door_protocol(images: Path, *, enroll: int, min_images: int, strangers: int | None = None) -> OpenSet:
    """Return the open-set protocol, for folders without single-photo subjects too.

    `strangers` subjects, the last by name, are not enrolled and all their photos are strangers' probes. None:
    strangers are the subjects with a single photo, or every second half of the subjects where there are none.

    Raises:
        MediaError: Nobody can be enrolled or probed, or nobody is left to be a stranger.
    """
    everybody = subjects(images)
    if strangers is None:
        if any(len(photos) == 1 for photos in everybody.values()):
            return open_set(images, enroll=enroll, min_images=min_images)
        strangers = len(everybody) // 2
    names = list(everybody)
    first = max(enroll, FIRST_PROBE)
    known = {
        name: everybody[name]
        for name in names[: len(names) - strangers]
        if len(everybody[name]) >= max(min_images, enroll)
    }
    genuine = tuple((name, path) for name, photos in known.items() for path in photos[first:])
    others = tuple(path for name in names[len(names) - strangers :] for path in everybody[name])
    if not genuine or not others or strangers > len(names):
        raise MediaError(
            f"{images}: of {len(names)} subjects {strangers} are to be strangers, which leaves {len(known)} "
            f"to enrol with {len(genuine)} probes; all are needed: ask for fewer strangers or add photos"
        )
    return OpenSet({name: photos[:enroll] for name, photos in known.items()}, genuine, others)


def thinned(protocol: OpenSet, probes: int) -> OpenSet:
    """Return the protocol with at most `probes` genuine probes and strangers each, evenly spread."""
    return OpenSet(protocol.gallery, _spread(protocol.genuine, probes), _spread(protocol.strangers, probes))


def compare(
    protocol: OpenSet,
    enrolled: Embeddings,
    shots: Mapping[str, Shots],
    rule: DecisionRule,
    max_prototypes: int,
) -> dict[str, Any]:
    """Report, for each degradation, what the gate does; `enrolled` holds the gallery's photos."""
    conditions: dict[str, Any] = {}
    useful: list[Flags] = []
    qualities: list[Quality] = []
    threshold = 0.0
    for name, of in shots.items():
        rows = {path: shot.embedding if shot else None for path, shot in of.items()}
        scores = open_set_scores(protocol, {**enrolled, **rows}, max_prototypes)
        threshold = rule.threshold_for(scores.comparisons)
        probes = [of[path] for _, path in protocol.genuine]
        genuine, strangers = _refused(probes), _refused([of[path] for path in protocol.strangers])
        conditions[name] = judge(scores, genuine, strangers, threshold)
        why = Counter(shot.quality.refused for shot in of.values() if shot and shot.quality.refused)
        conditions[name]["refused"] = {str(reason): count for reason, count in why.most_common()}
        seen = np.array([shot is not None for shot in probes])
        useful.append((scores.right & (scores.best >= threshold))[seen])
        qualities += [shot.quality for shot in probes if shot]
    counted = ("errors", "avoided", "usable", "lost")
    totals = {key: sum(condition["pays"][key] for condition in conditions.values()) for key in counted}
    return {
        "target_fpir": rule.target_fpir,
        "threshold": round(threshold, 5),
        "n_subjects": len(protocol.gallery),
        "n_genuine": len(protocol.genuine),
        "n_unknown": len(protocol.strangers),
        "conditions": conditions,
        "pays": _shares(**totals),
        "separation": separation(qualities, np.concatenate(useful)),
        "reject": reject_curves(qualities, np.concatenate(useful)),
    }


def judge(scores: OpenSetScores, genuine: Flags, strangers: Flags, threshold: float) -> dict[str, Any]:
    """Report one condition; `genuine` and `strangers` say which of the probes the gate refuses.

    An error is a face that was found and decided wrongly at `threshold`: a subject missed or taken for
    another one, a stranger accepted. A usable shot is a subject's that is named rightly.
    """
    named = scores.right & (scores.best >= threshold)
    wrong = np.isfinite(scores.best) & ~named
    alarm = scores.strangers >= threshold
    passed = np.isfinite(scores.best) & ~genuine
    others_passed = np.isfinite(scores.strangers) & ~strangers
    return {
        "ungated": _rates(scores.best, scores.right, scores.strangers, threshold),
        "gated": _rates(
            np.where(genuine, NOTHING, scores.best),
            scores.right,
            np.where(strangers, NOTHING, scores.strangers),
            threshold,
        ),
        "accepted": _rates(
            scores.best[passed], scores.right[passed], scores.strangers[others_passed], threshold
        ),
        "pays": _shares(
            errors=int(wrong.sum() + alarm.sum()),
            avoided=int((wrong & genuine).sum() + (alarm & strangers).sum()),
            usable=int(named.sum()),
            lost=int((named & genuine).sum()),
        ),
    }


def separation(qualities: Sequence[Quality], useful: Flags) -> dict[str, float | None]:
    """Return for each measure the chance that a useful shot measures higher than a useless one (AUC).

    One half says that the measure knows nothing; None where all shots (n,) are useful, or none is.
    """
    return {
        name: _auc(np.array([measured(quality) for quality in qualities]), useful)
        for name, measured in MEASURES.items()
    }


def reject_curves(qualities: Sequence[Quality], useful: Flags) -> dict[str, list[float]]:
    """Return the share of shots that are useless after the worst have been refused, for each of `CURVES`.

    At the shares refused of `REFUSED`, over the shots that pass every other limit than recognisability. Empty
    where there are none.
    """
    passed = np.array([each.refused in (None, Refusal.RECOGNISABILITY) for each in qualities], bool)
    kept = [quality for quality, passes in zip(qualities, passed, strict=True) if passes]
    wrong = ~useful[passed]
    if not len(wrong):
        return {}
    curves = {}
    for name in CURVES:
        order = np.argsort([MEASURES[name](quality) for quality in kept], kind="stable")
        curves[name] = [round(float(wrong[order[int(share * len(wrong)) :]].mean()), 5) for share in REFUSED]
    return curves


def _spread(items: Sequence[T], count: int) -> tuple[T, ...]:
    if len(items) <= count:
        return tuple(items)
    return tuple(items[int(i)] for i in np.linspace(0, len(items) - 1, count))


def _refused(shots: Sequence[Shot | None]) -> Flags:
    return np.array([shot is not None and shot.quality.refused is not None for shot in shots])


def _rates(best: Scores, right: Flags, strangers: Scores, threshold: float) -> dict[str, float | None]:
    """Return the rates of some probes; None where there are none."""
    fta = [float((~np.isfinite(scores)).mean()) if len(scores) else None for scores in (best, strangers)]
    figures = {
        "fta": fta[0],
        "fta_unknown": fta[1],
        "tpir": rates.identified(best, right, threshold) if len(best) else None,
        "fpir": rates.accepted(strangers, threshold) if len(strangers) else None,
        "tpir_at_fpir_0.01": None,
    }
    if len(best) and len(strangers):
        own = rates.threshold_at(strangers, FPIR)
        figures["tpir_at_fpir_0.01"] = rates.identified(best, right & np.isfinite(best), own)
    return {name: None if value is None else round(value, 5) for name, value in figures.items()}


def _shares(*, errors: int, avoided: int, usable: int, lost: int) -> dict[str, Any]:
    """Return the counts, the share of errors that the gate avoids and of usable shots that it loses."""
    return {
        "errors": errors,
        "avoided": avoided,
        "usable": usable,
        "lost": lost,
        "avoided_share": round(avoided / errors, 5) if errors else None,
        "lost_share": round(lost / usable, 5) if usable else None,
        "avoided_per_lost": round(avoided / lost, 3) if lost else None,
    }


def _auc(values: Scores, useful: Flags) -> float | None:
    """Return the area under the ROC curve by ranks; equal values count one half."""
    good, bad = int(useful.sum()), int((~useful).sum())
    if not good or not bad:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return round(float((ranks[useful].sum() - good * (good + 1) / 2) / (good * bad)), 5)
