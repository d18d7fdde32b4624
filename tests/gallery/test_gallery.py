from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from edge.core.errors import GalleryError, ModelMismatchError
from edge.core.types import Quality, Subject
from edge.gallery import gallery as module
from edge.gallery.gallery import Gallery
from tests.support.gallery_samples import AT, MODEL, QUALITY, gallery_of, template, unit_rows


def test_an_empty_gallery_knows_its_model_and_nobody():
    gallery = Gallery.empty(MODEL, dim=128)
    assert (gallery.size, gallery.dim, gallery.version, gallery.model_id) == (0, 128, 0, MODEL)
    assert gallery.subject("p-0") is None
    assert gallery.templates_of("p-0") == ()


def test_an_enrolled_subject_has_its_templates_and_the_old_gallery_stays_as_it_was():
    rows = unit_rows(2)
    empty = Gallery.empty(MODEL)
    gallery = empty.with_subject(Subject("p-1", "Alice", ("staff",)), [template(row) for row in rows])
    assert empty.size == 0
    assert gallery.size == 1
    assert gallery.subject("p-1") == Subject("p-1", "Alice", ("staff",))
    templates = gallery.templates_of("p-1")
    assert [t.embedding.tolist() for t in templates] == rows.tolist()
    assert {(t.model_id, t.quality, t.source, t.created_at) for t in templates} == {
        (MODEL, QUALITY, "photo", AT)
    }


def test_rows_lie_together_and_know_their_subject():
    gallery = gallery_of([2, 1, 3])
    assert gallery.starts.tolist() == [0, 2, 3]
    assert gallery.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert gallery.matrix.dtype == np.float32
    assert gallery.matrix.flags.c_contiguous
    assert np.array_equal(np.stack([t.embedding for t in gallery.templates_of("p-2")]), gallery.matrix[3:])


def test_enrolling_again_replaces_all_templates():
    gallery = gallery_of([2, 2])
    again = gallery.with_subject(Subject("p-0", "New"), [template(unit_rows(1, seed=9)[0])])
    assert again.size == 2
    assert len(again.templates_of("p-0")) == 1
    assert len(again.templates_of("p-1")) == 2
    assert again.subject("p-0") == Subject("p-0", "New")


def test_removing_a_subject_leaves_the_rows_of_the_others():
    gallery = gallery_of([2, 1, 3])
    less = gallery.without_subject("p-1")
    assert [subject.subject_id for subject in less.subjects] == ["p-0", "p-2"]
    for subject_id in ("p-0", "p-2"):
        before = [t.embedding.tolist() for t in gallery.templates_of(subject_id)]
        assert [t.embedding.tolist() for t in less.templates_of(subject_id)] == before


def test_the_last_subject_can_be_removed():
    assert gallery_of([1]).without_subject("p-0").size == 0


def test_removing_nobody_is_an_error_that_says_so():
    with pytest.raises(GalleryError, match="'p-9' is not enrolled"):
        gallery_of([1]).without_subject("p-9")


def test_the_rows_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        gallery_of([1]).matrix[0, 0] = 1


def test_a_template_of_another_model_never_joins():
    other = template(unit_rows(1)[0], model_id="sface-fp32@ffffffff")
    with pytest.raises(ModelMismatchError, match=r"sface-fp32@ffffffff.*sface-int8@0123abcd"):
        gallery_of([1]).with_subject(Subject("p-9", ""), [other])


def broken(value: float, at: int = 5) -> np.ndarray:
    row = unit_rows(1)[0].copy()
    row[at] = value
    return row


