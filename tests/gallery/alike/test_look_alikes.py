"""Groups of look-alikes in a gallery that is mixed as a whole: all of them are named, nobody else is."""

import numpy as np
import pytest

from edge.core.types import FloatArray, Subject
from edge.gallery.alike import look_alikes
from edge.gallery.alike.look_alikes import look_alike_groups, look_alikes_of, named
from edge.gallery.alike.own_shift import shifted
from edge.gallery.decision import Calibration, DecisionRule
from edge.gallery.gallery import Gallery
from tests.support.gallery_samples import MODEL, alike_rows, template, unit_rows

RULE = DecisionRule(1e-3, None, 0, Calibration((0.0, 0.11, 0.2, 0.3, 0.4), (0.5, 0.1, 1e-2, 1e-4, 1e-6)))


def children(count: int, seed: int = 1) -> FloatArray:
    return alike_rows(count, 0.4, seed=seed)


def gallery_of_rows(**rows: FloatArray) -> Gallery:
    return Gallery.empty(MODEL).with_subjects(
        (Subject(f"{name}-{number}", ""), [template(row)])
        for name, each in rows.items()
        for number, row in enumerate(each)
    )


@pytest.mark.parametrize("block", [1, 1000, 4_000_000])
def test_children_among_adults_are_named_and_no_adult_is(block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(look_alikes, "BLOCK_SCORES", block)
    gallery = gallery_of_rows(adult=unit_rows(300), child=children(12))
    [group] = look_alike_groups(gallery, RULE)
    assert group == tuple(f"child-{number}" for number in range(12))


def test_two_groups_are_told_apart_and_the_larger_stands_first():
    other = alike_rows(15, 0.4, seed=3)[:, ::-1]  # what they have in common is another direction
    gallery = gallery_of_rows(adult=unit_rows(200), child=children(10), baby=np.ascontiguousarray(other))
    assert [len(group) for group in look_alike_groups(gallery, RULE)] == [15, 10]


@pytest.mark.parametrize("size", [0, 1, 8, 9, 400])
def test_in_a_mixed_gallery_nobody_is_named(size: int):
    assert look_alike_groups(gallery_of_rows(adult=unit_rows(size)), RULE) == []


def test_what_the_threshold_accounts_for_is_no_group():
    school = gallery_of_rows(child=children(60))
    assert len(look_alike_groups(school, RULE)) == 1
    assert look_alike_groups(school, shifted(RULE, school)) == []


def test_who_is_enrolled_is_told_whom_he_is_like():
    gallery = gallery_of_rows(adult=unit_rows(300), child=children(12))
    found = look_alikes_of(children(1, seed=9)[0], gallery, RULE)
    assert len(found) == look_alikes.NEIGHBOURS
    assert all(each.startswith("child-") for each in found)
    assert look_alikes_of(unit_rows(1, seed=10)[0], gallery, RULE) == ()
    assert look_alikes_of(children(1, seed=9)[0], gallery_of_rows(child=children(7)), RULE) == ()


def test_without_a_calibration_nobody_knows():
    gallery = gallery_of_rows(child=children(20))
    raw = DecisionRule(None, 0.5, 0, None)
    assert look_alike_groups(gallery, raw) == []
    assert look_alikes_of(children(1, seed=9)[0], gallery, raw) == ()


def test_a_sentence_names_the_first_and_counts_the_others():
    assert named(["a", "b"]) == "a, b"
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
