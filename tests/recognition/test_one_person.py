"""One visit is one person's: names by fusion, one subject on two tracks, places taken without a gap."""

from dataclasses import replace

import numpy as np
import pytest

from edge.core.types import Decision, Detection, Probe, Reason, Refusal
from edge.recognition.visit import LOOK_AGAIN_S, SHOT_GAP_S, STILL_LOOK_S, Visit
from tests.recognition.test_presence import (
    MATCH_ALICE,
    MATCH_BOB,
    REJECT,
    RULE,
    Door,
    face,
    probe,
    quality,
    track,
)

AGREES_FROM = 0.41


@pytest.fixture
def door() -> Door:
    door = Door()
    door.presence.agrees_from = AGREES_FROM
    door.frame(0.0, track(1, 0.0))
    return door


def alike(cosine: float, seed: int) -> Probe:
    """A shot of a stranger who is like person 0 by `cosine`; two of one stranger are alike by .9 and more."""
    vector = cosine * face(0) + np.sqrt(1 - cosine**2) * face(9, 0.2, seed)
    return Probe((vector / np.linalg.norm(vector)).astype(np.float32), "m@1", quality())


def matched(door: Door, track_id: int, at_s: float, who: int = 0) -> None:
    """Match the face of a track by two shots, at `at_s` and SHOT_GAP_S before that."""
    answer = MATCH_BOB if who else MATCH_ALICE
    for i in range(2):
        show(door, track_id, at_s - (1 - i) * SHOT_GAP_S, probe(who, seed=i), answer)


def show(door: Door, track_id: int, at_s: float, shown: Probe, answer: Decision) -> None:
    """Give a shot as the pipeline does: the gallery is asked where there is new evidence."""
    visit = door.visits[track_id] = door.presence.add(door.visits[track_id], shown, at_s)
    if visit.unasked:
        visit.answer(answer, agreeing=len(visit.shots))
    door.conclude(at_s)


def told(door: Door, kind: str) -> list[tuple[str, str, str | None]]:
    return [each for each in door.told if each[1] == kind]


# A wrong name by fusion


def test_shots_that_agree_only_together_are_no_match(door: Door):
    visit = door.visits[1]
    for i in range(RULE.max_shots):
        door.presence.add(visit, probe(0) if i == 0 else alike(0.35, i), i * SHOT_GAP_S)
        visit.answer(MATCH_ALICE, agreeing=1)
        door.conclude(i * SHOT_GAP_S)
        assert not told(door, "match")
    assert door.told == [("v1", "reject", None)]
    assert (visit.decision.reason, visit.decision.subject) == (Reason.AMBIGUOUS, None)


def test_a_match_comes_with_the_second_shot_that_agrees(door: Door):
    visit = door.visits[1]
    for i, agreeing in enumerate([1, 1, 2]):
        door.presence.add(visit, probe(0, seed=i), i * SHOT_GAP_S)
        visit.answer(MATCH_ALICE, agreeing)
        door.conclude(i * SHOT_GAP_S)
        assert bool(door.told) == (i == 2)


@pytest.mark.parametrize("gap_s", [0.1, 0.4, 0.8])
def test_an_undecided_face_that_is_another_after_a_gap_gets_a_visit_of_its_own(door: Door, gap_s: float):
    show(door, 1, 0.0, probe(0), MATCH_ALICE)
    door.frame(gap_s / 2, track(1, 0.0, seen=False))
    door.frame(gap_s, track(1, gap_s))
    for i in range(2):
        show(door, 1, gap_s + i * SHOT_GAP_S, alike(0.35, i), REJECT)
    assert door.visits[1].visit_id == "v2"
    assert len(door.visits[1].shots) == 2, "both are the stranger's"
    assert door.told == [("v1", "no_decision", None)]


def test_the_same_face_after_a_gap_goes_on_with_its_visit(door: Door):
    door.shot(1, 0.0, probe(0), MATCH_ALICE)
    door.frame(0.2, track(1, 0.0, seen=False))
    door.frame(0.4, track(1, 0.4))
    door.shot(1, 0.4, probe(0, seed=1), MATCH_ALICE)
    assert door.told == [("v1", "match", "p_alice")]


def test_one_shot_of_somebody_else_does_not_pull_the_mean(door: Door):
    visit = door.visits[1]
    for i in range(4):
        door.presence.add(visit, probe(0) if i == 0 else alike(0.3, i), i * SHOT_GAP_S)
    assert len(visit.shots) == 4
    assert float(visit.mean @ face(0)) == pytest.approx(0.3, abs=0.03)
    assert not visit.of_one_face


