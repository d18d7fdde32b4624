"""What happens where gallery and visitors share one damage: every photo upside down, everybody in sunglasses.

Photos are enrolled as `edge enroll` does, with what it refuses, and strangers come as before a camera, single
shots. Half of the subjects are enrolled, the other half are strangers, and then the other way round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge.camera.photo import read_photo
from edge.core.download import Progress
from edge.core.errors import EnrollmentError
from edge.core.types import FloatArray, Probe, Quality
from edge.gallery.alike.own_shift import Shifts, shifts_among
from edge.gallery.decision import DecisionRule
from edge.lab.photos.degrade import Degradation
from edge.lab.photos.embeddings import PhotoEmbedder, centre, nearest_face
from edge.lab.photos.plots import share_interval
from edge.lab.photos.shots import face_again, spoil
from edge.recognition.enrolment.enrol import encode_face
from edge.recognition.recognizer import Recognizer

TARGETS = (0.01, 0.001)
"""Shares of strangers that may be let in."""

"""When everybody was enrolled; nothing depends on it."""


@dataclass(frozen=True, slots=True, eq=False)
class SpoiledSight:
    """A face of a spoiled photo: what a camera makes of it, and enrolment; None where it is refused."""

    shot: Probe | None
    enrolled: Probe | None


Sights = Mapping[Path, SpoiledSight | None]
"""What was seen of each photo; None where no face was found."""


def see(
    photos: Sequence[Path], ways: Sequence[Degradation], embedder: PhotoEmbedder, progress: Progress
) -> dict[str, Sights]:
    """Spoil every photo in every way, and look at the face nearest its centre; by way and photo.

    Raises:
        MediaError, ClusterError: As for `PhotoEmbedder.each`.
    """
    taken = embedder.each(photos, partial(_seen_in, ways), progress)
    return {way.name: {path: seen[i] for path, seen in taken.items()} for i, way in enumerate(ways)}


def _seen_in(ways: Sequence[Degradation], path: Path, recognizer: Recognizer) -> list[SpoiledSight | None]:
    return [_seen(path, way, recognizer) for way in ways]


def _seen(path: Path, way: Degradation, recognizer: Recognizer) -> SpoiledSight | None:
    image = read_photo(path)
    clean = nearest_face(recognizer.detect(image), centre(image))
    if clean is None:
        return None
    bad = spoil(image, clean, way)
    face = face_again(image, bad, clean, way, recognizer)
    if face is None:
        return None
    shot = recognizer.encode(bad, face)
    if isinstance(shot, Quality):
        return SpoiledSight(None, None)
    try:
        return SpoiledSight(shot, encode_face(bad, face, path.name, recognizer.for_enrolment()))
    except EnrollmentError:
        return SpoiledSight(shot, None)


def compare(sights: Mapping[str, Sights], rule: DecisionRule) -> dict[str, Any]:
    """Report, for each condition, who is enrolled and which share of strangers is let in.

    `let_in` has the share of all strangers whose face was found, with its 95 % interval, by target; the rule
    is that of the gallery, with the shift that it learns from its own pairs. `fmr` is how many times as often
    as promised an enrolled photo and a shot of two people reach the threshold of a rate, both accepted.
    """
    return {
        "subjects": len(next(iter(sights.values()))),
        "conditions": {name: _condition(list(seen.values()), rule) for name, seen in sights.items()},
    }


def _condition(seen: Sequence[SpoiledSight | None], rule: DecisionRule) -> dict[str, Any]:
    found = [each for each in seen if each is not None]
    named = dict.fromkeys(TARGETS, 0)
    strangers, shifts, alike, pairs = 0, [], dict.fromkeys(TARGETS, 0), 0
    for mine, others in ((seen[::2], seen[1::2]), (seen[1::2], seen[::2])):
        strangers += sum(each is not None for each in others)
        gallery = np.array([each.enrolled.embedding for each in mine if each and each.enrolled], np.float32)
        shots = np.array([each.shot.embedding for each in others if each and each.shot], np.float32)
        if not len(gallery) or not len(shots):
            continue
        scores = shots @ gallery.T
        pairs += scores.size
        learned = None if rule.calibration is None else shifts_among(gallery, rule.calibration)
        of_gallery = None if learned is None else learned.others
        told = replace(rule, gallery_shift=of_gallery).shift_for(len(gallery))
        shifts.append(0.0 if told is None else told.value)
        for target in TARGETS:
            named[target] += _named(scores, learned, replace(rule, target_fpir=target, threshold=None))
            if rule.calibration is not None:
                alike[target] += int((scores >= rule.calibration.threshold_at(target)).sum())
    return {
        "found": len(found),
        "shots": sum(each.shot is not None for each in found),
        "enrolled": sum(each.enrolled is not None for each in found),
        "shift": round(max(shifts, default=0.0), 4),
        "let_in": {str(target): _share(named[target], strangers) for target in TARGETS},
        "fmr": {
            str(target): {
                "times_promised": round(alike[target] / pairs / target, 2) if pairs else None,
                "expected": round(pairs * target, 1),
            }
            for target in TARGETS
        },
    }


def _named(scores: FloatArray, shifts: Shifts | None, rule: DecisionRule) -> int:
    """Return how many strangers are named, of scores (strangers, enrolled)."""
    ranked = np.sort(np.column_stack([scores, np.full(len(scores), -1.0)]), axis=1)
    clear = ranked[:, -1] - ranked[:, -2] >= rule.margin
    size = scores.shape[1]
    each = np.full(size, rule.threshold_for(size)) if shifts is None else shifts.thresholds(rule, size)
    return int((clear & (ranked[:, -1] >= each[scores.argmax(axis=1)])).sum())


def _share(count: int, of: int) -> dict[str, float | int]:
    if not of:
        return {"count": 0, "of": 0, "share": 0.0, "low": 0.0, "high": 1.0}
    low, high = share_interval(count / of, of)
    return {
        "count": count,
        "of": of,
        "share": round(count / of, 5),
        "low": round(low, 5),
        "high": round(high, 5),
    }
