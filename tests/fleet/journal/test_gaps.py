"""Numbers that are missing, late, filled, or begin again."""

from edge.fleet.journal.gaps import GRACE_S, MAX_GAPS, Gaps


def saw(gaps: Gaps, *numbers: int, source: str = "hq/a", now_s: float = 0.0) -> list[str]:
    return [told for number in numbers if (told := gaps.saw(source, number, now_s)) is not None]


def test_numbers_in_order_are_no_news():
    gaps = Gaps()
    assert saw(gaps, *range(50, 100)) == gaps.news(1e6) == []
    assert gaps.missing() == {}


def test_a_gap_is_told_once_and_late():
    gaps = Gaps()
    saw(gaps, 1, 2, 6, 9)
    assert gaps.news(GRACE_S / 2) == []
    assert gaps.news(GRACE_S) == ["hq/a: gap: #3-5 missing", "hq/a: gap: #7-8 missing"]
    assert gaps.news(1e6) == []
    assert gaps.missing() == {"hq/a": [(3, 5), (7, 8)]}


def test_cameras_that_overtake_one_another_are_no_gap():
    gaps = Gaps()
    assert saw(gaps, 1, 4, 5, 3, 2, 6) == []
    assert gaps.news(1e6) == []


def test_a_gap_that_is_filled_later_is_said_to_be_filled():
    gaps = Gaps()
    saw(gaps, 1, 5)
    gaps.news(GRACE_S)
    assert saw(gaps, 3) == []
    assert gaps.missing() == {"hq/a": [(2, 2), (4, 4)]}
    assert saw(gaps, 2, 4) == ["hq/a: gap filled: #2-4 came late"]
    assert (gaps.missing(), gaps.filled) == ({}, 1)


def test_what_is_older_than_the_first_is_late_and_no_gap():
    gaps = Gaps()
    assert saw(gaps, 100, 40, 101) == gaps.news(1e6) == []


def test_numbers_that_overtake_one_another_at_the_beginning_are_no_new_outbox():
    gaps = Gaps()
    assert saw(gaps, 6, 2, 4, 1, 3, 8) == []
    assert gaps.missing() == {"hq/a": [(7, 7)]}
    assert saw(gaps, 5, 7) == gaps.news(1e6) == []
    assert (gaps.missing(), gaps.filled) == ({}, 0)


def test_a_new_outbox_begins_again():
    gaps = Gaps()
    saw(gaps, *range(1, 8))
    assert saw(gaps, 1) == ["hq/a: numbers begin again at 1: the device has a new outbox"]
    assert saw(gaps, 2, 3) == []


def test_devices_count_for_themselves():
    gaps = Gaps()
    saw(gaps, 1, 2, source="hq/a")
    saw(gaps, 1, 3, source="hq/b")
    assert gaps.missing() == {"hq/b": [(2, 2)]}


def test_what_is_remembered_is_bounded():
    gaps = Gaps()
    saw(gaps, *range(1, 10 * MAX_GAPS, 2), 20 * MAX_GAPS)
    assert len(gaps.missing()["hq/a"]) == MAX_GAPS


def test_a_device_that_could_not_read_its_outbox_goes_on_elsewhere_and_misses_nothing():
    gaps = Gaps()
    base = 1_795_000_000_000_000
    assert [gaps.saw("a", seq, 0.0) for seq in (1, 2, base)] == [
        None,
        None,
        f"a: numbers go on at {base}: the device could not read its outbox at its start",
    ]
    assert [gaps.saw("a", seq, 0.0) for seq in (base + 1, base + 3, 3, 4)] == [None] * 4, "late ones, too"
    assert not [each for each in gaps.news(60.0) if str(base - 1) in each]
    assert gaps.missing() == {"a": [(base + 2, base + 2)]}


def test_old_numbers_that_a_device_goes_on_with_after_a_jump_are_told_where_some_are_missing():
    gaps = Gaps()
    base = 1_795_000_000_000_000
    saw(gaps, 1, 2, 3, base, base + 1)
    assert saw(gaps, 4, 5, 10, now_s=1.0) == []
    assert gaps.news(1.0 + GRACE_S) == ["hq/a: gap: #6-9 missing"]
    assert gaps.missing() == {"hq/a": [(6, 9)]}
    assert saw(gaps, 7, 6, 9, 8, 11, base + 2) == ["hq/a: gap filled: #6-9 came late"]
    assert (gaps.missing(), gaps.news(1e6)) == ({}, [])


def test_new_numbers_that_overtake_one_another_after_a_jump_are_told_where_some_are_missing():
    gaps = Gaps()
    base = 1_795_000_000_000_000
    saw(gaps, 1, base + 4)
    assert saw(gaps, base + 1, 2, base + 2, base // 2) == []
    assert gaps.news(GRACE_S) == [f"hq/a: gap: #{base + 3} missing"]
    assert saw(gaps, base + 3, base, 3) == [f"hq/a: gap filled: #{base + 2}-{base + 3} came late"]
    assert gaps.missing() == {}


def test_gaps_among_old_numbers_are_bounded():
    gaps = Gaps()
    saw(gaps, 1, 1_795_000_000_000_000)
    saw(gaps, *range(3, 10 * MAX_GAPS, 2))
    assert len(gaps.missing()["hq/a"]) <= MAX_GAPS
    assert saw(gaps, 10 * MAX_GAPS + 1) == [], "the jump itself is remembered"
