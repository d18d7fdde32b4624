import logging
from pathlib import Path

import pytest

from edge.mqtt.delivery.journal import PAGE, SETTLE_S, WINDOW
from edge.mqtt.delivery.outbox import Changes, Pending
from tests.mqtt.delivery.desk import NO_SUBSCRIBER, NOT_AUTHORIZED, TOO_LARGE, Desk
from tests.support.door import make_row


def test_rows_leave_in_order_and_no_more_than_the_window(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 100)
    desk.journal.begin(65535)

    assert desk.send() == list(range(1, WINDOW + 1))
    desk.answer(3)
    assert desk.send() == [WINDOW + 1]


def test_the_broker_may_make_the_window_smaller(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 100)
    desk.journal.begin(3)

    assert desk.send() == [1, 2, 3]


def test_a_long_backlog_drains_page_by_page(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 5 * PAGE + 7)
    desk.journal.begin(65535)
    arrived: list[int] = []
    while sent := desk.send():
        for seq in sent:
            desk.answer(seq)
        arrived += sent

    assert arrived == list(range(1, 5 * PAGE + 8))
    assert desk.depth(SETTLE_S) == 0
    assert desk.journal.idle


def test_nothing_leaves_without_a_connection(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 3)

    assert desk.send() == []
    desk.journal.begin(10)
    assert desk.send() == [1, 2, 3]
    desk.journal.end()
    desk.journal.stored()
    assert desk.send() == []


def test_what_was_in_flight_leaves_again_on_the_next_connection(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 3)
    desk.journal.begin(10)
    desk.send()
    desk.answer(2)
    assert desk.depth(SETTLE_S) == 2
    lost = desk.flying[1]
    desk.journal.end()
    desk.journal.begin(10)

    assert desk.journal.answered(lost, 0, 0.0) is False
    assert desk.send() == [1, 3]


def test_what_was_accepted_just_before_the_connection_broke_leaves_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 3)
    desk.journal.begin(10)
    desk.send()
    desk.answer(1, now_s=0.0)
    desk.answer(2, now_s=SETTLE_S)
    assert desk.journal.due_s == SETTLE_S
    assert desk.depth(SETTLE_S) == 2, "the first has settled"
    desk.journal.end()
    desk.journal.begin(10)

    assert desk.send() == [2, 3]
    assert desk.depth(10 * SETTLE_S) == 2


def test_what_was_accepted_is_not_sent_again_while_it_settles(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 4, topic=lambda seq: "front" if seq <= 2 else "back")
    desk.journal.begin(10)
    desk.send()
    desk.answer(3)
    desk.answer(1, NO_SUBSCRIBER)
    desk.answer(2, NO_SUBSCRIBER)

    assert desk.send(1.0) == [1]
    desk.answer(1, 0, now_s=1.0)
    assert desk.send(1.0) == [2]


def test_a_page_that_was_asked_on_an_old_connection_is_ignored(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 3)
    desk.journal.begin(10)
    assert desk.journal.next(0.0) is None
    old = desk.requests.pop()
    desk.journal.end()
    desk.journal.begin(10)
    desk.journal.take(Pending(old[0], tuple(desk.outbox.pending(1, after=2))))

    assert desk.send() == [1, 2, 3]