# One subject on two tracks


def test_who_walks_before_a_poster_is_matched_once(door: Door):
    """Alice is matched on a track of her own, and then takes over the track of the poster behind her."""
    for i in range(RULE.max_shots):
        show(door, 1, i * SHOT_GAP_S, probe(7, seed=i), REJECT)
    door.frame(1.0, track(1, 1.0), track(2, 1.0))
    matched(door, 2, 1.2)
    door.frame(1.4, track(1, 1.2, seen=False), track(2, 1.4))
    door.frame(1.5, track(1, 1.5), track(2, 1.4, seen=False))
    assert door.visits[1].wants_shot(track(1, 1.5), 1.5)
    for i in range(4):
        at_s = 1.5 + i * SHOT_GAP_S
        door.frame(at_s, track(1, at_s), track(2, 1.4, seen=False))
        show(door, 1, at_s, probe(0, seed=10 + i), MATCH_ALICE)
    assert told(door, "match") == [("v2", "match", "p_alice")]
    assert door.visits[1].visit_id == "v2", "her visit goes on there"


def test_a_subject_and_its_picture_are_matched_once_and_stay_one_visit(door: Door):
    door.frame(0.0, track(1, 0.0), track(2, 0.0))
    matched(door, 1, 0.2)
    matched(door, 2, 0.5)
    for i in range(50):
        at_s = 1 + i / 10
        door.frame(at_s, track(1, at_s), track(2, at_s))
    assert door.told == [("v1", "match", "p_alice")]
    door.frame(7.0, track(1, 6.1, ended=True), track(2, 7.0))
    door.frame(12.0, track(2, 12.0))
    assert door.told == [("v1", "match", "p_alice")], "she is still there, on the other track"
    door.frame(13.0, track(2, 12.1, ended=True))
    door.frame(12.1 + RULE.cooldown_s)
    assert door.told == [("v1", "match", "p_alice"), ("v1", "left", None)]


def test_a_track_that_breaks_while_the_old_one_is_not_given_up_yet_is_matched_once(door: Door):
    matched(door, 1, 0.2)
    door.frame(0.4, track(1, 0.3, seen=False), track(2, 0.4))
    matched(door, 2, 0.6)
    door.frame(0.7, track(1, 0.3, seen=False), track(2, 0.7))
    door.frame(1.2, track(1, 0.3, ended=True), track(2, 1.2))
    assert door.told == [("v1", "match", "p_alice")]
    assert len(door.presence.visits) == 1


def test_a_picture_that_hangs_there_locks_its_subject_not_out(door: Door):
    matched(door, 1, 0.2)
    late_s = 60.0
    door.frame(late_s, track(1, late_s), track(2, late_s))
    matched(door, 2, late_s + 0.2)
    assert [name for _, _, name in told(door, "match")] == ["p_alice", "p_alice"]


# The place is taken without a gap


def looks(
    door: Door, until_s: float, fps: float, shown: dict[float, int], *, still: bool = False
) -> list[float]:
    """Show person `shown[since_s]` on track 1 as the pipeline would; returns when a face was embedded."""
    when = []
    for number in range(1, round(until_s * fps)):
        at_s = number / fps
        since_s = max(since_s for since_s in shown if since_s <= at_s)
        who = shown[since_s]
        seen = track(1, at_s)
        place = np.full((5, 2), 0.0 if still else 30.0 * number, np.float32)
        seen = replace(seen, detection=Detection(seen.box, place, 0.9))
        door.frame(at_s, seen)
        visit, shot = door.visits[1], probe(who, seed=number)
        answer = {0: MATCH_ALICE, 1: MATCH_BOB}.get(who, REJECT)
        if visit.wants_shot(seen, at_s):
            when.append(at_s)
            show(door, 1, at_s, shot, answer)
        elif visit.wants_look(seen, at_s):
            when.append(at_s)
            visit.look(seen.detection, shot, at_s)
    return when


@pytest.mark.parametrize("fps", [10, 3])
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(0, 7, [("v1", "match", "p_alice"), ("v2", "reject", None)], id="a stranger after Alice"),
        pytest.param(7, 0, [("v1", "reject", None), ("v2", "match", "p_alice")], id="Alice after a stranger"),
        pytest.param(0, 1, [("v1", "match", "p_alice"), ("v2", "match", "p_bob")], id="Bob after Alice"),
    ],
)
def test_who_takes_a_place_without_a_gap_inherits_nothing(
    door: Door, fps: float, first: int, second: int, expected: list[object]
):
    when = looks(door, 12, fps, {0.0: first, 5.0: second})
    assert [each for each in door.told if each[1] != "left"] == expected
    changed = [at_s for at_s in when if at_s >= 5.0]
    assert changed[2] - 5 <= LOOK_AGAIN_S + 3 / fps + 2 * SHOT_GAP_S, "one look, and two shots agree"


