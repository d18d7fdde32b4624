"""The ledger of faults must be able to find fault."""

import json

import pytest

from tests.faults.ledger import Entry, History


def message(seq: int, event_id: str, **more: object) -> bytes:
    return json.dumps({"seq": seq, "event_id": event_id, **more}).encode()


GOOD = [message(1, "a"), message(2, "b", replayed=False), message(2, "b", replayed=True), message(3, "c")]


def told(messages: list[bytes], dropped: int = 0) -> tuple[int, int]:
    history = History()
    for each in messages:
        history.add(each)
    return len(history.wrong({"a", "b", "c", "d"})), history.gaps(dropped)


def test_what_came_twice_is_no_fault():
    assert told(GOOD) == (0, 0)
    assert told(GOOD[::-1]) == (0, 0)
    assert told([]) == (0, 0)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param(message(2, "d"), (1, 0), id="a number of two events"),
        pytest.param(message(2, "b", score=1), (1, 0), id="an event of two contents"),
        pytest.param(message(4, "b"), (1, 0), id="an event of two numbers"),
        pytest.param(message(4, "e"), (1, 0), id="never decided"),
        pytest.param(message(5, "d"), (0, 1), id="a gap"),
        pytest.param(message(1, "e", score=1), (2, 0), id="two at once"),
    ],
)
def test_a_bad_history_is_told(more: bytes, expected: tuple[int, int]):
    assert told([*GOOD, more]) == expected
    assert told([more, *GOOD]) == expected


def test_a_gap_that_the_device_told_as_dropped_is_none():
    messages = [*GOOD, message(7, "d")]
    assert [told(messages, dropped)[1] for dropped in (0, 1, 3, 9)] == [3, 2, 0, 0]


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"repeated": 5}, True),
        ({"lost": 1}, False),
        ({"wrong": 1}, False),
        ({"gaps": 1}, False),
        ({"decided": 0}, False),
        ({"lost": 1, "gaps": 1, "expected_loss": True}, True),
        ({"wrong": 1, "expected_loss": True}, False),
    ],
)
def test_an_entry_is_good_only_where_nothing_is_missing_or_wrong(changes: dict[str, int], good: bool):
    assert (
        Entry(**{"fault": "x", "rounds": 1, "decided": 9, "delivered": 9, "lost": 0, **changes}).good == good
    )  # type: ignore[arg-type]
