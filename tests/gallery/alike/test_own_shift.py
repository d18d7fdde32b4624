"""Who looks like several others needs a higher score, and nobody else does for their sake.

Faces are synthetic, as in `test_shift`; real groups are in models/MEASURED.md.
"""

from dataclasses import replace

import numpy as np
import pytest

from edge.core.types import FloatArray, ScoredSubject
from edge.gallery.alike import own_shift
from edge.gallery.alike.own_shift import shifted, shifts_among
from edge.gallery.alike.shift import MIN_SUBJECTS, most_shift, shift_among
from edge.gallery.decision import Calibration, DecisionRule
from edge.gallery.gallery import Gallery
from edge.lab.photos.calibration import calibrate
from tests.support.gallery_samples import MODEL, alike_rows, enrolled_as, unit_rows

DIM = 48
TARGET = 0.01
ADULTS = 100


def children(count: int, seed: int) -> FloatArray:
    return alike_rows(count, 0.5, DIM, seed)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(unit_rows(1000, DIM, 1), "synthetic").calibration


def let_in(enrolled: FloatArray, strangers: FloatArray, thresholds: FloatArray) -> float:
    scores = strangers @ enrolled.T
    return float((scores.max(axis=1) >= thresholds[scores.argmax(axis=1)]).mean())


@pytest.mark.parametrize("young", [5, 20, 60])
def test_children_among_adults_are_protected_and_adults_pay_little_for_it(
    calibration: Calibration, young: int
):
    rule = DecisionRule(TARGET, None, 0.0, calibration)
    let_in_by, raised_by = {"one": [], "own": []}, {"one": [], "own": []}
    for seed in range(5):
        rows = np.concatenate([unit_rows(ADULTS, DIM, 10 + seed), children(young, 20 + seed)])
        strangers, others = children(500, 30 + seed), unit_rows(2000, DIM, 40 + seed)
        one = replace(rule, gallery_shift=shift_among(rows, calibration)).threshold_for(len(rows))
        own = shifts_among(rows, calibration).thresholds(rule, len(rows))
        for name, thresholds in (("one", np.full(len(rows), one)), ("own", own)):
            let_in_by[name].append(let_in(rows, strangers, thresholds))
            raised_by[name].append(np.mean(thresholds[:ADULTS]) - rule.threshold_for(len(rows)))
        assert let_in(rows, others, own) < 2 * TARGET
    # With one threshold strange children get in where few are enrolled; where many are, adults stay out.
    assert np.mean(let_in_by["one"]) > 10 * TARGET or np.mean(raised_by["one"]) > 0.2
    assert np.mean(let_in_by["own"]) < 2 * TARGET
    assert np.mean(raised_by["own"]) < 0.05


@pytest.mark.parametrize("size", [20, 40, 100, 400])
def test_in_a_mixed_gallery_hardly_anybody_needs_more(calibration: Calibration, size: int):
    own = np.concatenate(
        [shifts_among(unit_rows(size, DIM, 50 + seed), calibration).own for seed in range(5)]
    )
    assert np.mean(own > 0) < 0.08
    assert np.mean(own) < 0.01


def test_where_everybody_looks_alike_the_shift_is_that_of_everybody(calibration: Calibration):
    school = children(60, 2)
    found = shifts_among(school, calibration)
    assert found.others == shift_among(school, calibration)
    assert found.counted.all()


@pytest.mark.parametrize(("ids", "most"), [(2, 0.05), (3, 0.2)])
def test_one_person_under_a_few_ids_is_no_group(calibration: Calibration, ids: int, most: float):
    rows = unit_rows(ADULTS, DIM, 3)
    again = rows[0] + 0.3 * unit_rows(ids - 1, DIM, 4)
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    before = shifts_among(rows, calibration).own
    after = shifts_among(np.concatenate([rows, again]), calibration).own
    assert np.abs(after[: len(rows)] - before).max() <= most
    assert after[len(rows) :].max() <= most


def test_too_few_subjects_tell_nothing(calibration: Calibration):
    found = shifts_among(children(MIN_SUBJECTS - 1, 5), calibration)
    assert (found.others, found.own.any()) == (None, False)
    assert shifts_among(unit_rows(0, DIM), calibration).others is None


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_no_own_shift_is_below_0_or_shuts_the_door(calibration: Calibration, alike: float):
    rows = np.concatenate([unit_rows(40, DIM, 6), alike_rows(20, alike, DIM, 7)])
    rows[:10] = rows[0]
    found = shifts_among(rows, calibration)
    assert (found.own >= 0).all()
    assert (found.own <= np.float32(most_shift(calibration.thresholds))).all()


@pytest.mark.parametrize(("name", "value"), [("MOST_NEIGHBOURS", 300), ("MOST_SCORES", 100_000)])
def test_in_a_large_gallery_the_nearest_are_looked_for_among_some(
    calibration: Calibration, name: str, value: int, monkeypatch: pytest.MonkeyPatch
):
    rows = np.concatenate([unit_rows(400, DIM, 8), children(60, 9)])
    monkeypatch.setattr(own_shift, name, value)
    monkeypatch.setattr(own_shift, "BLOCK_SCORES", 7 * value)
    own = shifts_among(rows, calibration).own
    assert np.mean(own[400:] > 0.1) > 0.9
    assert np.mean(own[:400] > 0.1) < 0.08


def test_templates_of_several_photos_are_allowed_for(calibration: Calibration):
    rows = np.concatenate([unit_rows(ADULTS, DIM, 10), children(10, 11)])
    single = shifts_among(rows, calibration).own
    several = shifts_among(rows, calibration, np.ones(len(rows), bool)).own
    assert (several <= single).all()
    assert several.sum() < single.sum()


def test_a_rule_has_them_by_subject_and_strangers_who_were_kept_add_to_the_others(calibration: Calibration):
    rows = np.concatenate([unit_rows(ADULTS, DIM, 12), children(10, 13)])
    gallery = enrolled_as(rows)
    rule = shifted(DecisionRule(TARGET, None, 0.0, calibration), gallery)
    found = shifts_among(rows, calibration)
    assert rule.gallery_shift == found.others
    for subject, own in zip(gallery.subjects, found.own, strict=True):
        assert rule.own_shifts.get(subject.subject_id, 0.0) == own
        needed = rule.threshold_for(len(rows), ScoredSubject(subject, 0.0))
        assert needed >= rule.threshold_for(len(rows))
    told = rule.shift_for(len(rows))
    assert told is not None
    assert told.look_alikes >= 10
    assert told.highest == pytest.approx(float(found.own.max()))
    with_strangers = shifted(rule, gallery, alike_rows(50, 0.3, DIM, 14))
    assert with_strangers.own_shifts == rule.own_shifts
    assert with_strangers.threshold_for(10) >= rule.threshold_for(10)
    assert shifted(rule, Gallery.empty(MODEL)).own_shifts == {}
