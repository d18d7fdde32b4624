"""int8 never changes an answer: not by its error, not by a scope, not after rows came and went."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.types import FloatArray, Match, Subject
from edge.gallery.gallery import Gallery
from edge.gallery.int8_matcher import GATHER, QuantizedMatcher
from edge.gallery.matcher import DenseMatcher
from tests.support.gallery_samples import gallery_of, probe, template, unit_rows


def told(match: Match) -> list[tuple[str, float]]:
    return [(c.subject.subject_id, c.score) for c in (match.best, match.second) if c is not None]


def faces(gallery: Gallery, count: int = 60) -> list[FloatArray]:
    """Return probes near rows of the gallery, and of strangers."""
    strangers = unit_rows(count, gallery.dim, 99)
    rows = np.random.default_rng(3).integers(0, len(gallery.matrix), count)
    known = gallery.matrix[rows] + 0.9 * strangers
    return [*strangers, *(known / np.linalg.norm(known, axis=1, keepdims=True)).astype(np.float32)]


def assert_exact(gallery: Gallery, quantized: QuantizedMatcher) -> None:
    dense = DenseMatcher(gallery)
    draws = np.random.default_rng(4).random(gallery.size)
    for allowed in (None, draws < 0.6, draws < GATHER / 2, np.arange(gallery.size) == 7):
        for face in faces(gallery):
            exact, found = dense.match(probe(face), allowed), quantized.match(probe(face), allowed)
            assert told(found) == told(exact)
            assert (found.gallery_size, found.comparisons) == (exact.gallery_size, exact.comparisons)


@pytest.mark.parametrize(
    ("counts", "dim"),
    [
        pytest.param([1] * 3000, 128, id="one template each"),
        pytest.param([1, 5, 2] * 500, 128, id="several templates"),
        pytest.param([1] * 2000, 512, id="512 values"),
        pytest.param([2] * 400, 7, id="an odd number of values"),
    ],
)
def test_the_answer_is_that_of_float32_to_the_last_bit(counts: list[int], dim: int):
    gallery = gallery_of(counts, dim)
    assert_exact(gallery, QuantizedMatcher(gallery))


@settings(max_examples=80, deadline=None, database=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    different=st.integers(1, 6),
    dim=st.sampled_from([2, 7, 32]),
    scope=st.sampled_from([None, 0.02, 0.5, 1.0]),
    repeats=st.sampled_from([1, 20]),
    left=st.sets(st.integers(0, 99), max_size=3),
    seed=st.integers(0, 2**31),
)
def test_equal_rows_scopes_and_gaps_leave_the_answer_exact(
    counts: list[int],
    different: int,
    dim: int,
    scope: float | None,
    repeats: int,
    left: set[int],
    seed: int,
):
    draw = np.random.default_rng(seed)
    kinds = unit_rows(different, dim, seed)
    gallery = Gallery.empty("m").with_subjects(
        (Subject(f"p-{n}", ""), [template(kinds[draw.integers(different)], "m") for _ in range(count)])
        for n, count in enumerate(counts * repeats)
    )
    quantized = QuantizedMatcher(gallery)
    gallery = gallery.without_subjects(gallery.ids & {f"p-{n}" for n in left})
    quantized, dense = quantized.updated(gallery), DenseMatcher(gallery)
    allowed = None if scope is None else draw.random(gallery.size) < scope
    for face in [*kinds, *unit_rows(5, dim, seed + 1)]:
        found, exact = (matcher.match(probe(face, "m"), allowed) for matcher in (quantized, dense))
        assert found == exact


def test_neighbours_closer_than_an_int8_step_are_told_apart():
    twins = np.repeat(unit_rows(1), 200, axis=0) + 2e-4 * unit_rows(200, seed=1)
    twins = (twins / np.linalg.norm(twins, axis=1, keepdims=True)).astype(np.float32)
    gallery = Gallery.empty("m").with_subjects(
        (Subject(f"p-{n}", ""), [template(row, "m")]) for n, row in enumerate(twins)
    )
    quantized, dense = QuantizedMatcher(gallery), DenseMatcher(gallery)
    for row in twins:
        assert told(quantized.match(probe(row, "m"))) == told(dense.match(probe(row, "m")))


def test_rows_that_came_and_went_leave_the_answer_exact():
    gallery = gallery_of([1, 3] * 400, 32)
    quantized = QuantizedMatcher(gallery)
    gaps = []
    for number in range(40):
        if number % 3:
            gallery = gallery.without_subject(gallery.subjects[number * 11].subject_id)
        else:
            rows = [template(row) for row in unit_rows(1 + number % 5, 32, number)]
            gallery = gallery.with_subject(Subject(f"new-{number}", ""), rows)
        quantized = quantized.updated(gallery)
        gaps.append(len(quantized.rows.gaps))
        if number % 10 == 2:
            assert_exact(gallery, quantized)
    assert max(gaps) > 3
    assert gaps[2] > 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda g: gallery_of([1] * 300, 16, seed=1), id="the same people, other photos"),
        pytest.param(lambda g: gallery_of([2] * 200, 16, seed=2), id="other templates"),
        pytest.param(lambda g: gallery_of([1] * 200, 24), id="another embedder"),
        pytest.param(
            lambda g: Gallery.empty(g.model_id).with_subjects(
                (s, g.templates_of(s.subject_id)) for s in reversed(g.subjects)
            ),
            id="another order",
        ),
        pytest.param(lambda g: g.without_subjects({s.subject_id for s in g.subjects[1:]}), id="all but one"),
        pytest.param(lambda g: g, id="nothing"),
    ],
)
def test_whatever_changed_the_answer_is_that_of_the_new_gallery(change):
    gallery = gallery_of([1] * 300, 16)
    new = change(gallery)
    updated = QuantizedMatcher(gallery).updated(new)
    dense = DenseMatcher(new)
    for face in faces(new):
        assert told(updated.match(probe(face))) == told(dense.match(probe(face)))


def test_an_older_matcher_answers_as_before_while_newer_ones_share_its_rows():
    gallery = gallery_of([1] * 500)
    old = QuantizedMatcher(gallery)
    faced = [probe(row) for row in gallery.matrix[:50]]
    before = [told(old.match(face)) for face in faced]
    new = old.updated(gallery.without_subject("p-0"))
    new = new.updated(new.gallery.with_subject(Subject("new", ""), [template(gallery.matrix[0])]))
    assert new.rows.memory is old.rows.memory
    assert [told(old.match(face)) for face in faced] == before
    assert told(new.match(faced[0]))[0][0] == "new"


def test_a_memory_map_serves_as_the_exact_rows(tmp_path):
    gallery = gallery_of([1] * 400)
    np.save(tmp_path / "rows.npy", gallery.matrix)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    there = Gallery(1, gallery.model_id, gallery.subjects, gallery.counts, gallery.provenance, mapped)
    assert_exact(gallery, QuantizedMatcher(there))


def test_a_thousand_probes_leave_nothing_behind():
    matcher, face = QuantizedMatcher(gallery_of([1] * 50)), probe(unit_rows(1)[0])
    matcher.match(face)
    before = sys.getrefcount(None)
    for _ in range(1000):
        matcher.match(face)
    assert abs(sys.getrefcount(None) - before) < 100, "simsimd's `out` takes a reference to None per call"
