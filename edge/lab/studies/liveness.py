"""How many pictures are taken for people, and people for pictures: a folder of frames for each visit.

Terms are those of ISO/IEC 30107-3: APCER is the share of attacks of one kind (PAI species) that are taken for
live faces, BPCER that of live (bona fide) faces that are taken for attacks. A visit without a score is a
non-response and counts in neither. A visit is judged as `recognition.visit` does: alive at once if the first
shots all are, else by the mean of them all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.camera.photo import read_photo
from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import Image
from edge.recognition.enrolment.roster import csv_rows
from edge.recognition.recognizer import Recognizer

LIST = "visits.csv"
"""The file of a folder that says what its visits show: folder, kind, and any other columns to group by."""

LIVE = "live"
"""The kind of a visit that shows a living face."""

APCER = 0.07
"""Where BPCER is told besides at the threshold."""

SMALLEST = 1e-9


@dataclass(frozen=True, slots=True)
class Presentation:
    """One visit: its kind ("live" or the kind of attack), what else is known, and the scores of its shots.

    `face_px` is the median of the shorter side of the face's box, 0 where none was found.
    """

    kind: str
    groups: Mapping[str, str]
    face_px: float
    scores: tuple[float, ...]

    @property
    def logit(self) -> float:
        """The mean of the shots as a logit, by which visits are ranked."""
        mean = min(max(sum(self.scores) / len(self.scores), SMALLEST), 1 - SMALLEST)
        return math.log(mean / (1 - mean))

    def alive(self, threshold: float, min_shots: int) -> bool:
        """Say whether the visit passes: its first shots are all alive, or the mean of all is."""
        first = self.scores[:min_shots]
        at_once = len(first) == min_shots and all(score >= threshold for score in first)
        return at_once or sum(self.scores) / len(self.scores) >= threshold


def read_presentations(
    directory: Path,
    recognizer: Recognizer,
    *,
    max_shots: int,
    shrink: float = 1.0,
    progress: Progress = lambda what, done, total: None,
) -> list[Presentation]:
    """Score the first `max_shots` frames with a face of every visit listed in `directory`/visits.csv.

    `shrink` in (0, 1] reduces frames, as if the face were farther away.

    Raises:
        MediaError: The list or a picture cannot be read, or a folder is missing.
    """
    rows = _listed(directory / LIST)
    found = []
    for number, row in enumerate(rows):
        folder = directory / row["folder"]
        if not folder.is_dir():
            raise MediaError(f"{directory / LIST}: there is no folder {row['folder']!r}")
        sizes: list[float] = []
        scores: list[float] = []
        for path in sorted(folder.iterdir()):
            if len(sizes) == max_shots:
                break
            measured = _shot(_shrunk(read_photo(path), shrink), recognizer)
            if measured is None:
                continue
            sizes.append(measured[0])
            if measured[1] is not None:
                scores.append(measured[1])
        groups = {key: value for key, value in row.items() if key not in ("folder", "kind")}
        found.append(
            Presentation(row["kind"], groups, float(np.median(sizes)) if sizes else 0.0, tuple(scores))
        )
        progress("visits", number + 1, len(rows))
    return found


def _listed(path: Path) -> list[dict[str, str]]:
    rows = []
    for number, row in csv_rows(path, ("folder", "kind")):
        if not row["folder"] or not row.get("kind"):
            raise MediaError(f"{path}, line {number}: a row needs a folder and a kind")
        rows.append(row)
    if not rows:
        raise MediaError(f"{path}: it needs a row for each visit")
    return rows


def _shrunk(image: Image, share: float) -> Image:
    if share == 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), np.uint8)


def _shot(image: Image, recognizer: Recognizer) -> tuple[float, float | None] | None:
    """Return size and liveness of the largest face, None without a face."""
    faces = recognizer.detect(image)
    if not faces:
        return None
    face = max(faces, key=lambda each: each.size_px)
    return face.size_px, recognizer.liveness_of(image, face)


def liveness_report(
    presentations: Sequence[Presentation], *, threshold: float, min_shots: int
) -> dict[str, Any]:
    """Return APCER and BPCER with 95 % intervals: of all, by kind of attack and by each other column.

    Raises:
        MediaError: There are no live visits, or no attacks.
    """
    answered = [each for each in presentations if each.scores]
    live = [each for each in answered if each.kind == LIVE]
    attacks = [each for each in answered if each.kind != LIVE]
    if not live or not attacks:
        raise MediaError(
            "liveness is measured on live visits (kind live) and on attacks; one of them has no score"
        )

    def passed(chosen: Sequence[Presentation]) -> int:
        return sum(each.alive(threshold, min_shots) for each in chosen)

    def rates(chosen: Callable[[Presentation], bool]) -> dict[str, Any]:
        some_live, some_attacks = ([e for e in part if chosen(e)] for part in (live, attacks))
        return {
            "apcer": share(passed(some_attacks), len(some_attacks)),
            "bpcer": share(len(some_live) - passed(some_live), len(some_live)),
        }

    ranked_live, ranked_attacks = (np.sort([each.logit for each in part]) for part in (live, attacks))
    columns = sorted({column for each in answered for column in each.groups})
    sizes = (
        0.0,
        *np.quantile([each.face_px for each in answered], [1 / 3, 2 / 3]).round().tolist(),
        math.inf,
    )
    return {
        "threshold": threshold,
        "min_shots": min_shots,
        "all": rates(lambda each: True),
        "no_score": {
            "attacks": _no_score([each for each in presentations if each.kind != LIVE]),
            "live": _no_score([each for each in presentations if each.kind == LIVE]),
        },
        "eer": _eer(ranked_live, ranked_attacks),
        "curve": _curve(ranked_live, ranked_attacks),
        "bpcer_at_apcer": {"apcer": APCER, "bpcer": _bpcer_at(ranked_live, ranked_attacks, APCER)},
        "kinds": {
            kind: rates(lambda each, kind=kind: each.kind == kind)["apcer"]  # type: ignore[misc]
            for kind in sorted({each.kind for each in attacks})
        },
        "groups": {
            column: {
                value: rates(lambda each, c=column, v=value: each.groups.get(c) == v)  # type: ignore[misc]
                for value in sorted({each.groups[column] for each in answered if each.groups.get(column)})
            }
            for column in columns
        },
        "face_px": {
            f"{low:.0f}-{high:.0f}": rates(lambda each, low=low, high=high: low <= each.face_px < high)  # type: ignore[misc]
            for low, high in pairwise(sizes)
        },
    }


def _no_score(chosen: Sequence[Presentation]) -> dict[str, Any]:
    return share(sum(not each.scores for each in chosen), len(chosen))


def share(count: int, total: int) -> dict[str, Any]:
    """Return a share with its 95 % interval, both null of nothing. Source: Wilson (1927)."""
    if not total:
        return {"share": None, "low": None, "high": None, "count": count, "total": total}
    z, rate = 1.96, count / total
    middle = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return {
        "share": rate,
        "low": max(0.0, middle - half),
        "high": min(1.0, middle + half),
        "count": count,
        "total": total,
    }


def _curve(live: np.ndarray[Any, Any], attacks: np.ndarray[Any, Any]) -> dict[str, list[float]]:
    """Return APCER and BPCER at every threshold that changes one of them, rising; both sorted."""
    thresholds = np.unique(np.concatenate([live, attacks]))
    refused = np.searchsorted(live, thresholds) / len(live)
    passed = 1 - np.searchsorted(attacks, thresholds) / len(attacks)
    return {"apcer": passed.tolist(), "bpcer": refused.tolist()}


def _eer(live: np.ndarray[Any, Any], attacks: np.ndarray[Any, Any]) -> float:
    """Return the rate where as many live visits are refused as attacks pass; both sorted."""
    curve = _curve(live, attacks)
    refused, passed = np.array(curve["bpcer"]), np.array(curve["apcer"])
    best = int(np.argmin(np.abs(refused - passed)))
    return float(refused[best] + passed[best]) / 2


def _bpcer_at(live: np.ndarray[Any, Any], attacks: np.ndarray[Any, Any], apcer: float) -> float:
    """Return the share of live visits below where `apcer` of the attacks pass; both sorted."""
    allowed = int(apcer * len(attacks))
    threshold = attacks[len(attacks) - 1 - allowed]
    return float((live <= threshold).mean())
