"""Who may pass a door now, and why a known subject may not: the mask and the reason always agree."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edge.core.access import Access, SubjectState, Window
from edge.core.types import Reason
from edge.gallery.admission import Admission
from edge.gallery.gallery import Gallery
from tests.support.gallery_samples import gallery_of

TUESDAY_NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
OFFICE = (Window.parse("mon-fri 07:00-18:00"),)


def one(access: Access = Access(), groups: tuple[str, ...] = ("staff",)) -> Gallery:  # noqa: B008
    gallery = gallery_of([1, 1])
    first, second = gallery.subjects
    return replace(
        gallery, subjects=(replace(first, access=access, groups=groups), replace(second, groups=("staff",)))
    )


CASES = [
    pytest.param(Access(), None, id="always"),
    pytest.param(Access(SubjectState.SUSPENDED), Reason.NOT_ALLOWED_HERE, id="suspended"),
    pytest.param(Access(SubjectState.REVOKED), Reason.NOT_ALLOWED_HERE, id="revoked"),
    pytest.param(Access(not_before=TUESDAY_NOON), None, id="valid from this moment"),
    pytest.param(Access(not_before=TUESDAY_NOON + DAY), Reason.EXPIRED, id="not yet valid"),
    pytest.param(Access(not_after=TUESDAY_NOON + DAY), None, id="still valid"),
    pytest.param(Access(not_after=TUESDAY_NOON), Reason.EXPIRED, id="valid until this moment"),
    pytest.param(Access(windows=OFFICE), None, id="in office hours"),
    pytest.param(
        Access(windows=(Window.parse("sat,sun 07:00-18:00"),)),
        Reason.OUTSIDE_WINDOW,
        id="at the weekend only",
    ),
    pytest.param(
        Access(windows=(Window.parse("tue 21:00-22:00"),), time_zone="Asia/Tokyo"),
        None,
        id="noon is nine in the evening there",
    ),
    pytest.param(
        Access(windows=(Window.parse("tue 12:00-13:00"),), time_zone="Asia/Tokyo"),
        Reason.OUTSIDE_WINDOW,
        id="noon is not noon there",
    ),
    pytest.param(
        Access(SubjectState.SUSPENDED, not_after=TUESDAY_NOON),
        Reason.NOT_ALLOWED_HERE,
        id="state comes first",
    ),
]


@pytest.mark.parametrize(("access", "reason"), CASES)
def test_a_subject_is_let_in_or_told_why_not(access: Access, reason: Reason | None):
    gallery = one(access)
    admission = Admission(gallery)
    allowed = admission.allowed(TUESDAY_NOON)
    assert admission.objection(gallery.subjects[0], TUESDAY_NOON) == reason
    assert (allowed is None) if reason is None else allowed is not None and allowed.tolist() == [False, True]


@pytest.mark.parametrize(
    ("door", "groups", "passes"),
    [
        pytest.param((), (), True, id="a door for everybody"),
        pytest.param(("lab",), ("staff", "lab"), True, id="one of its groups"),
        pytest.param(("lab", "yard"), ("yard",), True, id="one of the door's groups"),
        pytest.param(("lab",), ("staff",), False, id="another group"),
        pytest.param(("lab",), (), False, id="no group at a door of groups"),
    ],
)
def test_a_door_serves_its_groups(door: tuple[str, ...], groups: tuple[str, ...], passes: bool):
    gallery = one(groups=groups)
    admission = Admission(gallery, door)
    reason = admission.objection(gallery.subjects[0], TUESDAY_NOON)
    assert reason == (None if passes else Reason.NOT_ALLOWED_HERE)
    allowed = admission.allowed(TUESDAY_NOON)
    assert bool(allowed is None or allowed[0]) is passes


def test_the_door_s_time_zone_stands_in_for_the_subject_s():
    gallery = one(Access(windows=OFFICE))
    evening = TUESDAY_NOON.replace(hour=17, minute=30)  # 18:30 in Berlin, 12:30 in New York
    assert Admission(gallery, (), "Europe/Berlin").allowed(evening) is not None
    assert Admission(gallery, (), "America/New_York").allowed(evening) is None


def test_office_hours_stay_office_hours_when_clocks_change():
    admission = Admission(one(Access(windows=OFFICE, time_zone="Europe/Berlin")))
    winter, summer = datetime(2026, 3, 27, 6, 30, tzinfo=UTC), datetime(2026, 3, 30, 5, 30, tzinfo=UTC)
    assert admission.allowed(winter) is None
    assert admission.allowed(summer) is None
    assert admission.allowed(winter - timedelta(hours=1)) is not None


def test_a_gallery_that_restricts_nobody_costs_no_mask():
    assert Admission(gallery_of([1, 2, 3])).allowed(TUESDAY_NOON) is None
    assert Admission(Gallery.empty("none"), ("lab",)).allowed(TUESDAY_NOON) is None


def test_another_gallery_at_the_same_door_keeps_its_groups():
    admission = Admission(gallery_of([1]), ("lab",)).of(one(groups=("lab",)))
    allowed = admission.allowed(TUESDAY_NOON)
    assert allowed is not None
    np.testing.assert_array_equal(allowed, [True, False])


def test_a_gallery_is_stale_from_its_end_on_and_only_where_that_closes_the_door():
    gallery = replace(gallery_of([1]), not_after=TUESDAY_NOON)
    closing, going_on = Admission(gallery), Admission(gallery, open_when_stale=True)
    assert not closing.stale(TUESDAY_NOON - timedelta(microseconds=1))
    assert closing.stale(TUESDAY_NOON)
    assert not going_on.stale(TUESDAY_NOON + DAY)
    assert closing.of(gallery).stale(TUESDAY_NOON)
    assert not closing.of(gallery_of([1])).stale(TUESDAY_NOON), "renewed"
    assert not going_on.of(gallery).stale(TUESDAY_NOON), "another gallery does not change the policy"
