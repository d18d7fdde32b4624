"""Visits that are kept for a while, sealed under the device's key: strangers' to enrol, matches to deny.

One file per visit, in a private directory, bounded in number and in time. Groups them by face; enrols nobody.
"""

import base64
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from edge.core.errors import GalleryIntegrityError
from edge.core.types import Decision, EventType, Image, Probe, Quality, Reason
from edge.gallery.format.rows import rows_of, rows_text
from edge.gallery.format.seal import Binding
from edge.gallery.store.sealed import SealedFiles

log = logging.getLogger(__name__)

MAX_VISITS = 2000
"""Of strangers, and as many matches; about 1.5 MiB each. The oldest go first."""

MAX_FILE_BYTES = 128 * 1024
"""Of one visit: its embedding has 4096 values at most, 22 KiB as text; a picture some 15 KiB, 60 at most."""

JPEG_QUALITY = 85
"""Of 100, of a picture of 240 pixels."""

SAME_FMR = 1e-4
"""False match rate at which two visits are taken for the same stranger's.

A person decides what comes of a group and sees its times and cameras: one group too many costs a glance, two
people in one group an enrolment that the collision check has to catch. At 1e-4 and 100 visits half a pair of
strangers falls together by chance; at 1e-3 five would.
"""

STRANGERS = (Reason.BELOW_THRESHOLD, Reason.AMBIGUOUS, Reason.GALLERY_EMPTY)
"""Rejections of people whom nobody knows; who is known and may not pass is none."""

CLOCK_SLACK = timedelta(hours=1)
"""So far in the future a visit may be stamped: clocks are set back. What is stamped later was stamped by a
wrong clock; nobody knows how old it is, and it goes."""

_NAME = re.compile(r"(-?\d{1,16})-(v-[0-9a-f]{1,32})\.(?:kept|matched)")
_UNFINISHED = re.compile(r"\.(-?\d{1,16})-(v-[0-9a-f]{1,32})\.(?:kept|matched)\.tmp")


@dataclass(frozen=True, slots=True, eq=False)
class KeptVisit:
    """What is kept of a visit: its fused evidence, where and when it ended (UTC, milliseconds)."""

    visit_id: str
    camera: str
    at: datetime
    probe: Probe
    taken_for: str = ""
    """Id of the subject that the visit was a match for; empty for a stranger's visit."""

    picture: Image | None = None
    """A stranger's face, BGR, where pictures are kept. It is in the visit's file; `load` leaves it there."""

    @classmethod
    def of(
        cls, visit_id: str, camera: str, at: datetime, evidence: Probe, decision: Decision
    ) -> "KeptVisit | None":
        """Return what is kept of a visit that was decided so; None: neither a stranger's nor a match."""
        if decision.event_type == EventType.MATCH and decision.subject is not None:
            return cls(visit_id, camera, at, evidence, decision.subject.subject_id)
        return cls(visit_id, camera, at, evidence) if decision.reason in STRANGERS else None


