"""Visits: evidence about the face of one track, and one decision per visit, never per frame.

Gathers the best shots, fuses them, says when to look again and when to conclude. Embeds nothing, compares
with no gallery: the pipeline brings probes and decisions. All times are monotonic seconds of the frames.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from edge.types import (
    Decision,
    EventType,
    FaceEvent,
    FloatArray,
    Probe,
    Quality,
    Reason,
    Refusal,
    Shots,
    Track,
)

SHOT_GAP_S = 0.12
"""Pause between two shots of a track; neighbouring frames show the same picture and the same error."""

LOOK_AGAIN_S = 1.0
"""Pause between shots of a visit that was not recognised, in case the person comes closer."""

CLOSER = 1.15
"""A rejected face is looked at again once it is this much larger than in its best shot so far."""

SAME_FACE = 0.45
"""Cosine from which two faces on one camera within seconds are one visit.

Source: above the largest cosine seen between two different people in the test clips (.43).
"""

OTHER_FACE = 0.20
"""Cosine to the visit's mean below which a shot shows somebody else; two in a row split the visit."""


@dataclass(frozen=True, slots=True)
class VisitRule:
    """When to conclude a visit: counts of usable shots, and seconds."""

    min_shots: int
    max_shots: int
    patience_s: float
    cooldown_s: float


@dataclass(slots=True, eq=False)
class Visit:
    """One stay of one face before one camera.

    `latest` is the gallery's newest answer on the evidence; `decision` is what was published. `suspect`
    is set when the face of a decided visit was out of sight for a moment: it may be another one now.
    """

    visit_id: str
    track_id: int
    rule: VisitRule
    seen_s: float
    box: FloatArray
    on_track: bool = True
    missed: bool = False
    suspect: bool = False
    seen: int = 0
    used: int = 0
    refused: dict[Refusal, int] = field(default_factory=dict)
    shots: list[Probe] = field(default_factory=list)
    dissent: Probe | None = None
    tried: Quality | None = None
    first_shot_s: float | None = None
    last_look_s: float = -np.inf
    latest: Decision | None = None
    decision: Decision | None = None
    event: FaceEvent | None = None
    revised: bool = False

    def follow(self, track: Track) -> None:
        """Note where the face is in this frame."""
        if track.detection is not None:
            self.suspect = self.suspect or (self.missed and self.decision is not None)
            self.seen += 1
        self.missed = track.detection is None
        self.box, self.seen_s, self.on_track = track.box, track.seen_s, not track.ended

    def wants_shot(self, track: Track, at_s: float) -> bool:
        """Return whether the face of `track` should be looked at in this frame."""
        if track.detection is None:
            return False
        waited_s = at_s - self.last_look_s
        if self.decision is None or self.suspect:
            return waited_s >= SHOT_GAP_S
        best_px = max((shot.quality.face_px for shot in self.shots), default=0.0)
        return self.revisable and waited_s >= LOOK_AGAIN_S and track.detection.size_px >= CLOSER * best_px

    def refuse(self, quality: Quality, at_s: float) -> None:
        """Note a shot that the quality gate refused."""
        if quality.refused is not None:
            self.refused[quality.refused] = self.refused.get(quality.refused, 0) + 1
        if self.decision is not None:
            self.last_look_s = at_s
        if self.tried is None or quality.weight > self.tried.weight:
            self.tried = quality

    def add(self, probe: Probe, at_s: float) -> Probe | None:
        """Take a usable shot as evidence.

        Returns:
            The previous shot, when it and this one agree that somebody else stands here now; else None.
        """
        self.last_look_s = at_s
        self.used += 1
        if self.first_shot_s is None:
            self.first_shot_s = at_s
        if self.shots and float(probe.embedding @ self.mean) < OTHER_FACE:
            other, self.dissent = self.dissent, probe
            agreed = other is not None and float(probe.embedding @ other.embedding) >= OTHER_FACE
            return other if agreed else None
        self.suspect, self.dissent = False, None
        self._keep_best([*self.shots, probe])
        return None

    def forget(self) -> None:
        """Drop the evidence: it was gathered with another embedder."""
        self.shots, self.dissent, self.latest = [], None, None

    def absorb(self, other: "Visit") -> None:
        """Go on as the track of `other`, which turned out to be the same face."""
        self.track_id, self.on_track, self.missed = other.track_id, other.on_track, other.missed
        self.seen_s, self.box, self.last_look_s = other.seen_s, other.box, other.last_look_s
        self.seen += other.seen
        self.used += other.used
        for reason, count in other.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count
        self._keep_best([*self.shots, *other.shots])

    def _keep_best(self, shots: list[Probe]) -> None:
        self.shots = sorted(shots, key=lambda shot: -shot.quality.weight)[: self.rule.max_shots]

    @property
    def mean(self) -> FloatArray:
        """The quality-weighted mean of the best shots, float32 (D,), unit norm."""
        total = sum(shot.quality.weight * shot.embedding for shot in self.shots)
        return np.asarray(total / np.linalg.norm(total), np.float32)

    @property
    def evidence(self) -> Probe | None:
        """The fused probe of the visit with the quality of its best shot, or None without a usable shot."""
        return replace(self.shots[0], embedding=self.mean) if self.shots else None

    @property
    def quality(self) -> Quality | None:
        """The quality of the best shot, usable or not."""
        return self.shots[0].quality if self.shots else self.tried

    @property
    def counts(self) -> Shots:
        """How the visit was seen so far."""
        return Shots(self.used, self.seen, dict(self.refused))

    @property
    def revisable(self) -> bool:
        """Whether a match may still replace what was published: upward, once."""
        published = self.decision is not None and self.decision.event_type != EventType.MATCH
        return published and not self.revised

    def verdict(self, at_s: float) -> Decision | None:
        """Return what to publish now, or None while there is nothing new to say."""
        matched = self.latest is not None and self.latest.event_type == EventType.MATCH
        enough = matched and len(self.shots) >= self.rule.min_shots
        if self.decision is not None:
            return self.latest if enough and self.revisable else None
        if enough:
            return self.latest
        if self.latest is not None and not matched:
            patient_s = at_s - self.first_shot_s if self.first_shot_s is not None else 0.0
            if not self.on_track or self.used >= self.rule.max_shots or patient_s >= self.rule.patience_s:
                return self.latest
        return None if self.on_track else self._no_decision()

    def publish(self, decision: Decision, event: FaceEvent) -> None:
        """Note that `decision` was published as `event`."""
        self.revised = self.decision is not None
        self.decision, self.event = decision, event

    def _no_decision(self) -> Decision:
        """Conclude a visit that ended without enough usable shots: a failure to acquire, not a reject."""
        small = 2 * self.refused.get(Refusal.SIZE, 0) > sum(self.refused.values()) and not self.shots
        reason = Reason.TOO_SMALL if small else Reason.LOW_QUALITY
        return Decision(EventType.NO_DECISION, reason, None, self.latest.score if self.latest else None)


