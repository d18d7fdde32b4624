"""A second opinion that decides nothing: the embedder to switch to, tried on a share of the visits.

Sees the same shots as the embedder in force and is held against its decisions; what comes of it is counted.
One that fails is given up and changes nothing else. State of one camera, like `pipeline`, which calls it.
"""

import logging
from dataclasses import replace
from datetime import datetime
from zlib import crc32

from edge.core.errors import EdgeError
from edge.core.metrics import Metrics
from edge.core.types import AlignedFace, Decision, EventType, Frame, ModelStamp, Probe
from edge.recognition.recognizer import Recognizer
from edge.recognition.visit import Visit, fused

log = logging.getLogger(__name__)

AGREED, DIFFERED, FAILED = "shadow.agreed", "shadow.differed", "shadow.failed"

MAX_VISITS = 64
"""More people than ever stand before a door at once; visits that end undecided are not told of here."""


class Shadow:
    """Shots of undecided visits, embedded a second time. Used by the pipeline's thread."""

    def __init__(self, camera: str, metrics: Metrics) -> None:
        self._camera = camera
        self._metrics = metrics
        self._shots: dict[str, list[Probe]] = {}
        self._unable: ModelStamp | None = None  # what failed, until another model or gallery comes

    def look(self, frame: Frame, visit: Visit, face: AlignedFace, recognizer: Recognizer) -> None:
        """Embed a shot of a visit that is tried, as long as it is undecided."""
        beside = self._tried(recognizer)
        if beside is None or visit.decision is not None:
            return
        if not crc32(visit.visit_id.encode()) < recognizer.shadow_share * 2**32:
            return
        try:
            with self._metrics.timed("shadow"):
                probe = beside.embed(beside.realign(frame.image, face))
        except EdgeError as error:
            self._give_up(beside, error)
            return
        while len(self._shots) >= MAX_VISITS:
            del self._shots[next(iter(self._shots))]
        shots = [*self._shots.pop(visit.visit_id, ()), probe]
        shots = [shot for shot in shots if shot.model_id == probe.model_id]
        best = sorted(shots, key=lambda shot: -shot.quality.weight)
        self._shots[visit.visit_id] = best[: visit.rule.max_shots]

    def compare(self, visit: Visit, decision: Decision, at: datetime, recognizer: Recognizer) -> None:
        """Count whether the other embedder would have said the same of a visit, at its first decision."""
        shots = self._shots.pop(visit.visit_id, None)
        beside = self._tried(recognizer)
        if shots is None or beside is None or shots[0].model_id != beside.embedder.model_id:
            return
        if visit.decision is not None or decision.event_type not in (EventType.MATCH, EventType.REJECT):
            return
        try:
            other = beside.identify(replace(shots[0], embedding=fused(shots)), at)
        except EdgeError as error:
            self._give_up(beside, error)
            return
        same = (other.event_type, other.subject and other.subject.subject_id) == (
            decision.event_type,
            decision.subject and decision.subject.subject_id,
        )
        self._metrics.count(AGREED if same else DIFFERED)

    def _tried(self, recognizer: Recognizer) -> Recognizer | None:
        """Return what is tried beside, unless it has failed here before."""
        beside = recognizer.beside
        return None if beside is None or beside.stamp == self._unable else beside

    def _give_up(self, beside: Recognizer, error: EdgeError) -> None:
        """Try it no more, and say so once: a failure per shot would say nothing new."""
        self._unable = beside.stamp
        self._shots.clear()
        self._metrics.count(FAILED)
        log.error("what is tried beside is given up: %s", error, extra={"camera": self._camera})
