"""Visits: when a decision falls, when it is revised, when two tracks are one visit and one track is two."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import numpy as np
import pytest

from edge.core.types import (
    Decision,
    Detection,
    EventType,
    FaceEvent,
    ModelStamp,
    Probe,
    Quality,
    Reason,
    Refusal,
    Score,
    Shots,
    Subject,
    Track,
)
from edge.recognition.presence import Presence
from edge.recognition.visit import LOOK_AGAIN_S, SHOT_GAP_S, Visit, VisitRule

RULE = VisitRule(min_shots=2, max_shots=5, patience_s=3.0, cooldown_s=3.0)
ALICE = Subject("p_alice", "Alice")
BOB = Subject("p_bob", "Bob")


def face(who: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A unit vector for person `who`; noise turns it away, so that shots of one person differ a little."""
    vector = np.zeros(128, np.float32)
    vector[who] = 1
    vector += noise * np.random.default_rng(seed).normal(size=128).astype(np.float32) / np.sqrt(128)
    return vector / np.linalg.norm(vector)


def quality(weight: float = 0.5, px: float = 80, refused: Refusal | None = None) -> Quality:
    return Quality(px, 0.8, 0.0, 1.0, 0.9, weight, refused)


def probe(who: int, weight: float = 0.5, px: float = 80, seed: int = 0) -> Probe:
    return Probe(face(who, 0.3, seed), "m@1", quality(weight, px))


def track(track_id: int, at_s: float, *, ended: bool = False, seen: bool = True, px: float = 80) -> Track:
    box = np.array([100, 100, 100 + px, 100 + px], np.float32)
    detection = Detection(box, np.zeros((5, 2), np.float32), 0.9) if seen and not ended else None
    return Track(track_id, detection, box, 0.0, at_s, 5, ended)


def decision(event_type: EventType, subject: Subject | None = None) -> Decision:
    reason = None if event_type == EventType.MATCH else Reason.BELOW_THRESHOLD
    return Decision(event_type, reason, subject, Score(0.6, 0.1, 0.4, 0.05, 0.001, 10))


MATCH_ALICE = decision(EventType.MATCH, ALICE)
MATCH_BOB = decision(EventType.MATCH, BOB)
REJECT = decision(EventType.REJECT)


def event(number: int, visit: Visit, made: Decision) -> FaceEvent:
    return FaceEvent(
        event_id=f"e{number}",
        event_type=made.event_type,
        camera="front",
        visit=visit.visit_id,
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        monotonic_s=0.0,
        subject=made.subject,
        reason=made.reason,
        score=made.score,
        shots=Shots(1, 1),
        quality=None,
        box=None,
        model=ModelStamp("m", "0", 1),
        latency=None,
    )


class Door:
    """Presence at one camera with a clock and a record of what was published."""

    def __init__(self, rule: VisitRule = RULE) -> None:
        numbers = count(1)
        self.presence = Presence(rule, lambda: f"v{next(numbers)}")
        self.told: list[tuple[str, str, str | None]] = []
        self.visits: dict[int, Visit] = {}

    def frame(self, at_s: float, *tracks: Track) -> None:
        for visit, seen in self.presence.follow(list(tracks)):
            self.visits[seen.track_id] = visit
        self.conclude(at_s)

    def shot(self, track_id: int, at_s: float, shown: Probe, answer: Decision) -> None:
        visit = self.presence.add(self.visits[track_id], shown, at_s)
        self.visits[track_id] = visit
        visit.latest = answer
        self.conclude(at_s)

    def conclude(self, at_s: float) -> None:
        for visit, made in self.presence.conclude(at_s):
            if made is None:
                self.told.append((visit.visit_id, "left", None))
                continue
            visit.publish(made, event(len(self.told), visit, made))
            self.told.append(
                (visit.visit_id, made.event_type, made.subject.subject_id if made.subject else None)
            )


@pytest.fixture
def door() -> Door:
    return Door()


