"""One stay of one face before one camera: its best shots, what they say together, and when that is certain.

Embeds nothing, compares with no gallery: the pipeline brings probes and decisions. All times are monotonic
seconds of the frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge.core.types import (
    Decision,
    Detection,
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
"""Pause between shots of a visit that was not recognised, in case the person comes closer, and the longest
one before a face whose shots are refused."""

DENSE_TRIES = 10
"""Refused shots in a row without a pause; then each pause is twice the one before, as long as the face keeps
still: a poster or a face out of focus costs a look a second, who walks up is looked at in every frame."""

STIRRED = 0.15
"""A face has moved, turned or grown when one of its landmarks is this far from where it was, in face sizes.

Measured: on still faces of 60 and 120 px, sharp or blurred beyond use, sensor noise of 8 grey levels moves
them by .09 at most."""

CLOSER = 1.15
"""A rejected face is looked at again once it is this much larger than in its best shot so far."""

STILL_LOOK_S = 2.0
"""Longest pause between looks at a decided face that keeps its place; each is twice the one before."""

UNSEEN_S = 0.8
"""A face that nobody looked at for this long may be another one now: slow cameras, many cameras."""

OTHER_FACE = 0.20
"""Cosine to the visit's mean below which a shot shows somebody else; two in a row split the visit.

