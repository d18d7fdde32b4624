import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ModelMismatchError
from edge.gallery.decision import DecisionRule
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import DenseMatcher
from edge.types import EventType, Subject
from tests.gallery.samples import MODEL, gallery_of, probe, template, unit_rows

EAST = np.array([1, 0], np.float32)
NORTH = np.array([0, 1], np.float32)
NORTH_EAST = np.array([0.6, 0.8], np.float32)


def test_the_best_template_speaks_for_its_subject():
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject("a", ""), [template(EAST)]),
            (Subject("b", ""), [template(-EAST), template(NORTH)]),
        ]
    )
    match = DenseMatcher(gallery).match(probe(NORTH_EAST))
    assert match.best is not None
    assert match.second is not None
    assert (match.best.subject.subject_id, match.best.score) == ("b", pytest.approx(0.8))
    assert (match.second.subject.subject_id, match.second.score) == ("a", pytest.approx(0.6))
    assert match.gallery_size == 2


def test_the_second_best_is_another_subject_not_another_template():
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject("a", ""), [template(NORTH_EAST), template(NORTH_EAST), template(NORTH)]),
            (Subject("b", ""), [template(-NORTH)]),
        ]
    )
    match = DenseMatcher(gallery).match(probe(NORTH_EAST))
    assert match.best is not None
    assert match.second is not None
    assert (match.best.subject.subject_id, match.second.subject.subject_id) == ("a", "b")
    assert match.second.score == pytest.approx(-0.8)


def test_of_equal_scores_the_subject_enrolled_first_wins():
    gallery = Gallery.empty(MODEL).with_subjects(
        [(Subject("z", ""), [template(EAST)]), (Subject("a", ""), [template(EAST)])]
    )
    match = DenseMatcher(gallery).match(probe(EAST))
    assert match.best is not None
    assert match.best.subject.subject_id == "z"


def test_an_empty_gallery_matches_nobody():
    match = DenseMatcher(Gallery.empty(MODEL)).match(probe(EAST))
    assert (match.best, match.second, match.gallery_size) == (None, None, 0)


def test_a_gallery_of_one_has_no_second():
    match = DenseMatcher(gallery_of([3])).match(probe(unit_rows(1)[0]))
    assert match.best is not None
    assert match.second is None
    assert match.gallery_size == 1


def test_scores_stay_within_a_cosine():
    gallery = gallery_of([1] * 500)
    matcher = DenseMatcher(gallery)
    scores = [match.best.score for row in gallery.matrix if (match := matcher.match(probe(row))).best]
    assert len(scores) == 500
    assert all(0.999999 < score <= 1 for score in scores)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(probe(unit_rows(1)[0], model_id="sface-fp32@ffffffff"), id="another model"),
        pytest.param(probe(unit_rows(1, 64)[0]), id="another dimension"),
    ],
)
def test_a_probe_of_another_model_is_refused(asked):
    with pytest.raises(ModelMismatchError, match="cannot be compared"):
        DenseMatcher(gallery_of([1])).match(asked)


def test_an_empty_gallery_refuses_a_probe_of_another_model_too():
    with pytest.raises(ModelMismatchError):
        DenseMatcher(Gallery.empty(MODEL)).match(probe(EAST, model_id="other"))


@pytest.mark.parametrize("counts", [[1, 1, 1], [1], [2, 1, 3]])
@pytest.mark.parametrize(
    "embedding",
    [
        pytest.param(np.full(128, np.nan, np.float32), id="NaN"),
        pytest.param(np.where(np.arange(128) == 7, np.nan, unit_rows(1)[0]).astype(np.float32), id="one NaN"),
        pytest.param(np.where(np.arange(128) == 7, np.inf, 0).astype(np.float32), id="infinity"),
        pytest.param(np.full(128, 1e30, np.float32), id="overflow"),
        pytest.param(unit_rows(1)[0] * 50, id="norm 50"),
        pytest.param(np.zeros(128, np.float32), id="norm 0"),
    ],
)
def test_a_probe_that_is_not_a_unit_vector_never_matches(embedding: np.ndarray, counts: list[int]):
    match = DenseMatcher(gallery_of(counts)).match(probe(embedding))
    for rule in (DecisionRule(None, -1.0, 0.0, None), DecisionRule(None, 0.4, 0.05, None)):
        decision = rule.decide(match)
        assert decision.event_type == EventType.REJECT
        assert decision.subject is None


@settings(max_examples=60, deadline=None, database=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=2, max_size=30),
    dim=st.sampled_from([2, 3, 16, 128, 512]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_answer_is_that_of_a_plain_loop(counts: list[int], dim: int, seed: int):
    gallery = gallery_of(counts, dim, seed)
    asked = unit_rows(1, dim, seed + 1)[0]
    best_of = {
        subject.subject_id: max(
            float(np.dot(t.embedding.astype(np.float64), asked.astype(np.float64)))
            for t in gallery.templates_of(subject.subject_id)
        )
        for subject in gallery.subjects
    }
    first, second = sorted(best_of.values(), reverse=True)[:2]
    match = DenseMatcher(gallery).match(probe(asked))
    assert match.best is not None
    assert match.second is not None
    assert match.best.subject != match.second.subject
    # Within rounding two subjects may change places; then their scores are the same.
    assert match.best.score == pytest.approx(first, abs=1e-6)
    assert match.second.score == pytest.approx(second, abs=1e-6)
    assert best_of[match.best.subject.subject_id] == pytest.approx(first, abs=1e-6)
    assert best_of[match.second.subject.subject_id] == pytest.approx(second, abs=1e-6)