def test_a_known_face_is_matched_as_soon_as_enough_shots_agree(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    assert door.told == []
    door.shot(1, 0.2, probe(0, seed=1), MATCH_ALICE)
    assert door.told == [("v1", "match", "p_alice")]


def test_a_visit_is_decided_once_however_long_it_lasts(door: Door):
    for i in range(100):
        at_s = i / 10
        door.frame(at_s, track(1, at_s))
        if door.visits[1].wants_shot(track(1, at_s), at_s):
            door.shot(1, at_s, probe(0, seed=i), MATCH_ALICE)
    assert door.told == [("v1", "match", "p_alice")]
    assert door.visits[1].used == 2


def test_a_stranger_is_rejected_only_when_the_shots_are_used_up(door: Door):
    door.frame(0.0, track(1, 0.0))
    for i in range(RULE.max_shots):
        assert door.told == []
        door.shot(1, i * SHOT_GAP_S, probe(7, seed=i), REJECT)
    assert door.told == [("v1", "reject", None)]


def test_a_stranger_is_rejected_when_patience_ends(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(7), REJECT)
    door.frame(RULE.patience_s - 0.1, track(1, RULE.patience_s - 0.1))
    assert door.told == []
    door.frame(RULE.patience_s, track(1, RULE.patience_s))
    assert door.told == [("v1", "reject", None)]


def test_a_stranger_is_rejected_when_the_track_ends(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(7), REJECT)
    door.frame(1.0, track(1, 0.2, ended=True))
    assert door.told == [("v1", "reject", None)]


def test_a_visit_without_a_usable_shot_is_no_decision_and_says_why(door: Door):
    door.frame(0.0, track(1, 0.0))
    for _ in range(3):
        door.visits[1].refuse(quality(refused=Refusal.SIZE, px=20), track(1, 0.0).detection, 0.0)
    door.frame(10.0, track(1, 10.0))
    assert door.told == []
    door.presence.leave()
    door.frame(11.0)
    assert door.told == [("v1", "no_decision", None), ("v1", "left", None)]
    assert door.visits[1].decision.reason == Reason.TOO_SMALL


def test_one_matching_shot_alone_is_not_enough_even_at_the_end(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    door.frame(1.0, track(1, 0.2, ended=True))
    assert door.told == [("v1", "no_decision", None)]


def test_somebody_rejected_from_afar_is_revised_upward_once(door: Door):
    door.frame(0.0, track(1, 0.0))
    for i in range(RULE.max_shots):
        door.shot(1, i * SHOT_GAP_S, probe(0, px=40, weight=0.2, seed=i), REJECT)
    near = track(1, 5.0, px=120)
    assert door.visits[1].wants_shot(near, 5.0)
    door.shot(1, 5.0, probe(0, px=120, weight=0.9), MATCH_ALICE)
    assert door.told == [("v1", "reject", None), ("v1", "match", "p_alice")]
    assert door.visits[1].revised
    assert not door.visits[1].wants_shot(track(1, 9.0, px=200), 9.0)


def test_a_rejected_face_that_comes_no_closer_costs_no_embedding(door: Door):
    door.frame(0.0, track(1, 0.0))
    for i in range(RULE.max_shots):
        door.shot(1, i * SHOT_GAP_S, probe(7, px=80, seed=i), REJECT)
    assert not door.visits[1].wants_shot(track(1, 60.0, px=82), 60.0)
    assert door.visits[1].wants_shot(track(1, 60.0, px=100), 60.0)
    assert not door.visits[1].wants_shot(track(1, 0.5, px=100), 0.5 * LOOK_AGAIN_S)


def test_a_match_is_never_revised_to_another_name(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    door.shot(1, 0.2, probe(0, seed=1), MATCH_ALICE)
    door.shot(1, 0.4, probe(0, seed=2), MATCH_BOB)
    assert door.told == [("v1", "match", "p_alice")]


def test_left_follows_once_after_the_cool_down(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    door.shot(1, 0.2, probe(0, seed=1), MATCH_ALICE)
    door.frame(1.2, track(1, 0.2, ended=True))
    door.frame(3.1)
    assert door.told[-1][1] == "match"
    door.frame(3.2)
    door.frame(9.0)
    assert door.told == [("v1", "match", "p_alice"), ("v1", "left", None)]


def test_a_broken_track_is_stitched_to_its_visit(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    door.shot(1, 0.2, probe(0, seed=1), MATCH_ALICE)
    door.frame(1.2, track(1, 0.2, ended=True))
    door.frame(2.0, track(2, 2.0))
    door.shot(2, 2.0, probe(0, seed=5), MATCH_ALICE)
    door.frame(8.0, track(2, 8.0))
    assert door.visits[2].visit_id == "v1"
    assert door.told == [("v1", "match", "p_alice")]


def test_a_match_after_a_rejection_of_the_same_subject_is_told(door: Door):
    too_early = replace(decision(EventType.REJECT, ALICE), reason=Reason.OUTSIDE_WINDOW)
    door.frame(0.0, track(1, 0.0))
    for i in range(RULE.max_shots):
        door.shot(1, i * SHOT_GAP_S, probe(0, seed=i), too_early)
    door.frame(1.5, track(1, 0.6, ended=True))
    door.frame(2.0, track(2, 2.0))
    for i in range(2):  # so unlike the first shots that the faces alone do not make one visit of the two
        door.shot(2, 2.0 + i * 0.2, probe(9, seed=i), MATCH_ALICE)
    assert door.told == [("v1", "reject", "p_alice"), ("v2", "match", "p_alice")]


def test_a_stranger_on_a_broken_track_is_not_rejected_twice(door: Door):
    door.frame(0.0, track(1, 0.0))
    for i in range(RULE.max_shots):
        door.shot(1, i * SHOT_GAP_S, probe(7, seed=i), REJECT)
    door.frame(1.5, track(1, 0.6, ended=True))
    door.frame(2.0, track(2, 2.0))
    for i in range(RULE.max_shots):
        door.shot(2, 2.0 + i * SHOT_GAP_S, probe(7, seed=20 + i), REJECT)
    assert door.told == [("v1", "reject", None)]


def test_somebody_else_after_a_moment_is_another_visit(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    door.shot(1, 0.2, probe(0, seed=1), MATCH_ALICE)
    door.frame(1.2, track(1, 0.2, ended=True))
    door.frame(1.5, track(2, 1.5))
    door.shot(2, 1.5, probe(1), MATCH_BOB)
    door.shot(2, 1.7, probe(1, seed=1), MATCH_BOB)
    assert door.told == [("v1", "match", "p_alice"), ("v2", "match", "p_bob")]


def test_a_face_that_takes_over_a_track_gets_a_visit_of_its_own(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    door.shot(1, 0.2, probe(0, seed=1), MATCH_ALICE)
    door.frame(0.4, track(1, 0.2, seen=False))
    door.frame(0.6, track(1, 0.6))
    assert door.visits[1].wants_shot(track(1, 0.6), 0.6), "out of sight for a moment: look again"
    door.shot(1, 0.6, probe(7), MATCH_ALICE)
    door.shot(1, 0.8, probe(7, seed=1), REJECT)
    assert door.visits[1].visit_id == "v2"
    for i in range(RULE.max_shots):
        door.shot(1, 1.0 + i * SHOT_GAP_S, probe(7, seed=2 + i), REJECT)
    assert ("v2", "reject", None) in door.told
    door.frame(4.0, track(1, 4.0))
    assert ("v1", "left", None) in door.told


def test_a_single_odd_shot_neither_splits_nor_spoils_the_evidence(door: Door):
    door.frame(0.0, track(1, 0.0))
    door.shot(1, 0.0, probe(0), REJECT)
    door.shot(1, 0.2, probe(50), REJECT)
    door.shot(1, 0.4, probe(0, seed=1), MATCH_ALICE)
    assert door.told == [("v1", "match", "p_alice")]
    assert float(door.visits[1].mean @ face(0)) > 0.9


def test_evidence_weighs_good_shots_more(door: Door):
    door.frame(0.0, track(1, 0.0))
    sharp, blurred = face(0), (face(0) + face(1)) / np.sqrt(2)
    door.presence.add(door.visits[1], Probe(sharp, "m@1", quality(0.9)), 0.0)
    door.presence.add(door.visits[1], Probe(blurred.astype(np.float32), "m@1", quality(0.1)), 0.2)
    mean = door.visits[1].mean
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-6)
    assert float(mean @ sharp) > float(mean @ blurred)


def test_two_people_at_once_are_two_visits(door: Door):
    door.frame(0.0, track(1, 0.0), track(2, 0.0))
    for i in range(2):
        door.shot(1, i * 0.2, probe(0, seed=i), MATCH_ALICE)
        door.shot(2, i * 0.2, probe(1, seed=i), MATCH_BOB)
    assert sorted(door.told) == [("v1", "match", "p_alice"), ("v2", "match", "p_bob")]
