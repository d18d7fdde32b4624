"""Visits that are kept for a while, sealed under the device's key: strangers' to enrol, matches to deny.

One file per visit, in a private directory, bounded in number and in time. Groups them by face; enrols nobody.
"""

import base64
import binascii
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from edge.core import files
from edge.core.errors import FileError, GalleryError, GalleryIntegrityError
from edge.core.types import Decision, EventType, FloatArray, Probe, Quality, Reason
from edge.gallery.format.seal import Binding, device_key, seal, unseal

log = logging.getLogger(__name__)

MAX_VISITS = 2000
"""Of strangers, and as many matches; about 1.5 MiB each. The oldest go first."""

MAX_FILE_BYTES = 64 * 1024
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
        self._directory = directory
        self._key = key
        self._keep = keep
        self._make_key = make_key

    def put(self, visit: KeptVisit) -> None:
        """Keep a visit; the oldest make room for it.

        Raises:
            FileError: It cannot be written.
            GalleryError: The directory cannot be made.
        """
        if not self._keep:
            return
        files.make_private_directory(self._directory, GalleryError)
        at_ms = int(visit.at.timestamp() * 1000)
        data = seal(
            _plain(visit), device_key(self._key, make=self._make_key), _binding(visit.visit_id, at_ms)
        )
        kind = ".matched" if visit.taken_for else ".kept"
        files.write_whole(self._directory / f"{at_ms}-{visit.visit_id}{kind}", data)
        alike = [path for path, _, _ in self._files() if path.suffix == kind]
        _delete(alike[:-MAX_VISITS])

    def load(self, now: datetime) -> list[KeptVisit]:
        """Return the kept visits, oldest first; what has expired or cannot be read is deleted."""
        self.expire(now)
        found = []
        for path, at_ms, visit_id in self._files():
            try:
                data = files.read_bounded(path, MAX_FILE_BYTES)
                key = device_key(self._key, make=False)
                if data is not None:
                    found.append(_visit(unseal(data, key, _binding(visit_id, at_ms)), visit_id, at_ms))
            except GalleryIntegrityError as error:
                log.warning("a kept visit cannot be read and is deleted: %s", error)
                files.shred(path)
        return found

    def remove(self, visit_ids: Iterable[str]) -> int:
        """Delete visits; returns how many there were."""
        wanted = set(visit_ids)
        return _delete(path for path, _, visit_id in self._files() if visit_id in wanted)

    def purge(self) -> int:
        """Delete all visits, also what cannot be read; returns how many there were."""
        number = _delete(path for path, _, _ in self._files())
        _delete(path for path, _, _ in self._files(_UNFINISHED))
        return number

    def expire(self, now: datetime) -> None:
        """Delete what is older than it may become; all of it where nothing is kept.

        Raises:
            GalleryError, FileError: Something cannot be deleted; the rest is.
        """
        oldest_ms = (now - self._keep).timestamp() * 1000
        newest_ms = (now + CLOCK_SLACK).timestamp() * 1000
        _delete(
            path
            for path, at_ms, _ in self._files() + self._files(_UNFINISHED)
            if not self._keep or not oldest_ms <= at_ms <= newest_ms
        )

    def _files(self, pattern: re.Pattern[str] = _NAME) -> list[tuple[Path, int, str]]:
        """Return path, time and visit of each file, oldest first."""
        try:
            names = [(path, pattern.fullmatch(path.name)) for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise GalleryError(f"{self._directory}: cannot be read: {error.strerror}") from None
        kept = [(path, int(found[1]), found[2]) for path, found in names if found]
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
    groups: list[list[KeptVisit]] = []
    for visit in visits:
        alike = [
            (float(_mean(each) @ visit.probe.embedding), each) for each in groups if _same_model(each, visit)
        ]
        score, best = max(alike, key=lambda pair: pair[0], default=(-1.0, None))
        if best is not None and score >= threshold:
            best.append(visit)
        else:
            groups.append([visit])
    return sorted((Stranger(tuple(each)) for each in groups), key=lambda s: s.visits[-1].at, reverse=True)


def _same_model(group_: Sequence[KeptVisit], visit: KeptVisit) -> bool:
    return group_[0].probe.model_id == visit.probe.model_id


def _mean(visits: Sequence[KeptVisit]) -> FloatArray:
    total = np.sum([visit.probe.embedding for visit in visits], axis=0)
    return np.asarray(total / np.linalg.norm(total), np.float32)


def _binding(visit_id: str, at_ms: int) -> Binding:
    return Binding("visit", visit_id, "", at_ms)


def _plain(visit: KeptVisit) -> bytes:
    q = visit.probe.quality
    document = {
        "camera": visit.camera,
        "model_id": visit.probe.model_id,
        "taken_for": visit.taken_for,
        "quality": [
            float(x) for x in (q.face_px, q.sharpness, q.yaw_deg, q.exposure, q.detector_score, q.weight)
        ],
        "embedding": base64.b64encode(np.ascontiguousarray(visit.probe.embedding, "<f4").tobytes()).decode(),
    }
    return json.dumps(document).encode()


def _visit(plain: bytes, visit_id: str, at_ms: int) -> KeptVisit:
    try:
        said = json.loads(plain)
        embedding = np.frombuffer(base64.b64decode(said["embedding"], validate=True), "<f4").astype(
            np.float32
        )
        face_px, sharpness, yaw_deg, exposure, score, weight = map(float, said["quality"])
        quality = Quality(face_px, sharpness, yaw_deg, exposure, score, weight, None)
        probe = Probe(embedding, str(said["model_id"]), quality)
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        return KeptVisit(visit_id, str(said["camera"]), at, probe, str(said.get("taken_for", "")))
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise GalleryIntegrityError("a kept visit is not what was kept") from None


def _delete(paths: Iterable[Path]) -> int:
    """Shred files, also those after one that cannot be; returns how many.

    Raises:
        FileError: What was wrong with the first that could not be deleted.
    """
    number, failed = 0, None
    for path in paths:
        try:
            files.shred(path)
            number += 1
        except FileError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return number
