"""The candidate, the gallery and embedder that may be switched to, compared with what is in force.

The candidate embeds the same shots of a share of the visits and decides nothing. How often it would have
decided the same is counted. A candidate that fails is given up, and nothing else changes. The state is that
of one camera.
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

AGREED, DIFFERED, FAILED = "candidate.agreed", "candidate.differed", "candidate.failed"
"""Counters of visits that both decided alike or not, and of candidates that were given up."""

BEFORE = "shadow"
"""How the last release called the candidate in counters and stages; both names are told with this release."""

MAX_VISITS = 64
"""Visits whose shots are kept, more than people stand before a door. The oldest go: nobody tells of a visit
that ends undecided."""


class CandidateComparison:
    """Keeps what the candidate makes of the shots of undecided visits. Used by the pipeline's thread."""

    def __init__(self, camera: str, metrics: Metrics) -> None:
        self._camera = camera
        self._metrics = metrics
        self._shots: dict[str, list[Probe]] = {}
        self._unable: ModelStamp | None = None  # what failed, until another model or gallery comes

    def look(self, frame: Frame, visit: Visit, face: AlignedFace, recognizer: Recognizer) -> None:
        """Embed a shot of an undecided visit, if it belongs to the share that is tried."""
        candidate = self._tried(recognizer)
        if candidate is None or visit.decision is not None:
            return
        if not crc32(visit.visit_id.encode()) < recognizer.candidate_share * 2**32:
            return
        try:
            with self._metrics.timed("candidate") as watch:
                probe = candidate.embed(candidate.realign(frame.image, face))
            self._metrics.record_ms(BEFORE, watch.spent_ms)
        except EdgeError as error:
            self._give_up(candidate, error)
            return
        while len(self._shots) >= MAX_VISITS:
            del self._shots[next(iter(self._shots))]
        shots = [*self._shots.pop(visit.visit_id, ()), probe]
        shots = [shot for shot in shots if shot.model_id == probe.model_id]
        best = sorted(shots, key=lambda shot: -shot.quality.weight)
        self._shots[visit.visit_id] = best[: visit.rule.max_shots]

    def compare(self, visit: Visit, decision: Decision, at: datetime, recognizer: Recognizer) -> None:
        """Count whether the candidate would have decided a visit alike, at its first decision."""
        shots = self._shots.pop(visit.visit_id, None)
        candidate = self._tried(recognizer)
        if shots is None or candidate is None or shots[0].model_id != candidate.embedder.model_id:
            return
        if visit.decision is not None or decision.event_type not in (EventType.MATCH, EventType.REJECT):
            return
        try:
            other = candidate.identify(replace(shots[0], embedding=fused(shots)), at)
        except EdgeError as error:
            self._give_up(candidate, error)
            return
        same = (other.event_type, other.subject and other.subject.subject_id) == (
            decision.event_type,
            decision.subject and decision.subject.subject_id,
        )
        self._count(AGREED if same else DIFFERED)

    def _tried(self, recognizer: Recognizer) -> Recognizer | None:
        """Return the candidate, unless it has failed here before."""
        candidate = recognizer.candidate
        return None if candidate is None or candidate.stamp == self._unable else candidate

    def _count(self, name: str) -> None:
        self._metrics.count(name)
        self._metrics.count(name.replace("candidate", BEFORE, 1))

    def _give_up(self, candidate: Recognizer, error: EdgeError) -> None:
        """Use a candidate no more, and say so once: a failure per shot would say nothing new."""
        self._unable = candidate.stamp
        self._shots.clear()
        self._count(FAILED)
        log.error("the candidate is given up: %s", error, extra={"camera": self._camera})