class VisitStore:
    """The kept visits of one device; `key` is the file of the device's key. `keep` of zero keeps none."""

    def __init__(self, directory: Path, key: Path, keep: timedelta, *, make_key: bool = True) -> None:
        self._files = SealedFiles(directory, key, make_key=make_key)
        self._keep = keep

    def put(self, visit: KeptVisit) -> None:
        """Keep a visit; the oldest make room for it.

        Raises:
            FileError: It cannot be written.
            GalleryError: The directory cannot be made.
        """
        if not self._keep:
            return
        at_ms = int(visit.at.timestamp() * 1000)
        name = _file(visit.visit_id, at_ms, matched=bool(visit.taken_for))
        self._files.write(name, _plain(visit), _binding(visit.visit_id, at_ms))
        alike = [each for each, _, _ in self._named() if each.rpartition(".")[2] == name.rpartition(".")[2]]
        self._files.delete(alike[:-MAX_VISITS])

    def load(self, now: datetime) -> list[KeptVisit]:
        """Return the kept visits, oldest first; what has expired or cannot be read is deleted."""
        self.expire(now)
        found = []
        for name, at_ms, visit_id in self._named():
            try:
                plain = self._files.read(name, _binding(visit_id, at_ms), MAX_FILE_BYTES)
                if plain is not None:
                    found.append(_visit(plain, visit_id, at_ms))
            except GalleryIntegrityError as error:
                log.warning("a kept visit cannot be read and is deleted: %s", error)
                self._files.delete([name])
        return found

    def picture(self, visit: KeptVisit) -> Image | None:
        """Return the picture that was kept with a visit, BGR; None: none was.

        Raises:
            GalleryIntegrityError: It was altered, or is another device's.
        """
        at_ms = int(visit.at.timestamp() * 1000)
        name = _file(visit.visit_id, at_ms, matched=bool(visit.taken_for))
        plain = self._files.read(name, _binding(visit.visit_id, at_ms), MAX_FILE_BYTES)
        kept = None if plain is None else json.loads(plain).get("picture")
        if kept is None:
            return None
        import cv2

        read = cv2.imdecode(np.frombuffer(base64.b64decode(kept), np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(read, np.uint8)

    def remove(self, visit_ids: Iterable[str]) -> int:
        """Delete visits; returns how many there were."""
        wanted = set(visit_ids)
        return self._files.delete(name for name, _, visit_id in self._named() if visit_id in wanted)

    def purge(self) -> int:
        """Delete all visits, also what cannot be read; returns how many there were."""
        number = self._files.delete(name for name, _, _ in self._named())
        self._files.delete(name for name, _, _ in self._named(_UNFINISHED))
        return number

    def expire(self, now: datetime) -> None:
        """Delete what is older than it may become; all of it where nothing is kept.

        Raises:
            GalleryError, FileError: Something cannot be deleted; the rest is.
        """
        oldest_ms = (now - self._keep).timestamp() * 1000
        newest_ms = (now + CLOCK_SLACK).timestamp() * 1000
        self._files.delete(
            name
            for name, at_ms, _ in self._named() + self._named(_UNFINISHED)
            if not self._keep or not oldest_ms <= at_ms <= newest_ms
        )

    def _named(self, pattern: re.Pattern[str] = _NAME) -> list[tuple[str, int, str]]:
        """Return name, time and visit of each file, oldest first."""
        kept = [(found[0], int(found[1]), found[2]) for found in self._files.named(pattern)]
        return sorted(kept, key=lambda each: each[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Stranger:
    """Visits of what seems to be one person, oldest first."""

    visits: tuple[KeptVisit, ...]

    @property
    def best(self) -> KeptVisit:
        """The visit with the best evidence."""
        return max(self.visits, key=lambda visit: visit.probe.quality.weight)


def group(visits: Sequence[KeptVisit], threshold: float) -> list[Stranger]:
    """Return the visits by stranger, who came last first.

    A visit joins the group whose mean it is most alike, if by at least `threshold`, a cosine. Visits of
    another embedder stay apart.
    """
    models = dict.fromkeys(visit.probe.model_id for visit in visits)
    groups = [
        each
        for model_id in models
        for each in _grouped([visit for visit in visits if visit.probe.model_id == model_id], threshold)
    ]
    return sorted((Stranger(tuple(each)) for each in groups), key=lambda s: s.visits[-1].at, reverse=True)


def _grouped(visits: Sequence[KeptVisit], threshold: float) -> list[list[KeptVisit]]:
    """Return the groups of visits of one embedder."""
    groups: list[list[KeptVisit]] = []
    sums = np.zeros((len(visits), len(visits[0].probe.embedding)), np.float32)
    means = np.zeros_like(sums)
    for visit in visits:
        scores = means[: len(groups)] @ visit.probe.embedding
        at = int(scores.argmax()) if groups else 0
        if not groups or not scores[at] >= threshold:
            at = len(groups)
            groups.append([])
        groups[at].append(visit)
        sums[at] += visit.probe.embedding
        means[at] = sums[at] / np.linalg.norm(sums[at])
    return groups


def _binding(visit_id: str, at_ms: int) -> Binding:
    return Binding("visit", visit_id, "", at_ms)


def _file(visit_id: str, at_ms: int, *, matched: bool) -> str:
    return f"{at_ms}-{visit_id}{'.matched' if matched else '.kept'}"


def _plain(visit: KeptVisit) -> bytes:
    document = {
        "camera": visit.camera,
        "model_id": visit.probe.model_id,
        "taken_for": visit.taken_for,
        "quality": list(map(float, visit.probe.quality.numbers)),
        "embedding": rows_text(visit.probe.embedding),
    }
    if visit.picture is not None:
        import cv2

        jpeg = cv2.imencode(".jpg", visit.picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        document["picture"] = base64.b64encode(jpeg.tobytes()).decode()
    return json.dumps(document).encode()


def _visit(plain: bytes, visit_id: str, at_ms: int) -> KeptVisit:
    try:
        said = json.loads(plain)
        [embedding] = rows_of(said["embedding"])
        probe = Probe(embedding, str(said["model_id"]), Quality.of(said["quality"]))
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        return KeptVisit(visit_id, str(said["camera"]), at, probe, str(said.get("taken_for", "")))
    except (ValueError, KeyError, TypeError):
        raise GalleryIntegrityError("a kept visit is not what was kept") from None
