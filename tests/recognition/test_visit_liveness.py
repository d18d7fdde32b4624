"""Visits at a door where a face must be alive: what passes, what waits, what is a spoof for good."""

from dataclasses import replace

import pytest

from edge.core.types import EventType, Reason, Refusal
from edge.recognition.visit import SHOT_GAP_S, VisitRule
from tests.recognition.test_presence import ALICE, MATCH_ALICE, REJECT, RULE, Door, probe, quality, track

STRICT = replace(RULE, live_from=0.6)

SPOOF = [("v1", "spoof", None)]
MATCH = [("v1", "match", "p_alice")]


@pytest.fixture
def door() -> Door:
    door = Door(STRICT)
    door.frame(0.0, track(1, 0.0))
    return door


def show(door: Door, *scores: float | None, start_s: float = 0.0, weight: float = 0.5) -> None:
    """Give one shot of Alice per score, `SHOT_GAP_S` apart."""
    for i, score in enumerate(scores):
        shown = replace(probe(0, weight=weight, seed=i), liveness=score)
        door.shot(1, start_s + i * SHOT_GAP_S, shown, MATCH_ALICE)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        pytest.param((0.9, 0.8), MATCH, id="alive in every shot: at once"),
        pytest.param((0.6, 0.6), MATCH, id="just alive"),
        pytest.param((0.9, 0.5), [], id="one doubtful shot: look again"),
        pytest.param((0.9, 0.5, 1.0, 1.0), [], id="and wait for all of them"),
        pytest.param((0.1, 0.5, 0.9, 0.9, 0.9), MATCH, id="poor first shots are made up for"),
        pytest.param((0.9, 0.1, 0.9, 0.1, 0.9), SPOOF, id="now and then alive is not alive"),
        pytest.param((0.0, 0.0, 0.0, 0.0, 0.0), SPOOF, id="a picture"),
        pytest.param((0.59, 0.59, 0.59, 0.59, 0.59), SPOOF, id="just not alive"),
        pytest.param((float("nan"),) * 5, SPOOF, id="NaN is not alive"),
        pytest.param((float("nan"), 1.0, 1.0, 1.0, 1.0), SPOOF, id="nor made up for"),
        pytest.param((None,) * 5, SPOOF, id="not measured is not alive"),
        pytest.param((None, 1.0, 1.0, 1.0, 1.0), SPOOF, id="one shot that was not measured"),
        pytest.param((float("inf"),) * 5, SPOOF, id="infinity is not alive"),
        pytest.param((float("inf"), -float("inf"), 1.0, 1.0, 1.0), SPOOF, id="infinities"),
    ],
)
def test_a_match_needs_a_live_face(door: Door, scores: tuple[float | None, ...], told: list[object]):
    show(door, *scores)
    assert door.told == told


def test_a_spoof_names_nobody_and_keeps_the_score(door: Door):
    show(door, *[0.1] * STRICT.max_shots)
    made = door.visits[1].decision
    assert (made.event_type, made.reason, made.subject) == (EventType.SPOOF, Reason.SPOOF, None)
    assert made.score == MATCH_ALICE.score


@pytest.mark.parametrize("at_s", [STRICT.patience_s, STRICT.patience_s + 60])
def test_a_picture_is_a_spoof_when_patience_ends(door: Door, at_s: float):
    show(door, 0.2, 0.2)
    door.frame(STRICT.patience_s - 0.1, track(1, STRICT.patience_s - 0.1))
    assert door.told == []
    door.frame(at_s, track(1, at_s))
    assert door.told == SPOOF


def test_a_picture_that_is_taken_away_is_a_spoof(door: Door):
    show(door, 0.2, 0.2)
    door.frame(1.0, track(1, 0.2, ended=True))
    assert door.told == SPOOF


def test_a_spoof_is_final_however_alive_the_face_becomes(door: Door):
    show(door, *[0.2] * STRICT.max_shots)
    visit = door.visits[1]
    for i in range(50):
        at_s = 0.7 + i * 0.5
        near = track(1, at_s, px=100.0 + 10 * i)
        door.frame(at_s, near)
        assert not visit.wants_shot(near, at_s), "no further try"
        show(door, 1.0, start_s=at_s, weight=0.9)
    assert door.told == SPOOF


