"""Visits: evidence about the face of one track, and one decision per visit, never per frame.

Says which visit a track or a shot belongs to, and lets the visits conclude. All times are monotonic seconds
of the frames.
"""

from collections.abc import Callable, Iterator

import numpy as np

from edge.core.types import Decision, EventType, FloatArray, Probe, Track
from edge.recognition.visit import Visit, VisitRule

SAME_FACE = 0.45
"""Cosine from which two faces on one camera within seconds are one visit.

Source: above the largest cosine seen between two different people in the test clips (.43).
"""


class Presence:
    """The visits before one camera. `new_id` names a visit."""

    def __init__(self, rule: VisitRule, new_id: Callable[[], str]) -> None:
        self.rule = rule
        self._new_id = new_id
        self._visits: list[Visit] = []
        self.agrees_from = SAME_FACE
        """The cosine from which one shot agrees with a face, of the embedder in use."""

    def use(self, rule: VisitRule) -> None:
        """Conclude visits that begin from now on by another rule."""
        self.rule = rule

    @property
    def visits(self) -> list[Visit]:
        """The visits that have not ended, those that have just gone out of sight included."""
        return self._visits

    def due(self, at_s: float) -> bool:
        """Return whether somebody in sight is undecided and should be looked at now."""
        return any(visit.due(at_s) for visit in self._visits)

    def follow(self, tracks: list[Track]) -> list[tuple[Visit, Track]]:
        """Carry the tracks of a frame into their visits; a face on a track without one begins it."""
        visits = {visit.track_id: visit for visit in self._visits if visit.on_track}
        pairs = []
        for track in tracks:
            visit = visits.get(track.track_id)
            if visit is None:
                if track.detection is None:
                    continue
                visit = self._begin(track.track_id, track.seen_s, track.box)
            visit.follow(track)
            pairs.append((visit, track))
        return pairs

    def glimpse(self, track: Track) -> None:
        """Begin a visit of a face that is gone and was hardly seen, unless there are other visits.

        Who walks by too fast to be followed is seen as several faces.
        """
        if not self._visits:
            visit = self._begin(track.track_id, track.seen_s, track.box)
            visit.seen, visit.on_track = track.hits, False

    def add(self, visit: Visit, probe: Probe, at_s: float) -> Visit:
        """Give a usable shot to `visit`; returns the visit that it turned out to belong to.

        A face that replaced another one on the same track begins a visit of its own; a face that was here
        a moment ago, on a track that broke, goes on with its old one.
        """
        visit.agrees_from = self.agrees_from
        previous = visit.add(probe, at_s)
        if previous is not None:
            visit.on_track = False
            visit = self._begin(visit.track_id, at_s, visit.box)
            visit.split = True
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
        self._join()
        for visit in list(self._visits):
            if visit.same_as is not None:
                continue
            decision = visit.verdict(at_s)
            if decision is not None and not self.continues(visit, decision, at_s):
                yield visit, decision
                if visit.decision is not None and visit.decision.event_type == EventType.MATCH:
                    visit.matched_s = at_s
            if not visit.on_track and at_s - visit.seen_s >= visit.rule.cooldown_s and visit in self._visits:
                self._visits.remove(visit)
                yield visit, None

    def leave(self) -> None:
        """End all tracks at once: the camera is gone or the clip is over."""
        for visit in self._visits:
            visit.on_track = False
            visit.seen_s = -np.inf

    def continues(self, visit: Visit, decision: Decision, at_s: float) -> bool:
        """Take a match for one that was told already, where that is so; returns whether it was.

        The subject was matched here a moment ago, and its face is no longer where it was: the visit goes on.
        Its face is still there: two tracks show one subject, a person and a picture or mirror image, or
        tracks that were mixed up. One is told. Who comes later than `cooldown_s` after that, on a track of
        its own, is told anyway: a picture that hangs there locks nobody out.
        A rejection of the same subject (outside its hours) was another answer: the match has to be told.
        """
        if decision.event_type != EventType.MATCH or decision.subject is None:
            return False
        for other in self._visits:
            told = other.decision
            if other is visit or other.same_as is not None or told is None:
                continue
            if told.event_type != EventType.MATCH or told.subject != decision.subject:
                continue
            if not other.on_track or other.missed:
                self._visits.remove(visit)
                other.absorb(visit)
            elif visit.split or visit.began_s <= (other.matched_s or at_s) + visit.rule.cooldown_s:
                visit.same_as, visit.decision, visit.event = other, decision, other.event
            else:
                continue
            other.matched_s = at_s
            return True
        return False

    def _join(self) -> None:
        """Let visits that were told and whose face is gone go on as those of the same subject that stay."""
        for visit in [visit for visit in self._visits if visit.same_as is not None]:
            told = visit.same_as
            if told is None or (visit.on_track and told.on_track):
                continue
            self._visits.remove(visit)
            if visit.on_track and told in self._visits:
                told.absorb(visit)

    def _begin(self, track_id: int, at_s: float, box: FloatArray) -> Visit:
        visit = Visit(
            self._new_id(), track_id, self.rule, at_s, box, began_s=at_s, agrees_from=self.agrees_from
        )
        self._visits.append(visit)
        return visit