@pytest.mark.parametrize(
    ("embedding", "says"),
    [
        pytest.param(broken(np.nan), "norm nan", id="NaN"),
        pytest.param(broken(np.inf), "norm inf", id="infinity"),
        pytest.param(unit_rows(1)[0] * 50, "norm 50", id="scaled by 50"),
        pytest.param(unit_rows(1)[0] * np.float32(1.002), "norm 1.002", id="slightly too long"),
        pytest.param(np.zeros(128, np.float32), "norm 0", id="zeros"),
        pytest.param(unit_rows(1, 64)[0], "length 128", id="another dimension"),
        pytest.param(unit_rows(1)[0][None], "length 128", id="two dimensions"),
    ],
)
def test_an_embedding_that_cannot_be_compared_is_refused(embedding: np.ndarray, says: str):
    with pytest.raises(GalleryError, match=says):
        gallery_of([1]).with_subject(Subject("p-9", ""), [template(embedding)])


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        pytest.param(Subject("", ""), "is empty", id="empty id"),
        pytest.param(Subject("a" * 65, ""), "65 characters", id="long id"),
        pytest.param(Subject("a\nb", ""), "cannot be printed", id="newline"),
        pytest.param(Subject("a\0b", ""), "cannot be printed", id="NUL"),
        pytest.param(Subject("a\x1b[31m", ""), "cannot be printed", id="terminal escape"),
        pytest.param(Subject("a\u202eb", ""), "cannot be printed", id="text direction override"),
        pytest.param(Subject("\ud800", ""), "cannot be printed", id="lone surrogate"),
        pytest.param(Subject("a/b", ""), "looks like a path", id="slash"),
        pytest.param(Subject("a\\b", ""), "looks like a path", id="backslash"),
        pytest.param(Subject("..", ""), "looks like a path", id="parent directory"),
        pytest.param(Subject(" a", ""), "space", id="leading space"),
        pytest.param(Subject("p-0", "a\nb"), "label", id="label with newline"),
        pytest.param(Subject("p-0", "a" * 129), "label", id="long label"),
        pytest.param(Subject("p-0", "", ("a", "a")), "each of them once", id="group twice"),
        pytest.param(Subject("p-0", "", tuple(f"g{i}" for i in range(17))), "at most 16", id="many groups"),
        pytest.param(Subject("p-0", "", ("a/b",)), "group looks like a path", id="hostile group"),
    ],
)
def test_a_hostile_subject_is_refused(subject: Subject, says: str):
    with pytest.raises(GalleryError, match=says) as caught:
        Gallery.empty(MODEL).with_subject(subject, [template(unit_rows(1)[0])])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_two_subjects_with_one_id_are_refused():
    entry = (Subject("p-1", ""), [template(unit_rows(1)[0])])
    with pytest.raises(GalleryError, match="twice"):
        Gallery.empty(MODEL).with_subjects([entry, entry])


@pytest.mark.parametrize("count", [0, 6])
def test_a_subject_has_one_to_five_templates(count: int):
    with pytest.raises(GalleryError, match=f"has {count} templates"):
        Gallery.empty(MODEL).with_subject(Subject("p-1", ""), [template(row) for row in unit_rows(count)])


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    with pytest.raises(GalleryError, match="4 templates are too many"):
        gallery_of([2, 2])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"version": -1}, "not a version", id="negative version"),
        pytest.param({"model_id": ""}, "model id", id="no model"),
        pytest.param({"model_id": "a\nb"}, "model id", id="model with newline"),
        pytest.param({"counts": (1, 1)}, "do not agree", id="row without subject"),
        pytest.param({"counts": (3,)}, "do not agree", id="subject without count"),
        pytest.param({"provenance": ()}, "do not agree", id="rows without provenance"),
        pytest.param({"matrix": unit_rows(3).astype(np.float64)}, "float32", id="float64"),
        pytest.param({"matrix": unit_rows(6)[::2]}, "contiguous", id="not contiguous"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(change: dict[str, object], says: str):
    with pytest.raises(GalleryError, match=says):
        replace(gallery_of([1, 2]), **change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"source": ""}, "source", id="no source"),
        pytest.param({"source": "a" * 65}, "source", id="long source"),
        pytest.param({"created_at": datetime(2026, 1, 1)}, "UTC", id="naive time"),
        pytest.param(
            {"created_at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))}, "UTC", id="other zone"
        ),
        pytest.param({"quality": Quality(np.nan, 1, 0, 1, 1, 1)}, "not finite", id="NaN quality"),
    ],
)
def test_a_template_of_doubtful_origin_is_refused(change: dict[str, object], says: str):
    with pytest.raises(GalleryError, match=says):
        Gallery.empty(MODEL).with_subject(Subject("p-1", ""), [replace(template(unit_rows(1)[0]), **change)])
