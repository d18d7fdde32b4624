"""What every matcher promises, and which one is chosen."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.errors import GalleryError, ModelMismatchError
from edge.core.types import EventType, Subject
from edge.gallery.decision import DecisionRule
from edge.gallery.gallery import Gallery
from edge.gallery.int8_matcher import QuantizedMatcher
from edge.gallery.matcher import DENSE_VALUES, DenseMatcher, make_matcher
from edge.gallery.search import Matcher
from tests.support.gallery_samples import MODEL, gallery_of, probe, template, unit_rows

EAST = np.array([1, 0], np.float32)
NORTH = np.array([0, 1], np.float32)
NORTH_EAST = np.array([0.6, 0.8], np.float32)

Make = Callable[[Gallery], Matcher]


@pytest.fixture(scope="module", params=[DenseMatcher, QuantizedMatcher])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def test_the_best_template_speaks_for_its_subject(make: Make):
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject("a", ""), [template(EAST)]),
            (Subject("b", ""), [template(-EAST), template(NORTH)]),
        ]
    )
    match = make(gallery).match(probe(NORTH_EAST))
    assert match.best is not None
    assert match.second is not None
    assert (match.best.subject.subject_id, match.best.score) == ("b", pytest.approx(0.8))
    assert (match.second.subject.subject_id, match.second.score) == ("a", pytest.approx(0.6))
    assert match.gallery_size == 2


def test_the_second_best_is_another_subject_not_another_template(make: Make):
    gallery = Gallery.empty(MODEL).with_subjects(
        [
            (Subject("a", ""), [template(NORTH_EAST), template(NORTH_EAST), template(NORTH)]),
            (Subject("b", ""), [template(-NORTH)]),
        ]
    )
    match = make(gallery).match(probe(NORTH_EAST))
    assert match.best is not None
    assert match.second is not None
    assert (match.best.subject.subject_id, match.second.subject.subject_id) == ("a", "b")
    assert match.second.score == pytest.approx(-0.8)


def test_of_equal_scores_the_subject_enrolled_first_wins(make: Make):
    gallery = Gallery.empty(MODEL).with_subjects(
        [(Subject("z", ""), [template(EAST)]), (Subject("a", ""), [template(EAST)])]
    )
    match = make(gallery).match(probe(EAST))
    assert match.best is not None
    assert match.best.subject.subject_id == "z"


def test_an_empty_gallery_matches_nobody(make: Make):
    match = make(Gallery.empty(MODEL)).match(probe(EAST))
    assert (match.best, match.second, match.gallery_size) == (None, None, 0)


def test_a_gallery_of_one_has_no_second(make: Make):
    match = make(gallery_of([3])).match(probe(unit_rows(1)[0]))
    assert match.best is not None
    assert match.second is None
    assert match.gallery_size == 1


def test_scores_stay_within_a_cosine(make: Make):
    gallery = gallery_of([1] * 500)
    matcher = make(gallery)
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
def test_a_probe_of_another_model_is_refused(make: Make, asked):
    with pytest.raises(ModelMismatchError, match="cannot be compared"):
        make(gallery_of([1])).match(asked)


def test_an_empty_gallery_refuses_a_probe_of_another_model_too(make: Make):
    with pytest.raises(ModelMismatchError):
        make(Gallery.empty(MODEL)).match(probe(EAST, model_id="other"))


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
def test_a_probe_that_is_not_a_unit_vector_never_matches(
    make: Make, embedding: np.ndarray, counts: list[int]
):
    match = make(gallery_of(counts)).match(probe(embedding))
    for rule in (DecisionRule(None, -1.0, 0.0, None), DecisionRule(None, 0.4, 0.05, None)):
        decision = rule.decide(match)
        assert decision.event_type == EventType.REJECT
        assert decision.subject is None


@settings(max_examples=60, deadline=None, database=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=2, max_size=30),
    dim=st.sampled_from([2, 3, 16, 128, 512]),
    seed=st.integers(0, 2**32 - 1),
    scope=st.sampled_from([None, 0.0, 0.5, 1.0]),
)
def test_the_answer_is_that_of_a_plain_loop(
    make: Make, counts: list[int], dim: int, seed: int, scope: float | None
):
    gallery = gallery_of(counts, dim, seed)
    asked = unit_rows(1, dim, seed + 1)[0]
    allowed = None if scope is None else np.random.default_rng(seed).random(gallery.size) <= scope
    if allowed is not None:
        allowed[:2] = True
    best_of = {
        subject.subject_id: max(
            float(np.dot(t.embedding.astype(np.float64), asked.astype(np.float64)))
            for t in gallery.templates_of(subject.subject_id)
        )
        for number, subject in enumerate(gallery.subjects)
        if allowed is None or allowed[number]
    }
    first, second = sorted(best_of.values(), reverse=True)[:2]
    match = make(gallery).match(probe(asked), allowed)
    assert match.gallery_size == len(best_of)
    assert match.best is not None
    assert match.second is not None
    assert match.best.subject != match.second.subject
    # Within rounding two subjects may change places; then their scores are the same.
    assert match.best.score == pytest.approx(first, abs=1e-6)
    assert match.second.score == pytest.approx(second, abs=1e-6)
    assert best_of[match.best.subject.subject_id] == pytest.approx(first, abs=1e-6)
    assert best_of[match.second.subject.subject_id] == pytest.approx(second, abs=1e-6)


def scope_of(*allowed: int) -> np.ndarray:
    return np.array(allowed, bool)


def test_a_subject_out_of_scope_is_not_found_and_does_not_count(make: Make):
    gallery = gallery_of([2, 1, 3])
    matcher = make(gallery)
    match = matcher.match(probe(gallery.matrix[0]), scope_of(0, 1, 1))
    assert match.best is not None
    assert match.second is not None
    assert {match.best.subject.subject_id, match.second.subject.subject_id} == {"p-1", "p-2"}
    assert (match.gallery_size, match.comparisons) == (2, 4)
    alone = matcher.match(probe(gallery.matrix[0]), scope_of(0, 0, 1))
    assert alone.best is not None
    assert (alone.best.subject.subject_id, alone.second) == ("p-2", None)
    assert (alone.gallery_size, alone.comparisons) == (1, 3)


def test_a_scope_of_nobody_matches_nobody(make: Make):
    match = make(gallery_of([1, 2])).match(probe(unit_rows(1)[0]), scope_of(0, 0))
    assert (match.best, match.second, match.gallery_size, match.comparisons) == (None, None, 0, 0)


def test_in_a_scope_too_a_probe_that_is_not_a_unit_vector_never_matches(make: Make):
    match = make(gallery_of([1, 1, 1])).match(probe(np.full(128, np.nan, np.float32)), scope_of(0, 1, 0))
    assert match.best is not None
    assert match.best.subject.subject_id == "p-1"
    assert DecisionRule(None, -1.0, 0.0, None).decide(match).event_type == EventType.REJECT


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param(np.ones(4, bool), id="of another gallery"),
        pytest.param(np.ones(3, np.int64), id="indices"),
        pytest.param(np.ones((3, 1), bool), id="another shape"),
    ],
)
def test_a_scope_that_does_not_fit_is_refused(make: Make, allowed: np.ndarray):
    with pytest.raises(GalleryError, match="one bool per subject"):
        make(gallery_of([1, 1, 1])).match(probe(unit_rows(1)[0]), allowed)


def test_the_size_of_a_gallery_chooses_its_matcher():
    small, large = gallery_of([1] * 8, 1024), gallery_of([1] * (DENSE_VALUES // 1024 + 1), 1024)
    assert isinstance(make_matcher(small), DenseMatcher)
    chosen = make_matcher(large, make_matcher(small))
    assert isinstance(chosen, QuantizedMatcher)
    smaller = large.without_subject("p-7")
    again = make_matcher(large.with_subject(Subject("new", ""), [template(unit_rows(1, 1024, 9)[0])]), chosen)
    assert isinstance(again, QuantizedMatcher)
    assert again.rows.memory is chosen.rows.memory
    assert isinstance(make_matcher(smaller, chosen), DenseMatcher)


BROKEN = {
    "absent": "raise ImportError('No module named simsimd')",
    "of another processor": "raise OSError('wrong ELF class')",
    "of another version": "",
    "wrong": "def cdist(a, b, **options):\n    import numpy\n    return numpy.zeros((len(a), len(b)), 'f4')",
}


@pytest.mark.parametrize("module", [pytest.param(code, id=name) for name, code in BROKEN.items()])
def test_without_its_kernel_a_large_gallery_is_searched_in_float32_and_that_is_said_once(
    module: str, tmp_path: Path
):
    (tmp_path / "simsimd.py").write_text(module)
    code = (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "from edge.gallery.matcher import DENSE_VALUES, make_matcher\n"
        "from tests.support.gallery_samples import gallery_of, probe\n"
        "gallery = gallery_of([1] * (DENSE_VALUES // 1024 + 1), 1024)\n"
        "matcher = make_matcher(gallery, make_matcher(gallery))\n"
        "assert matcher.match(probe(gallery.matrix[7])).best.subject is gallery.subjects[7]\n"
        "print(type(matcher).__name__)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, capture_output=True, text=True, check=True, env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    )
    warning, chosen = done.stdout.splitlines()
    assert "simsimd is of no use" in warning
    assert chosen == "DenseMatcher"