It holds while a face is followed without a gap and is undecided. Where somebody else may have taken its
place, a shot has to agree (`DecisionRule.agrees_from`): 11 % of pairs of different people reach this one.
"""


def fused(shots: Sequence[Probe]) -> FloatArray:
    """Return the quality-weighted mean of the embeddings of one or more shots, float32 (D,), unit norm."""
    total = sum(shot.quality.weight * shot.embedding for shot in shots)
    return np.asarray(total / np.linalg.norm(total), np.float32)


def _apart(face: Detection, landmarks: FloatArray) -> float:
    """Return how far the landmarks of a face are from others (5, 2) at most, in face sizes."""
    return float(np.abs(face.landmarks - landmarks).max()) / max(1.0, face.size_px)


@dataclass(frozen=True, slots=True)
class VisitRule:
    """When to conclude a visit: counts of usable shots, and seconds.

    `live_from` in (0, 1] is the liveness below which a match is a spoof; None: a face need not be alive.
    """

    min_shots: int
    max_shots: int
    patience_s: float
    cooldown_s: float
    live_from: float | None = None


@dataclass(slots=True, eq=False)
class Visit:
    """One stay of one face before one camera.

    `vain` counts the shots refused in a row while the face kept its place, `refused_at`, landmarks (5, 2);
    `pause_s` is how long to wait before the next look. `latest` is the gallery's newest answer on the
    evidence, and `disagreeing` counts the shots that are not alike to its subject; `unasked` is set while
    there is evidence that it does not know. `decision` is what was published, `matched_s` when its subject
    was recognised last. `suspect` is set when the face was out of sight for a moment, or a look at a decided
    visit showed another one. `looked_at`, landmarks (5, 2), and `look_pause_s` belong to these looks.
    `agrees_from` is the cosine from which a shot agrees with a face (`DecisionRule.agrees_from`).
    `split` is set where the face took over the track of another one. `same_as` is the visit of the same
    subject that was told in the place of this one. `judged` is the quality of the last shot, usable or not.
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
    pause_s: float = 0.0
    vain: int = 0
    refused_at: FloatArray | None = None
    latest: Decision | None = None
    disagreeing: int = 0
    unasked: bool = False
    decision: Decision | None = None
    event: FaceEvent | None = None
    revised: bool = False
    began_s: float = 0.0
    matched_s: float | None = None
    looked_at: FloatArray | None = None
    look_pause_s: float = LOOK_AGAIN_S
    agrees_from: float = OTHER_FACE
    split: bool = False
    same_as: "Visit | None" = None
    judged: Quality | None = None

    def follow(self, track: Track) -> None:
        """Note where the face is in this frame."""
        if track.detection is not None:
            unseen = self.missed or track.seen_s - self.seen_s > UNSEEN_S
            self.suspect = self.suspect or (unseen and (self.decision is not None or bool(self.shots)))
            self.seen += 1
        self.missed = track.detection is None and (track.searched or self.missed)
        self.box, self.seen_s, self.on_track = track.box, track.seen_s, not track.ended

    def wants_shot(self, track: Track, at_s: float) -> bool:
        """Return whether the face of `track` should be looked at in this frame."""
        if track.detection is None:
            return False
        waited_s = at_s - self.last_look_s
        if self.decision is None or self.suspect:
            return waited_s >= self.pause_s or (waited_s >= SHOT_GAP_S and self._stirred(track))
        if waited_s < LOOK_AGAIN_S or not self.revisable:
            return False
        best_px = max((shot.quality.face_px for shot in self.shots), default=0.0)
        return track.detection.size_px >= CLOSER * best_px

    def wants_look(self, track: Track, at_s: float) -> bool:
        """Return whether it is time to see if the face of `track` is still that of this decided visit."""
        if track.detection is None or self.decision is None or self.suspect or not self.shots:
            return False
        waited_s = at_s - self.last_look_s
        if waited_s < LOOK_AGAIN_S:
            return False
        still = self.looked_at is not None and _apart(track.detection, self.looked_at) < STIRRED
        return waited_s >= self.look_pause_s or not still

    def look(self, face: Detection, probe: Probe | None, at_s: float) -> None:
        """Note a look at the `face` of a decided visit, which is no evidence; `probe`: None where refused.

        A face that does not agree with the visit makes it suspect: two shots then say whether it is another.
        """
        still = self.looked_at is not None and _apart(face, self.looked_at) < STIRRED
        self.look_pause_s = min(STILL_LOOK_S, 2 * self.look_pause_s) if still else LOOK_AGAIN_S
        self.looked_at, self.last_look_s = face.landmarks, at_s
        self.judged = probe.quality if probe is not None else self.judged
        if probe is not None and not float(probe.embedding @ self.mean) >= self.agrees_from:
            self.suspect, self.pause_s = True, SHOT_GAP_S

    def due(self, at_s: float) -> bool:
        """Return whether an undecided face should be searched for now, even if nothing moves."""
        waited = self.missed or at_s - self.last_look_s >= self.pause_s
        return self.on_track and self.decision is None and waited

    def refuse(self, quality: Quality, face: Detection, at_s: float) -> None:
        """Note a shot of `face` that the quality gate refused, and look less often while nothing changes."""
        self.judged = quality
        if quality.refused is not None:
            self.refused[quality.refused] = self.refused.get(quality.refused, 0) + 1
        if self.refused_at is None or _apart(face, self.refused_at) >= STIRRED:
            self.vain, self.refused_at = 0, face.landmarks
        self.vain += 1
        least_s = SHOT_GAP_S if self.decision is not None or quality.refused == Refusal.LIVENESS else 0.0
        grown_s = SHOT_GAP_S * 2.0 ** min(self.vain - DENSE_TRIES, 16) if self.vain >= DENSE_TRIES else 0.0
        self.last_look_s, self.pause_s = at_s, max(least_s, min(LOOK_AGAIN_S, grown_s))
        if self.tried is None or quality.weight > self.tried.weight:
            self.tried = quality

    def add(self, probe: Probe, at_s: float) -> Probe | None:
        """Take a usable shot as evidence; one of a suspect or decided visit has to agree with the others.

        Returns:
            The previous shot, when it and this one agree that somebody else stands here now; else None.
        """
        self.last_look_s, self.pause_s, self.vain, self.refused_at = at_s, SHOT_GAP_S, 0, None
        self.used, self.judged = self.used + 1, probe.quality
        if self.first_shot_s is None:
            self.first_shot_s = at_s
        decided = self.decision is not None
        least = self.agrees_from if self.suspect or decided else OTHER_FACE
        if self.shots and float(probe.embedding @ self.mean) < least:
            other, self.dissent, self.suspect = self.dissent, probe, self.suspect or decided
            if other is not None and float(probe.embedding @ other.embedding) >= least:
                return other
            if other is not None and decided:
                self.pause_s = LOOK_AGAIN_S
            return None
        self.suspect, self.dissent = False, None
        self._keep_best([*self.shots, probe])
        return None

    def forget(self) -> None:
        """Drop the evidence: it was gathered with another embedder."""
        self.shots, self.dissent, self.latest, self.disagreeing = [], None, None, 0

    def absorb(self, other: "Visit") -> None:
        """Go on as the track of `other`, which turned out to be the same face."""
        self.track_id, self.on_track, self.missed = other.track_id, other.on_track, other.missed
        self.seen_s, self.box, self.last_look_s = other.seen_s, other.box, other.last_look_s
        self.pause_s, self.vain, self.refused_at = other.pause_s, other.vain, other.refused_at
        self.looked_at, self.look_pause_s = None, LOOK_AGAIN_S
        self.seen += other.seen
        self.used += other.used
        for reason, count in other.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count
        self._keep_best([*self.shots, *other.shots])

    def _stirred(self, track: Track) -> bool:
        """Return whether the face is not any more where its last shots were refused."""
        if track.detection is None or self.refused_at is None:
            return False
        return _apart(track.detection, self.refused_at) >= STIRRED

    def _keep_best(self, shots: list[Probe]) -> None:
        self.unasked = True
        self.shots = sorted(shots, key=lambda shot: -shot.quality.weight)[: self.rule.max_shots]

    @property
    def mean(self) -> FloatArray:
        """The quality-weighted mean of the majority of the best shots, float32 (D,), unit norm."""
        return fused(self.majority)

    @property
    def evidence(self) -> Probe | None:
        """The fused probe of the visit with the quality of its best shot, or None without a usable shot."""
        return replace(self.shots[0], embedding=self.mean, liveness=self.liveness) if self.shots else None

    @property
    def liveness(self) -> float | None:
        """The mean liveness of the best shots, weighted as their embeddings are, in [0, 1].

        None without a shot, or with one whose liveness was not measured.
        """
        scores = [(shot.quality.weight, shot.liveness) for shot in self.shots if shot.liveness is not None]
        if not scores or len(scores) < len(self.shots):
            return None
        return sum(weight * score for weight, score in scores) / sum(weight for weight, _ in scores)

    @property
    def quality(self) -> Quality | None:
        """The quality of the best shot, usable or not."""
        return self.shots[0].quality if self.shots else self.tried

    @property
    def counts(self) -> Shots:
        """How the visit was seen so far."""
        return Shots(self.used, self.seen, dict(self.refused))

    def answer(self, latest: Decision, agreeing: int) -> None:
        """Take the gallery's answer on the evidence; `agreeing` shots are each alike to its subject."""
        self.latest, self.disagreeing, self.unasked = latest, len(self.shots) - agreeing, False

    @property
    def of_one_face(self) -> bool:
        """Whether all shots agree with each other: whatever their mean is like, it is one face's."""
        rows = np.stack([shot.embedding for shot in self.shots])
        return bool((rows @ rows.T >= self.agrees_from).all())

    @property
    def majority(self) -> list[Probe]:
        """The shots that agree with the mean of the others; all where there are fewer than three.

        A face that was there for one shot does not pull the mean of who came after it.
        """
        if len(self.shots) < 3:
            return self.shots
        rows = np.stack([shot.quality.weight * shot.embedding for shot in self.shots])
        others = rows.sum(axis=0) - rows
        cosines = [
            float(shot.embedding @ other) / max(1e-9, float(np.linalg.norm(other)))
            for shot, other in zip(self.shots, others, strict=True)
        ]
        kept = [s for s, cosine in zip(self.shots, cosines, strict=True) if cosine >= self.agrees_from]
        return kept if len(kept) > 1 else self.shots

    @property
    def revisable(self) -> bool:
        """Whether a match may still replace what was published: upward, once, and never a spoof."""
        final = (EventType.MATCH, EventType.SPOOF)
        return self.decision is not None and self.decision.event_type not in final and not self.revised

    def verdict(self, at_s: float) -> Decision | None:
        """Return what to publish now, or None while there is nothing new to say."""
        matched = self.latest is not None and self.latest.event_type == EventType.MATCH
        if self.latest is not None and matched and len(self.shots) - self.disagreeing >= self.rule.min_shots:
            if self.decision is None or self.revisable:
                return self.if_alive(self.latest, at_s)
            return None
        if self.decision is not None:
            return None
        if self.latest is not None and self._exhausted(at_s):
            if not matched:
                return self.latest
            if len(self.shots) >= self.rule.min_shots:  # alike to the subject together, but not each of them
                return Decision(EventType.REJECT, Reason.AMBIGUOUS, None, self.latest.score)
        return None if self.on_track else self._no_decision()

    def publish(self, decision: Decision, event: FaceEvent) -> None:
        """Note that `decision` was published as `event`."""
        self.revised = self.decision is not None
        self.decision, self.event = decision, event

    def _exhausted(self, at_s: float) -> bool:
        """Return whether nothing more is to be waited for: shots used up, patience over, or the face gone."""
        patient_s = at_s - self.first_shot_s if self.first_shot_s is not None else 0.0
        return not self.on_track or self.used >= self.rule.max_shots or patient_s >= self.rule.patience_s

    def if_alive(self, match: Decision, at_s: float) -> Decision | None:
        """Return a match as it is, or as a spoof where the face is not alive; None: look again first.

        A face that is alive in every shot does not wait. One doubtful shot ends that: then the mean of all
        shots decides, once, when they are used up. So a picture has two tries per visit however long it is
        held up, and a live face whose first shots were poor is not turned away for them. Simulated (scores of
        pictures .4 and of live faces .8, both +-.2, independent, needed .6, 2 to 6 shots): 3.0 % of pictures
        and 99.4 % of live faces pass; by the mean of the first two shots 7.8 and 92.0 %, by a running mean
        that may pass at any shot 9.8 and 99.7 %.
        """
        needed = self.rule.live_from
        # Compared so that NaN and infinity are not alive, like what was not measured.
        if needed is None or all(needed <= (shot.liveness or 0.0) <= 1 for shot in self.shots):
            return match
        if not self._exhausted(at_s):
            return None
        if needed <= (self.liveness or 0.0) <= 1:
            return match
        return Decision(EventType.SPOOF, Reason.SPOOF, None, match.score)

    def _no_decision(self) -> Decision:
        """Conclude a visit that ended without enough usable shots: a failure to acquire, not a reject.

        Fewer looks than a match needs are too few, however good they were.
        """
        refused = sum(self.refused.values())
        reason = Reason.LOW_QUALITY
        if 2 * self.refused.get(Refusal.SIZE, 0) > refused and not self.shots:
            reason = Reason.TOO_SMALL
        elif not refused or self.used + refused < self.rule.min_shots:
            reason = Reason.TOO_FEW_LOOKS
        return Decision(EventType.NO_DECISION, reason, None, self.latest.score if self.latest else None)
