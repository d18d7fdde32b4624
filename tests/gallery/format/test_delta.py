"""The difference between two versions: what comes out is the published gallery byte for byte, or an error."""

from dataclasses import replace

import numpy as np
import pytest

from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.core.types import Subject
from edge.gallery.format import delta as delta_module
from edge.gallery.format.delta import HEADER, apply_delta, encode_delta, keeps_templates
from edge.gallery.gallery import Gallery
from tests.support.gallery_samples import assert_equal, gallery_of, template, unit_rows

BASE = replace(gallery_of([1, 2, 3, 1, 5, 1, 2, 1]), version=7)


def changed(*edits: str) -> Gallery:
    """Return the version after `BASE`, as an operator's edits would make it."""
    gallery = BASE
    for edit in edits:
        verb, _, subject_id = edit.partition(" ")
        rows = [template(row) for row in unit_rows(2, seed=len(edit))]
        match verb:
            case "remove":
                gallery = gallery.without_subject(subject_id)
            case "add" | "enrol":
                gallery = gallery.with_subject(Subject(subject_id, "New"), rows)
            case "rename":
                subject = gallery.subject(subject_id)
                assert subject is not None
                kept = gallery.templates_of(subject_id)
                gallery = gallery.with_subject(replace(subject, label="Other"), kept)
    return replace(gallery, version=8)


@pytest.mark.parametrize(
    "edits",
    [
        pytest.param((), id="nothing"),
        pytest.param(("remove p-0",), id="first gone"),
        pytest.param(("remove p-7", "remove p-3"), id="two gone"),
        pytest.param(("add x",), id="one new"),
        pytest.param(("enrol p-4",), id="enrolled again"),
        pytest.param(("rename p-2",), id="renamed"),
        pytest.param(("remove p-1", "add p-1"), id="gone and back"),
        pytest.param(("remove p-5", "add x", "add y", "rename p-0"), id="everything"),
        pytest.param(tuple(f"remove p-{i}" for i in range(8)), id="all gone"),
    ],
)
def test_the_result_is_the_new_gallery_byte_for_byte(edits: tuple[str, ...]):
    new = changed(*edits)
    data = encode_delta(BASE, new)
    assert data is not None
    assert_equal(apply_delta(BASE, data), new)


@pytest.mark.parametrize(
    ("edits", "kept"),
    [
        pytest.param((), True, id="nothing"),
        pytest.param(("add x",), True, id="one new"),
        pytest.param(("rename p-2",), True, id="renamed"),
        pytest.param(("remove p-7",), False, id="one gone"),
        pytest.param(("enrol p-4",), False, id="enrolled again"),
        pytest.param(("remove p-1", "add p-1"), False, id="gone and back"),
    ],
)
def test_a_template_that_goes_is_told_from_what_is_only_added(edits: tuple[str, ...], kept: bool):
    assert keeps_templates(BASE, changed(*edits)) is kept


def test_it_is_small_where_little_changed():
    many = replace(gallery_of([1] * 500), version=7)
    data = encode_delta(many, replace(many.without_subject("p-250"), version=8))
    assert data is not None
    assert len(data) < 1000


@pytest.mark.parametrize("version", [0, 6, 8])
def test_it_applies_to_exactly_the_version_it_was_made_from(version: int):
    data = encode_delta(BASE, changed("remove p-0"))
    assert data is not None
    with pytest.raises(GalleryIntegrityError, match="made from version 7"):
        apply_delta(replace(BASE, version=version), data)


def test_on_another_gallery_of_the_same_version_nothing_comes_out():
    data = encode_delta(BASE, changed("remove p-0"))
    assert data is not None
    with pytest.raises(GalleryIntegrityError, match="not the published gallery"):
        apply_delta(replace(BASE.without_subject("p-6"), version=7), data)


def test_no_damage_goes_unnoticed():
    data = encode_delta(BASE, changed("remove p-0", "add x"))
    assert data is not None
    positions = np.random.default_rng(0).integers(0, len(data) * 8, 300)
    for position in positions:
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << (position % 8)
        with pytest.raises(GalleryError):
            apply_delta(BASE, bytes(flipped))
    for length in (0, 7, HEADER.size, HEADER.size + 20, len(data) - 1):
        with pytest.raises(GalleryError):
            apply_delta(BASE, data[:length])


@pytest.mark.parametrize(
    ("base", "new"),
    [
        pytest.param(BASE, replace(BASE, version=7), id="same version"),
        pytest.param(BASE, Gallery.empty("other@12345678", 8), id="other model"),
        pytest.param(BASE, Gallery.empty(BASE.model_id, 8, 64), id="other length"),
    ],
)
def test_what_cannot_be_said_as_a_difference_is_not(base: Gallery, new: Gallery):
    assert encode_delta(base, new) is None


def test_where_much_is_new_the_whole_gallery_goes_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delta_module, "MAX_ADDED", 1)
    assert encode_delta(BASE, changed("add x")) is not None
    assert encode_delta(BASE, changed("add x", "add y")) is None
