"""How many strangers are taken for somebody: against strangers who are known, and in words."""

from dataclasses import replace

import numpy as np
import pytest

from edge.gallery.alike.shift import shift_among
from edge.gallery.alike.strangers import StrangersTaken, strangers_taken
from edge.gallery.decision import Calibration, DecisionRule
from edge.lab.photos.calibration import FittedRates, calibrate
from tests.gallery.alike.test_shift import faces, let_in

SIZE = 60


@pytest.fixture(scope="module")
def table() -> FittedRates:
    return calibrate(faces(1000, 1), "synthetic")


def judged(rule: DecisionRule, table: FittedRates) -> tuple[float, float, float]:
    found = strangers_taken(rule, SIZE, table.low, table.high)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.share <= found.high
    return found.low, found.share, found.high


@pytest.mark.parametrize("alike", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("target", [0.01, 0.003])
def test_strangers_stay_below_the_upper_bound_and_where_faces_are_mixed_above_the_lower(
    table: FittedRates, alike: float, target: float
):
    # Made-up look-alikes have thinner tails than real ones: fewer pass than the lower bound says.
    rule = DecisionRule(target, None, 0.0, table.calibration)
    below = above = 0
    for seed in range(20):
        enrolled, strangers = faces(SIZE, 100 + seed, alike=alike), faces(4000, 200 + seed, alike=alike)
        own = replace(rule, gallery_shift=shift_among(enrolled, table.calibration))
        low, _, high = judged(own, table)
        below += let_in(own, enrolled, strangers) < low
        above += let_in(own, enrolled, strangers) > high
    assert above <= 1
    assert alike > 0 or below <= 1


def test_a_gallery_as_mixed_as_the_calibration_takes_what_was_asked_for(table: FittedRates):
    rule = DecisionRule(0.01, None, 0.0, table.calibration)
    own = replace(rule, gallery_shift=shift_among(faces(SIZE, 3), table.calibration))
    assert judged(own, table)[1] == pytest.approx(0.01, rel=0.5)


def test_a_raw_threshold_is_judged_by_how_alike_people_are(table: FittedRates):
    shares = []
    for alike in (0.0, 0.3):
        found = shift_among(faces(SIZE, 4, alike=alike), table.calibration)
        rule = DecisionRule(None, 0.62, 0.0, table.calibration, gallery_shift=found)
        shares.append(judged(rule, table)[1])
    assert shares[1] > 10 * shares[0]


def test_few_subjects_say_nothing_of_how_alike_people_are(table: FittedRates):
    rule = DecisionRule(0.01, None, 0.02, table.calibration)
    found = strangers_taken(rule, 5, table.low, table.high)
    assert found == StrangersTaken(pytest.approx(0.01, rel=1e-3), None, None)
    assert "a gallery of 20 subjects or more tells whether they are" in found.sentence()
    assert strangers_taken(DecisionRule(None, 0.4, 0.0, None), 5, (), ()) is None


def test_a_table_without_intervals_leaves_the_shift_s(table: FittedRates):
    rule = DecisionRule(0.01, None, 0.0, table.calibration)
    own = replace(rule, gallery_shift=shift_among(faces(SIZE, 5), table.calibration))
    wide, narrow = (strangers_taken(own, SIZE, *each) for each in ((table.low, table.high), ((), ())))
    assert wide is not None
    assert narrow is not None
    assert wide.share == narrow.share
    assert (wide.low or 0) < (narrow.low or 0)
    assert (narrow.high or 0) < (wide.high or 0)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((0.0104, 0.002, 0.0411), "about 10 are taken for somebody (between 2 and 42)."),
        ((0.001, 0.0001, 0.004), "about 1 is taken for somebody (between 0 and 4)."),
        ((0.0001, 0.0, 0.0002), "fewer than 1 is taken for somebody (between 0 and 1)."),
        ((1.0, 0.9, 1.0), "about 1,000 are taken for somebody (between 900 and 1,000)."),
    ],
)
def test_the_sentence_is_for_whoever_runs_the_building(found: tuple[float, float, float], told: str):
    assert StrangersTaken(*found).sentence() == f"Of 1,000 strangers at this door {told}"


def test_a_calibration_of_a_few_entries_is_judged_all_the_same():
    few = Calibration((0.3, 0.4, 0.5, 0.6), (0.5, 1e-2, 1e-4, 1e-6))
    found = strangers_taken(DecisionRule(0.01, None, 0.0, few), 100, (), ())
    assert found is not None
    assert np.isclose(found.share, 0.01, rtol=1e-3)