def test_a_picture_gains_nothing_by_hiding_for_a_moment(door: Door):
    show(door, *[0.2] * STRICT.max_shots)
    door.frame(1.2, track(1, 0.8, ended=True))
    door.frame(2.0, track(2, 2.0))
    for i in range(STRICT.max_shots):
        shown = replace(probe(0, seed=30 + i), liveness=1.0)
        door.shot(2, 2.0 + i * SHOT_GAP_S, shown, MATCH_ALICE)
    assert door.visits[2].visit_id == "v1"
    assert door.told == SPOOF


def test_a_live_subject_is_not_locked_out_for_ever(door: Door):
    show(door, *[0.5] * STRICT.max_shots)
    away_s = 1.0 + STRICT.cooldown_s
    door.frame(away_s, track(1, 0.9, ended=True))
    door.frame(away_s + 1, track(2, away_s + 1))
    for i in range(2):
        shown = replace(probe(0, seed=60 + i), liveness=0.9)
        door.shot(2, away_s + 1 + i * SHOT_GAP_S, shown, MATCH_ALICE)
    assert door.told == [*SPOOF, ("v1", "left", None), ("v2", "match", "p_alice")]


def test_a_stranger_is_rejected_alive_or_not(door: Door):
    for i in range(STRICT.max_shots):
        door.shot(1, i * SHOT_GAP_S, replace(probe(7, seed=i), liveness=0.0), REJECT)
    assert door.told == [("v1", "reject", None)]
    assert door.visits[1].liveness == 0.0


@pytest.mark.parametrize(
    ("near", "told"),
    [
        pytest.param(0.9, [("v1", "reject", None), ("v1", "match", "p_alice")], id="alive"),
        pytest.param(0.1, [("v1", "reject", None), ("v1", "spoof", None)], id="a picture"),
    ],
)
def test_after_a_reject_from_afar_there_is_one_try(door: Door, near: float, told: list[object]):
    for i in range(STRICT.max_shots):
        door.shot(1, i * SHOT_GAP_S, replace(probe(0, px=40, weight=0.01, seed=i), liveness=0.3), REJECT)
    close = replace(probe(0, px=120, weight=0.9), liveness=near)
    door.shot(1, 5.0, close, MATCH_ALICE)
    assert door.told == told
    for i in range(5):
        again = replace(close, liveness=1.0)
        door.shot(1, 10.0 + i, again, MATCH_ALICE)
    assert door.told == told


def test_the_liveness_of_a_visit_weighs_its_shots_as_their_embeddings(door: Door):
    visit = door.visits[1]
    assert visit.liveness is None
    visit.add(replace(probe(0, weight=0.9), liveness=1.0), 0.0)
    visit.add(replace(probe(0, weight=0.1, seed=1), liveness=0.0), 0.2)
    assert visit.liveness == pytest.approx(0.9)
    assert visit.evidence.liveness == pytest.approx(0.9)
    visit.add(probe(0, seed=2), 0.4)
    assert visit.liveness is None, "one shot was not measured"


def test_a_shot_whose_liveness_failed_is_refused_and_not_tried_in_every_frame(door: Door):
    visit = door.visits[1]
    visit.refuse(quality(refused=Refusal.LIVENESS), track(1, 0.0).detection, 0.0)
    assert not visit.wants_shot(track(1, 0.05), 0.05)
    assert visit.wants_shot(track(1, SHOT_GAP_S), SHOT_GAP_S)
    assert visit.counts.refused == {Refusal.LIVENESS: 1}
    door.frame(1.0, track(1, 0.2, ended=True))
    assert door.told == [("v1", "no_decision", None)]


def test_without_the_rule_liveness_changes_nothing():
    door = Door(VisitRule(2, 5, 3.0, 3.0))
    door.frame(0.0, track(1, 0.0))
    show(door, 0.0, 0.0)
    assert door.told == [("v1", "match", ALICE.subject_id)]
