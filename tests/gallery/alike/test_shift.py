"""What the enrolled say of how alike people are here, and that nobody who enrols makes it say what he wants.

Faces are synthetic: a random direction each, and what a group has in common. With the calibration of such
faces without a group every property of the rule can be seen; real groups are in models/MEASURED.md.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.types import FloatArray, Subject
from edge.gallery.alike import shift
from edge.gallery.alike.own_shift import shifted
from edge.gallery.alike.shift import measure_shift, most_shift, shift_among
from edge.gallery.decision import Calibration, DecisionRule, GalleryShift
from edge.gallery.gallery import Gallery
from edge.lab.photos.calibration import calibrate
from tests.support.gallery_samples import MODEL, alike_rows, enrolled_as, gallery_of, template, unit_rows

DIM = 48
TARGET = 0.01


def faces(count: int, seed: int, *, alike: float = 0.0) -> FloatArray:
    return alike_rows(count, alike, DIM, seed)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(faces(1000, 1), "synthetic").calibration


def let_in(rule: DecisionRule, enrolled: FloatArray, strangers: FloatArray) -> float:
    best = (strangers @ enrolled.T).max(axis=1)
    return float((best >= rule.threshold_for(len(enrolled))).mean())


def at_target(found: GalleryShift | None, calibration: Calibration, size: int) -> float:
    assert found is not None
    return found.at(calibration.threshold_at(TARGET / size))


@pytest.mark.parametrize("alike", [0.1, 0.3])
@pytest.mark.parametrize("size", [40, 100])
def test_in_a_gallery_of_look_alikes_the_target_is_kept_where_it_was_not(
    calibration: Calibration, size: int, alike: float
):
    plain, learned = [], []
    for seed in range(10):
        enrolled, strangers = faces(size, 100 + seed, alike=alike), faces(2000, 200 + seed, alike=alike)
        rule = DecisionRule(TARGET, None, 0.0, calibration)
        plain.append(let_in(rule, enrolled, strangers))
        own = replace(rule, gallery_shift=shift_among(enrolled, calibration))
        learned.append(let_in(own, enrolled, strangers))
    assert np.mean(plain) > 5 * TARGET
    assert np.mean(learned) < 2 * TARGET


@pytest.mark.parametrize(("size", "most"), [(20, 0.02), (40, 0.01), (100, 0.006), (400, 0.004)])
def test_a_gallery_as_mixed_as_the_calibration_is_left_alone(
    calibration: Calibration, size: int, most: float
):
    found = [
        at_target(shift_among(faces(size, 300 + seed), calibration), calibration, size) for seed in range(20)
    ]
    assert np.mean(found) < most


@pytest.mark.parametrize("share", [0.025, 0.1, 0.5])
def test_one_person_under_two_ids_and_twins_do_not_move_it(calibration: Calibration, share: float):
    moved = []
    for seed in range(20):
        enrolled = faces(80, 400 + seed, alike=0.2)
        again = round(share * len(enrolled) / 2)
        noise = 0.5 * unit_rows(again, DIM, 500 + seed)
        twice = enrolled[:again] + noise
        twice /= np.linalg.norm(twice, axis=1, keepdims=True)
        doubled = np.concatenate([enrolled[: 80 - again], twice])
        before, after = (
            at_target(shift_among(rows, calibration), calibration, 80) for rows in (enrolled, doubled)
        )
        moved.append(after - before)
    assert abs(np.mean(moved)) < 0.015


@pytest.mark.parametrize("ids", [2, 8, 16])
def test_one_person_under_many_ids_neither_raises_nor_lowers_it(calibration: Calibration, ids: int):
    moved = []
    for seed in range(10):
        enrolled = faces(100, 600 + seed)
        copies = enrolled[0] + 0.3 * unit_rows(ids, DIM, 700 + seed)
        copies /= np.linalg.norm(copies, axis=1, keepdims=True)
        attacked = shift_among(np.concatenate([enrolled, copies]), calibration)
        before = shift_among(enrolled, calibration)
        moved.append(at_target(attacked, calibration, 100) - at_target(before, calibration, 100))
    assert np.max(np.abs(moved)) < 0.015


@pytest.mark.parametrize("size", [0, 1, 19])
def test_too_few_subjects_tell_nothing(calibration: Calibration, size: int):
    assert shift_among(faces(size, 1), calibration) is None
    assert shift_among(faces(20, 1), calibration) is not None


def test_a_calibration_without_the_rates_that_pairs_show_tells_nothing():
    assert shift_among(faces(40, 1), Calibration((0.3, 0.4), (1e-3, 1e-5))) is None
    assert shift_among(faces(40, 1), Calibration((0.1, 0.2), (0.5, 0.3))) is None


def test_it_is_the_same_each_time_and_bounded_in_a_large_gallery(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
):
    many = faces(3000, 7, alike=0.1)
    first = shift_among(many, calibration)
    assert first is not None
    assert first == shift_among(many.copy(), calibration)
    assert first.subjects == shift.MAX_SUBJECTS
    monkeypatch.setattr(shift, "MAX_SUBJECTS", 1500)
    more = shift_among(many, calibration)
    assert at_target(first, calibration, 3000) == pytest.approx(at_target(more, calibration, 3000), abs=0.03)


def test_a_growing_gallery_of_one_group_is_followed_without_jumps(calibration: Calibration):
    everybody = faces(120, 8, alike=0.2)
    found = [at_target(shift_among(everybody[:n], calibration), calibration, 100) for n in range(30, 121)]
    assert max(abs(b - a) for a, b in pairwise(found)) < 0.05
    assert min(found) > 0.03


@settings(max_examples=60, deadline=None, database=None)
@given(
    size=st.integers(20, 60),
    alike=st.floats(0, 1),
    copies=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
def test_whatever_is_enrolled_it_never_lowers_a_threshold_nor_shuts_the_door(
    calibration: Calibration, size: int, alike: float, copies: int, seed: int
):
    rows = faces(size, seed, alike=alike)
    rows[:copies] = rows[0]
    found = shift_among(rows, calibration)
    if found is None:  # copies of one face are one person, and fewer than 20 tell nothing
        assert size - copies < 20
        return
    most = most_shift(calibration.thresholds)
    assert all(0 <= value <= most for values in (found.shifts, found.low, found.high) for value in values)
    assert all(low <= high for low, high in zip(found.low, found.high, strict=True))
    sums = [t + s for t, s in zip(found.thresholds, found.shifts, strict=True)]
    assert sums == sorted(sums)
    rule = DecisionRule(1e-3, None, 0, calibration, gallery_shift=found)
    assert rule.threshold_for(size) >= replace(rule, gallery_shift=None).threshold_for(size)
    assert rule.threshold_for(size) < 1
    assert rule.expected_fpir(size) == pytest.approx(1e-3, rel=1e-3)


def test_who_enrols_unlike_faces_lowers_it_to_that_of_the_calibration_and_no_further(
    calibration: Calibration,
):
    group, unlike = faces(40, 9, alike=0.3), np.concatenate([np.eye(DIM), -np.eye(DIM)]).astype(np.float32)
    plain = DecisionRule(TARGET, None, 0.0, calibration)
    own = replace(plain, gallery_shift=shift_among(group, calibration))
    attacked = replace(plain, gallery_shift=shift_among(np.concatenate([group, *[unlike] * 10]), calibration))
    assert own.threshold_for(40) > attacked.threshold_for(40) >= plain.threshold_for(40)


def test_templates_of_several_photos_are_allowed_for(calibration: Calibration):
    rows = faces(100, 10, alike=0.1)
    single, half, several = (
        at_target(shift_among(rows, calibration, flags), calibration, 100)
        for flags in (None, np.arange(100) % 2 == 0, np.ones(100, bool))
    )
    assert single > half > several


def test_of_several_templates_of_a_subject_the_one_of_the_fewest_photos_counts(calibration: Calibration):
    rows = faces(90, 11)
    several = [replace(template(row), photos=3) for row in rows[:30]]
    gallery = Gallery.empty(MODEL).with_subjects(
        (Subject(f"p-{i}", ""), [several[i], template(rows[30 + i]), template(rows[60 + i])])
        for i in range(30)
    )
    assert measure_shift(gallery, calibration) == shift_among(rows[30:60], calibration)


@pytest.mark.parametrize("size", [0, 1, 10, 40])
def test_strangers_who_were_kept_help_a_small_gallery(calibration: Calibration, size: int):
    plain, helped = [], []
    for seed in range(10):
        everybody = faces(1000, 800 + seed, alike=0.06)
        gallery, kept, others = enrolled_as(everybody[:size]), everybody[size : size + 40], everybody[100:]
        rule = DecisionRule(TARGET, None, 0.0, calibration)
        plain.append(let_in(rule, everybody[: max(1, size)], others))
        helped.append(let_in(shifted(rule, gallery, kept), everybody[: max(1, size)], others))
    assert np.mean(helped) < 0.7 * np.mean(plain)


@pytest.mark.parametrize("size", [0, 10, 40])
def test_whoever_walks_by_raises_it_by_little_and_never_lowers_it(calibration: Calibration, size: int):
    mixed, group = enrolled_as(faces(size, 12)), enrolled_as(faces(size, 13, alike=0.3))
    crowd, unlike = faces(500, 14, alike=0.9), np.eye(DIM, dtype=np.float32)
    for gallery in (mixed, group):
        alone = measure_shift(gallery, calibration)
        before = (0.0,) * len(calibration.thresholds) if alone is None else alone.shifts
        for strangers in (crowd, unlike, np.repeat(crowd[:1], 50, axis=0), crowd[:0]):
            found = measure_shift(gallery, calibration, strangers)
            after = before if found is None else found.shifts
            raised = [b - a for a, b in zip(before, after, strict=True)]
            assert min(raised) >= 0
            assert max(raised) <= shift.STRANGERS_MOST + 1e-9


def test_who_may_be_a_subject_is_no_stranger(calibration: Calibration):
    rows = faces(40, 15)
    again = rows + 0.3 * unit_rows(40, DIM, 16)
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    assert measure_shift(enrolled_as(rows), calibration, again) == measure_shift(
        enrolled_as(rows), calibration
    )


def test_a_rule_has_the_shift_of_its_gallery(calibration: Calibration):
    rule = DecisionRule(TARGET, None, 0.0, calibration)
    gallery = gallery_of([1] * 30)
    assert shifted(rule, gallery).gallery_shift == measure_shift(gallery, calibration)
    assert shifted(shifted(rule, gallery), gallery_of([1])).gallery_shift is None
    raw = DecisionRule(None, 0.5, 0.0, None)
    assert shifted(raw, gallery) == raw