class Presence:
    """The visits before one camera. `new_id` names a visit."""

    def __init__(self, rule: VisitRule, new_id: Callable[[], str]) -> None:
        self._rule = rule
        self._new_id = new_id
        self._visits: list[Visit] = []

    def use(self, rule: VisitRule) -> None:
        """Conclude visits that begin from now on by another rule."""
        self._rule = rule

    @property
    def visits(self) -> list[Visit]:
        """The visits that have not ended, those that have just gone out of sight included."""
        return self._visits

    @property
    def undecided(self) -> bool:
        """Whether somebody in sight still waits for a decision."""
        return any(visit.on_track and visit.decision is None for visit in self._visits)

    def follow(self, tracks: list[Track]) -> list[tuple[Visit, Track]]:
        """Carry the tracks of a frame into their visits; a new track begins one."""
        visits = {visit.track_id: visit for visit in self._visits if visit.on_track}
        pairs = []
        for track in tracks:
            visit = visits.get(track.track_id)
            if visit is None:
                if track.ended:
                    continue
                visit = self._begin(track.track_id, track.seen_s, track.box)
            visit.follow(track)
            pairs.append((visit, track))
        return pairs

    def add(self, visit: Visit, probe: Probe, at_s: float) -> Visit:
        """Give a usable shot to `visit`; returns the visit that it turned out to belong to.

        A face that replaced another one on the same track begins a visit of its own; a face that was here
        a moment ago, on a track that broke, goes on with its old one.
        """
        previous = visit.add(probe, at_s)
        if previous is not None:
            visit.on_track = False
            visit = self._begin(visit.track_id, at_s, visit.box)
            visit.add(previous, at_s)
            visit.add(probe, at_s)
        for other in self._visits:
            gone = not other.on_track and other.shots
            if gone and visit.decision is None and float(other.mean @ visit.mean) >= SAME_FACE:
                self._visits.remove(visit)
                other.absorb(visit)
                return other
        return visit

    def conclude(self, at_s: float) -> Iterator[tuple[Visit, Decision | None]]:
        """Yield each visit that has something to say with its decision, or None for one that has ended.

        The caller publishes and calls `publish` on the visit before going on.
        """
        for visit in list(self._visits):
            decision = visit.verdict(at_s)
            if decision is not None and not self._continues(visit, decision):
                yield visit, decision
            if not visit.on_track and at_s - visit.seen_s >= visit.rule.cooldown_s and visit in self._visits:
                self._visits.remove(visit)
                yield visit, None

    def leave(self) -> None:
        """End all tracks at once: the camera is gone or the clip is over."""
        for visit in self._visits:
            visit.on_track = False
            visit.seen_s = -np.inf

    def _continues(self, visit: Visit, decision: Decision) -> bool:
        """Whether the subject was matched here a moment ago, so that this is still the same visit."""
        if decision.event_type != EventType.MATCH or decision.subject is None:
            return False
        for other in self._visits:
            known = other.decision.subject if other.decision else None
            if other is not visit and not other.on_track and known == decision.subject:
                self._visits.remove(visit)
                other.absorb(visit)
                return True
        return False

    def _begin(self, track_id: int, at_s: float, box: FloatArray) -> Visit:
        visit = Visit(self._new_id(), track_id, self._rule, at_s, box)
        self._visits.append(visit)
        return visit
