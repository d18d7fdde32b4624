"""What the doctor says about a gallery: threshold, look-alikes, duplicates, poor templates, strangers."""

from dataclasses import replace

import numpy as np
import pytest

from edge.core.types import FloatArray, Subject
from edge.gallery.alike.doctor import examine, strangers_let_in
from edge.gallery.decision import Calibration, DecisionRule
from edge.gallery.gallery import SEVERAL_PHOTOS, Gallery
from tests.support.gallery_samples import MODEL, QUALITY, gallery_of, template, unit_rows

RULE = DecisionRule(0.01, None, 0.05, Calibration((0.3, 0.4, 0.5, 0.6), (1e-2, 1e-3, 1e-4, 1e-5)))


def raw(threshold: float) -> DecisionRule:
    return DecisionRule(None, threshold, 0.05, None)


def between(a: FloatArray, b: FloatArray, score: float) -> FloatArray:
    """Return a unit vector whose cosine to `a` is `score`, turned towards `b`."""
    across = b - (a @ b) * a
    row = score * a + np.sqrt(1 - score**2) * across / np.linalg.norm(across)
    return (row / np.linalg.norm(row)).astype(np.float32)


def test_the_threshold_and_what_it_promises():
    diagnosis = examine(gallery_of([1] * 10), RULE)
    assert (diagnosis.subjects, diagnosis.templates, diagnosis.comparisons) == (10, 10, 10)
    assert diagnosis.threshold == pytest.approx(RULE.threshold_for(10))
    assert diagnosis.expected_fpir == pytest.approx(0.01, rel=1e-6)
    known = DecisionRule(None, 0.4, 0.05, RULE.calibration)
    assert examine(gallery_of([1] * 10), known).expected_fpir == pytest.approx(1 - (1 - 1e-3) ** 10)
    assert examine(gallery_of([1]), DecisionRule(None, 0.4, 0.05, None)).expected_fpir is None


def test_only_those_who_may_pass_count():
    allowed = np.arange(10) < 3
    diagnosis = examine(gallery_of([1] * 10), RULE, allowed)
    assert (diagnosis.subjects, diagnosis.admitted, diagnosis.comparisons) == (10, 3, 3)
    assert diagnosis.threshold == pytest.approx(RULE.threshold_for(3))
    gallery = gallery_of([1] * 10)
    assert strangers_let_in(gallery, gallery.matrix, raw(0.9), allowed)[0] == pytest.approx(0.3)


def test_templates_of_several_photos_count_for_more():
    rows = unit_rows(2)
    subject = [replace(template(rows[0]), photos=3), template(rows[1])]
    gallery = Gallery.empty(MODEL).with_subject(Subject("p-1", ""), subject)
    assert examine(gallery, RULE).comparisons == SEVERAL_PHOTOS + 1


def test_one_person_twice_and_a_look_alike_are_found_once_each_and_in_order():
    rows = unit_rows(8)
    rows[5] = between(rows[1], rows[5], 0.9)
    rows[6] = between(rows[2], rows[6], 0.38)
    gallery = Gallery.empty(MODEL).with_subjects(
        (Subject(f"p-{i}", ""), [template(row)]) for i, row in enumerate(rows)
    )
    diagnosis = examine(gallery, RULE, pairs=2)
    assert [(pair.first, pair.second) for pair in diagnosis.duplicates] == [("p-1", "p-5")]
    assert [(pair.first, pair.second) for pair in diagnosis.look_alikes] == [("p-2", "p-6")]
    assert diagnosis.duplicates[0].score == pytest.approx(0.9, abs=1e-5)


def test_pairs_that_are_not_shown_are_counted():
    rows = unit_rows(9)
    for a, b in ((0, 1), (2, 3), (4, 5)):
        rows[b] = between(rows[a], rows[b], 0.9)
    subjects = [(Subject(f"p-{i}", ""), [template(row), template(row)]) for i, row in enumerate(rows)]
    gallery = Gallery.empty(MODEL).with_subjects(subjects)
    assert [examine(gallery, RULE, pairs=pairs).more for pairs in (1, 2, 3, 9)] == [2, 1, 0, 0]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_closest_pairs_do_not_depend_on_how_the_work_is_cut(monkeypatch: pytest.MonkeyPatch, block: int):
    gallery = gallery_of([1, 3, 5, 2, 1, 4])
    rows, owners = gallery.matrix, gallery.owners
    best: dict[tuple[int, int], float] = {}
    for i in range(len(rows)):
        for j in range(i):
            if owners[i] != owners[j]:
                pair = (int(owners[j]), int(owners[i]))
                best[pair] = max(best.get(pair, -1), float(rows[i] @ rows[j]))
    expected = sorted(best.values(), reverse=True)[:6]
    monkeypatch.setattr("edge.gallery.alike.doctor.BLOCK_SCORES", block)
    diagnosis = examine(gallery, RULE, pairs=6)
    assert len(diagnosis.duplicates) + diagnosis.more == sum(
        score >= diagnosis.threshold for score in best.values()
    )
    found = [pair.score for pair in (*diagnosis.duplicates, *diagnosis.look_alikes)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_poor_templates_and_two_people_under_one_id_are_told():
    rows = unit_rows(3)
    faint = replace(template(rows[0]), quality=replace(QUALITY, weight=0.1))
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject("faint", ""), [faint]),
            (Subject("two", ""), [template(rows[1]), template(rows[2])]),
            (Subject("fine", ""), [template(rows[1]), template(between(rows[1], rows[2], 0.6))]),
        ]
    )
    assert [(c.subject_id, c.problem.split(" (")[0]) for c in examine(gallery, RULE).poor] == [
        ("faint", "best template's quality is 0.10; enrol a larger, sharper, frontal photo"),
        ("two", "its templates differ"),
    ]


def test_a_template_that_is_hardly_a_face_s_is_told_and_one_of_an_earlier_release_counted():
    rows = unit_rows(4)
    sure = {"down": 0.02, "plain": 0.99, "earlier": None, "just": 0.31}
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject(name, ""), [replace(template(row), quality=replace(QUALITY, recognisability=known))])
            for (name, known), row in zip(sure.items(), rows, strict=True)
        ]
    )
    diagnosis = examine(gallery, RULE)
    assert [(c.subject_id, c.problem.split(":")[0]) for c in diagnosis.poor] == [
        ("down", "a template is hardly a face's (recognisability 0.02)")
    ]
    assert diagnosis.unmeasured == 1


def test_strangers_who_would_be_let_in_are_counted_by_subject():
    gallery = gallery_of([2, 1])
    strangers = np.stack([gallery.matrix[0], gallery.matrix[1], gallery.matrix[2], unit_rows(1, seed=9)[0]])
    share, taken = strangers_let_in(gallery, strangers, raw(0.5))
    assert (share, taken) == (0.75, {"p-0": 2, "p-1": 1})
    assert strangers_let_in(Gallery.empty(MODEL), strangers, raw(0.5)) == (0.0, {})


def test_an_empty_gallery_is_healthy():
    diagnosis = examine(Gallery.empty(MODEL), RULE)
    assert (diagnosis.subjects, diagnosis.duplicates, diagnosis.look_alikes, diagnosis.poor) == (
        0,
        (),
        (),
        (),
    )