def test_a_decided_face_costs_one_look_a_second_and_less_when_still(door: Door):
    when = looks(door, 60, 10, {0.0: 0})
    assert np.diff(when[2:]).min() >= LOOK_AGAIN_S - 1e-6
    assert door.visits[1].used == 2, "looks are no evidence"
    still = Door()
    still.frame(0.0, track(1, 0.0))
    assert len(looks(still, 60, 10, {0.0: 0}, still=True)) <= 2 + 3 + 60 / STILL_LOOK_S
    assert door.told == still.told == [("v1", "match", "p_alice")]


def test_a_look_that_is_refused_is_not_repeated_at_once(door: Door):
    matched(door, 1, 0.2)
    visit, seen = door.visits[1], track(1, 2.0)
    assert visit.wants_look(seen, 2.0)
    visit.look(seen.detection, None, 2.0)
    assert not visit.suspect
    assert not visit.wants_look(track(1, 2.9), 2.9)


def test_a_face_that_was_not_looked_for_is_not_taken_for_another_one(door: Door):
    matched(door, 1, 0.2)
    visit = door.visits[1]
    for searched, suspect in ((False, False), (True, True)):
        visit.follow(replace(track(1, 2.0, seen=False), searched=searched))
        visit.follow(track(1, 2.1))
        assert visit.suspect == suspect


def test_one_odd_look_at_a_decided_face_changes_nothing(door: Door):
    matched(door, 1, 0.2)
    visit, seen = door.visits[1], track(1, 2.0)
    visit.look(seen.detection, probe(50), 2.0)
    assert visit.wants_shot(track(1, 2.2), 2.2), "look again soon"
    door.shot(1, 2.2, probe(0, seed=3), MATCH_ALICE)
    assert not visit.suspect
    assert door.visits[1] is visit
    assert door.told == [("v1", "match", "p_alice")]


def test_odd_shots_that_show_nobody_in_particular_are_taken_ever_less_often(door: Door):
    matched(door, 1, 0.2)
    visit = door.visits[1]
    visit.look(track(1, 2.0).detection, probe(20), 2.0)
    when = []
    for number in range(100):
        at_s = 2.1 + number / 10
        if visit.wants_shot(track(1, at_s), at_s):
            when.append(at_s)
            show(door, 1, at_s, probe(21 + number), MATCH_ALICE)
    assert door.visits[1] is visit
    assert len(when) <= 2 + 10 / LOOK_AGAIN_S


# Too few looks


@pytest.mark.parametrize(
    ("used", "refused", "reason"),
    [
        pytest.param(0, {}, Reason.TOO_FEW_LOOKS, id="seen, never looked at"),
        pytest.param(1, {}, Reason.TOO_FEW_LOOKS, id="one good shot"),
        pytest.param(0, {Refusal.BLUR: 1}, Reason.TOO_FEW_LOOKS, id="one look, and that blurred"),
        pytest.param(0, {Refusal.SIZE: 1}, Reason.TOO_SMALL, id="one look, too small"),
        pytest.param(0, {Refusal.BLUR: 2}, Reason.LOW_QUALITY, id="two looks, both blurred"),
        pytest.param(1, {Refusal.BLUR: 3}, Reason.LOW_QUALITY, id="one good shot of many"),
    ],
)
def test_a_visit_that_ends_undecided_says_why(
    door: Door, used: int, refused: dict[Refusal, int], reason: Reason
):
    visit: Visit = door.visits[1]
    for kind, count in refused.items():
        for i in range(count):
            visit.refuse(quality(refused=kind), track(1, 0.0).detection, 0.1 * i)
    for i in range(used):
        door.shot(1, i * SHOT_GAP_S, probe(0, seed=i), MATCH_ALICE)
    door.frame(1.0, track(1, 0.2, ended=True))
    assert door.told == [("v1", "no_decision", None)]
    assert visit.decision.reason == reason


def test_a_face_seen_in_one_frame_is_told_of_unless_somebody_is_there():
    door = Door()
    for number in range(3):  # who walks too fast to be followed is several faces
        door.presence.glimpse(track(number + 1, 0.3 * number, ended=True))
        door.conclude(0.3 * number + 0.8)
    door.conclude(10.0)
    assert door.told == [("v1", "no_decision", None), ("v1", "left", None)]
