"""Decisions against labels, by hand: what belongs to what, and what is wrong with it."""

from dataclasses import replace

import pytest

from edge.core.types import EventType, FaceEvent, Latency, Subject
from edge.lab.clips.labels import Truth
from edge.lab.clips.visits import VisitAnswer, VisitOutcome, answers_of, figures, judge, spread
from tests.support.door import make_event


def event(kind: str, at_s: float, who: str | None = None, visit: str = "v-1", **changes) -> FaceEvent:
    return make_event(
        event_type=EventType(kind),
        subject=Subject(who, who) if who else None,
        visit=visit,
        monotonic_s=at_s,
        **changes,
    )


def answer(kind: str, begun_s: float, decided_s: float, who: str | None = None) -> VisitAnswer:
    return VisitAnswer(begun_s, decided_s, (event(kind, decided_s, who),))


def truth(who: str | None, from_s: float, until_s: float, expected: str = "match") -> Truth:
    return Truth(who, from_s, until_s, EventType(expected))


def outcomes(truths: list[Truth], answers: list[VisitAnswer], tolerance_s: float = 0.5) -> list[VisitOutcome]:
    return [visit.outcome for visit in judge(truths, answers, tolerance_s).visits]


@pytest.mark.parametrize(
    ("label", "told", "outcome"),
    [
        pytest.param(truth("a", 1, 5), answer("match", 1, 2, "a"), VisitOutcome.CORRECT, id="recognised"),
        pytest.param(
            truth("a", 1, 5), answer("match", 1, 2, "b"), VisitOutcome.WRONG_NAME, id="another name"
        ),
        pytest.param(
            truth("a", 1, 5), answer("reject", 1, 4), VisitOutcome.FALSE_REJECT, id="not recognised"
        ),
        pytest.param(
            truth("a", 1, 5), answer("no_decision", 1, 4), VisitOutcome.NO_DECISION, id="no usable shot"
        ),
        pytest.param(
            truth("a", 1, 5), answer("spoof", 1, 4), VisitOutcome.FALSE_SPOOF, id="taken for a picture"
        ),
        pytest.param(
            truth(None, 1, 5, "reject"), answer("reject", 1, 4), VisitOutcome.CORRECT, id="stranger rejected"
        ),
        pytest.param(
            truth(None, 1, 5, "reject"),
            answer("match", 1, 2, "a"),
            VisitOutcome.FALSE_MATCH,
            id="stranger let in",
        ),
        pytest.param(
            truth("a", 1, 5, "spoof"),
            answer("match", 1, 2, "a"),
            VisitOutcome.FALSE_MATCH,
            id="picture let in",
        ),
        pytest.param(truth("a", 1, 5), answer("match", 7, 8, "a"), VisitOutcome.MISSED, id="at another time"),
        pytest.param(
            truth("a", 1, 5), answer("match", 5.3, 5.4, "a"), VisitOutcome.CORRECT, id="half a second off"
        ),
    ],
)
def test_a_visit_and_its_answer(label: Truth, told: VisitAnswer, outcome: VisitOutcome):
    assert outcomes([label], [told]) == [outcome]


def test_an_answer_to_nothing_is_unexpected_and_a_second_one_a_duplicate():
    verdict = judge(
        [truth("a", 0, 4)],
        [answer("match", 0, 1, "a"), answer("match", 2, 3, "a"), answer("reject", 9, 10)],
        0.5,
    )
    counted = figures(verdict)
    assert (counted["visits"], counted["found"], counted["duplicated"], counted["unexpected"]) == (1, 1, 1, 1)
    assert counted["correct"] == 1
    assert counted["decisions"] == 3


def test_two_people_who_stand_together_each_get_their_own_answer():
    labels = [truth("a", 0, 5), truth(None, 0, 5, "reject")]
    for answers in (
        [answer("match", 0, 1, "a"), answer("reject", 0, 4)],
        [answer("reject", 0, 4), answer("match", 0, 1, "a")],
    ):
        assert outcomes(labels, answers) == [VisitOutcome.CORRECT, VisitOutcome.CORRECT]


def test_one_after_the_other_do_not_take_each_other_s_answers():
    labels = [truth("a", 0, 4), truth("b", 5, 9)]
    answers = [answer("match", 5.1, 6, "a"), answer("match", 0.2, 1, "a")]
    assert outcomes(labels, answers) == [VisitOutcome.CORRECT, VisitOutcome.WRONG_NAME]


def test_a_decision_that_was_revised_is_one_answer_and_the_last_word_counts():
    first = event("reject", 12.0)
    second = event("match", 14.0, "a", revises=first.event_id)
    left = event("left", 15.0)
    (told,) = answers_of([first, second, left], {"v-1": 11.0}, 10.0)
    assert (told.begun_s, told.decided_s, told.delay_s) == (1.0, 4.0, 3.0)
    assert told.final is second
    verdict = judge([truth("a", 1, 5)], [told], 0.5)
    assert verdict.visits[0].outcome == VisitOutcome.CORRECT
    assert figures(verdict)["revised"] == 1


def test_a_stranger_who_was_matched_once_was_let_in_whatever_followed():
    matched = event("match", 2.0, "a")
    revised = event("reject", 3.0, revises=matched.event_id)
    told = VisitAnswer(1.0, 3.0, (matched, revised))
    assert outcomes([truth(None, 1, 5, "reject")], [told]) == [VisitOutcome.FALSE_MATCH]


def test_delays_and_latencies_are_told_by_their_median_and_95th_percentile():
    made = [answer("match", 0, 1, "a"), answer("match", 0, 2, "a"), answer("match", 0, 3, "a")]
    verdict = judge([truth("a", 0, 4)], made, 0.5)
    assert figures(verdict)["delay_s"]["match"] == {"n": 3, "p50": 2.0, "p95": 2.9}
    assert figures(verdict)["delay_s"]["reject"] is None
    slow = replace(made[0].final, latency=Latency(40.0, 2.0, 6.0, 0.1))
    timed = figures(judge([truth("a", 0, 4)], [VisitAnswer(0, 1, (slow,))], 0.5))
    assert timed["capture_to_decision_ms"] == {"n": 1, "p50": 40.0, "p95": 40.0}
    assert spread([]) is None