def test_new_rows_leave_when_they_are_stored(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    desk.journal.begin(10)
    assert desk.send() == [1]
    desk.outbox.write(Changes(puts={2: make_row(2, topic="front")}))
    assert desk.send() == [], "nobody has told yet"
    desk.journal.stored()

    assert desk.send() == [2]


@pytest.mark.parametrize("reason", [NO_SUBSCRIBER, NOT_AUTHORIZED, 0x80, 0x83, 0x97])
def test_a_refused_row_stays_and_is_probed_with_growing_pauses(
    tmp_path: Path, reason: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path, 40)
    desk.journal.begin(65535)
    for seq in desk.send():
        desk.answer(seq, reason, now_s=0.0)

    assert desk.send(0.9) == [], "paused, not spinning"
    assert desk.journal.due_s == 1.0
    assert desk.send(1.0) == [1], "one row probes"
    desk.answer(1, reason, now_s=1.1)
    assert desk.send(3.0) == []
    assert desk.send(3.2) == [1], "after twice the pause"
    desk.answer(1, 0, now_s=3.2)
    assert desk.send(3.2) == list(range(2, WINDOW + 2)), "the window opens again"
    assert desk.depth(3.2 + SETTLE_S) == 39
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1, "said once"


def test_a_refused_topic_does_not_block_the_one_beside_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 400, topic=lambda seq: "front" if seq <= 350 else "back")
    desk.journal.begin(65535)
    for seq in desk.send():
        desk.answer(seq, NO_SUBSCRIBER)

    arrived: list[int] = []
    while sent := desk.send(0.5):
        for seq in sent:
            desk.answer(seq)
        arrived += sent
    assert arrived == list(range(351, 401))
    assert desk.send(1.0) == [1]


@pytest.mark.parametrize("reason", [0x90, TOO_LARGE, 0x99])
def test_a_hopeless_row_is_undeliverable_and_blocks_nothing(
    tmp_path: Path, reason: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path, 3)
    desk.journal.begin(1)
    assert desk.send() == [1]
    desk.answer(1, reason)

    assert desk.send() == [2]
    assert desk.outbox.counts().undeliverable == 1
    assert "event undeliverable" in caplog.text


def test_a_hopeless_probe_makes_way_for_the_next(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 3)
    desk.journal.begin(65535)
    for seq in desk.send():
        desk.answer(seq, NO_SUBSCRIBER)
    assert desk.send(1.0) == [1]
    desk.answer(1, TOO_LARGE, now_s=1.0)

    assert desk.send(1.0) == [2]


def test_rows_in_flight_are_not_sent_twice_when_the_outbox_is_read_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 4, topic=lambda seq: "front" if seq == 1 else "back")
    desk.journal.begin(65535)
    assert desk.send() == [1, 2, 3, 4]
    desk.answer(1, NO_SUBSCRIBER, now_s=0.0)

    assert desk.send(1.0) == [1]


def test_an_answer_to_something_else_is_left_to_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    desk.journal.begin(10)
    desk.send()

    assert desk.journal.answered(4711, 0, 0.0) is False


def test_it_is_idle_only_when_all_was_sent_and_answered(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    desk.journal.begin(10)
    assert not desk.journal.idle
    desk.send()
    assert not desk.journal.idle
    desk.answer(1)
    assert desk.journal.idle
    desk.journal.stored()
    assert not desk.journal.idle


def test_nothing_is_due_that_cannot_be_done(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 4, topic=lambda seq: "front" if seq <= 2 else "back")
    desk.journal.begin(2)
    desk.send()
    desk.answer(1, NO_SUBSCRIBER)
    desk.send()
    assert desk.journal.due_s == 1.0
    desk.journal.tick(1.0)
    assert desk.journal.due_s is None, "the window is full; an answer will wake us, not the clock"

    desk.answer(2, NO_SUBSCRIBER)
    desk.journal.end()
    assert desk.journal.due_s is None, "without a connection there is nothing to wait for"


def test_a_page_that_could_not_be_read_is_asked_for_again_from_the_same_place(tmp_path: Path):
    desk = Desk(tmp_path, PAGE + 5)
    desk.journal.begin(100)
    assert desk.journal.next(0.0) is None
    token, _, after, _ = desk.requests.pop()
    in_memory = make_row(999, topic="front")
    desk.journal.take(Pending(token, (in_memory,), read=False))
    assert desk.send() == [999], "what is in memory goes out meanwhile"
    assert not desk.journal.idle
    desk.journal.tick(0.0)
    assert desk.journal.due_s == 1.0
    assert desk.send(0.5) == [], "and the disk is not asked without a pause"
    desk.journal.tick(1.0)
    assert desk.send(1.0) == list(range(1, WINDOW)), "nothing that waits is left behind"
    assert after == 0
