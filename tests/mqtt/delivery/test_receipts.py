"""Rows that wait for a consumer: bounded, sent again when it is time, never in the way of others."""

from itertools import pairwise
from pathlib import Path

from edge.mqtt.delivery.outbox import Changes
from edge.mqtt.delivery.receipts import ACK_S, ACK_WINDOW, LONGEST_ACK_S, MOST_REFUSED, SLOT_S
from tests.mqtt.delivery.desk import NO_SUBSCRIBER, Desk
from tests.support.door import make_row


class ConsumerDesk(Desk):
    """A journal that waits for a consumer, and both played by the test."""

    def __init__(self, directory: Path, rows: int, topic=lambda seq: "front") -> None:
        super().__init__(directory, rows, topic, consumer=True)
        self.ids = {row.seq: row.event_id for row in self.outbox.pending(100_000)}
        self.journal.begin(65535)

    def acknowledge(self, event_ids: tuple[str, ...]) -> None:
        self.outbox.write(Changes(acknowledged=set(event_ids)))

    def look_up(self, event_ids: tuple[str, ...]) -> bool:
        self.acknowledge(event_ids)
        return True

    def deliver(self, now_s: float) -> list[int]:
        """Send whatever may be sent, and let the broker take it over; returns the seqs."""
        self.journal.tick(now_s)
        arrived: list[int] = []
        while sent := self.send(now_s):
            for seq in sent:
                self.answer(seq, now_s=now_s)
            arrived += sent
        return arrived

    def name(self, *seqs: int, now_s: float = 0.0) -> None:
        self.journal.acknowledged(tuple(self.ids[seq] for seq in seqs), now_s)

    def wait(self, from_s: float, until_s: float) -> dict[float, list[int]]:
        """Do nothing but what is due; returns what was sent when."""
        sent, now_s = {}, from_s
        while (due_s := self.journal.due_s) is not None and due_s <= until_s:
            now_s = max(now_s + 1e-3, due_s)
            if arrived := self.deliver(now_s):
                sent[round(now_s, 1)] = arrived
        return sent


def test_a_row_leaves_when_it_is_named_and_not_before(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 3)
    assert desk.deliver(0.0) == [1, 2, 3]
    assert desk.depth(5.0) == 3, "the broker's word is not enough"
    desk.name(1, 3)
    assert [row.seq for row in desk.outbox.pending(10)] == [2]
    assert desk.journal.idle, "stopping does not wait for a consumer"


def test_what_nobody_names_goes_again_ever_more_seldom(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 3)
    desk.deliver(0.0)
    desk.name(2)
    sent = desk.wait(0.0, 7200.0)
    times = list(sent)
    assert all(rows == [1, 3] for rows in sent.values())
    assert times[0] == ACK_S
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses == sorted(pauses)
    assert 2 * ACK_S <= pauses[0] <= 2 * ACK_S + 1
    assert LONGEST_ACK_S <= pauses[-1] <= LONGEST_ACK_S + 1


def test_what_goes_again_is_marked_and_what_goes_first_is_not(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 2)
    rows = desk.outbox.pending(2)
    assert not any(desk.journal.again(row) for row in rows)
    desk.deliver(0.0)
    assert all(desk.journal.again(row) for row in rows)
    desk.outbox.write(Changes(puts={3: make_row(3, topic="front")}))
    assert not desk.journal.again(desk.outbox.pending(3)[-1])
    desk.journal.end()
    desk.journal.begin(65535)
    assert all(desk.journal.again(row) for row in rows), "after a new connection too"


def test_a_new_connection_sends_everything_unnamed_again_in_order(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 5)
    desk.deliver(0.0)
    desk.name(2)
    desk.journal.end()
    desk.journal.begin(65535)
    assert desk.deliver(1.0) == [1, 3, 4, 5]


def test_a_slow_consumer_sets_the_pace(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 3 * ACK_WINDOW)
    first = desk.deliver(0.0)
    assert len(first) < ACK_WINDOW + 16, "a window, and what was in flight with its last row"
    assert desk.deliver(1.0) == []
    desk.name(*first, now_s=1.0)
    second = desk.deliver(1.0)
    assert second[0] == first[-1] + 1
    assert len(second) >= ACK_WINDOW


def test_a_consumer_that_never_answers_stops_nobody_else_for_long(tmp_path: Path) -> None:
    rows = 2000
    desk = ConsumerDesk(tmp_path, rows)
    sent = {0.0: desk.deliver(0.0)} | desk.wait(0.0, ACK_S - 1)
    assert [seq for part in sent.values() for seq in part] == list(range(1, rows + 1))
    assert max(sent) <= (rows // ACK_WINDOW) * SLOT_S
    desk.wait(ACK_S, 400.0)
    desk.outbox.write(Changes(puts={rows + 1: make_row(rows + 1, topic="front")}))
    desk.journal.stored()
    later = desk.wait(400.0, 400.0 + SLOT_S + 1) or {400.0: desk.deliver(400.0 + SLOT_S + 1)}
    assert rows + 1 in [seq for part in later.values() for seq in part], "new ones go before the repeated"


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 20_000)
    desk.deliver(0.0)
    desk.wait(0.0, 1000.0)
    assert len(desk.journal._receipts._seqs) <= (ACK_S / SLOT_S + 1) * (ACK_WINDOW + 16)


def test_a_consumer_that_comes_back_gets_the_rest_at_once(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 3)
    desk.deliver(0.0)
    desk.wait(0.0, 3600.0)
    desk.outbox.write(Changes(puts={4: make_row(4, topic="front")}))
    desk.journal.stored()
    desk.ids[4] = desk.outbox.pending(10)[-1].event_id
    assert desk.deliver(3700.0) == [4]
    desk.name(4, now_s=3700.0)
    again = desk.deliver(3700.0) + [
        seq for part in desk.wait(3700.0, 3701.0 + ACK_S).values() for seq in part
    ]
    assert set(again) == {1, 2, 3}


def test_a_refused_topic_does_not_send_the_others_again(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 6, topic=lambda seq: "front" if seq % 2 else "back")
    for seq in desk.send():
        desk.answer(seq, NO_SUBSCRIBER if seq % 2 else 0)
    desk.wait(0.0, 0.9)
    assert desk.deliver(1.0) == [1, 3, 5], "after the pause, and none of the other topic"


def test_a_refused_row_below_an_accepted_one_is_not_passed_over(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 3)
    desk.send()
    desk.answer(2)
    desk.answer(1, NO_SUBSCRIBER)
    desk.answer(3)
    assert 1 in [seq for part in desk.wait(0.0, 2 * ACK_S).values() for seq in part]


def test_rows_that_were_refused_before_a_later_one_was_accepted_are_not_passed_over(tmp_path: Path) -> None:
    """A consumer that subscribes while rows are in flight misses the first of them."""
    desk = ConsumerDesk(tmp_path, 20)
    assert desk.send() == list(range(1, 17))
    for seq in range(1, 17):
        desk.answer(seq, NO_SUBSCRIBER if seq < 4 else 0)
    assert desk.deliver(0.0)[:3] == [1, 2, 3]
    desk.name(*range(1, 21))
    assert desk.depth(0.0) == 0


def test_what_is_remembered_of_refused_rows_is_bounded(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 3 * MOST_REFUSED)
    now_s = 0.0
    for seq in range(1, 3 * MOST_REFUSED + 1):
        for sent in desk.send(now_s):
            desk.answer(sent, NO_SUBSCRIBER, now_s)
        desk.done(seq)  # as where the outbox is full and drops its oldest
        now_s += 100.0
        desk.journal.tick(now_s)
    assert len(desk.journal._receipts._refused["front"]) == MOST_REFUSED


def test_an_ack_of_what_nobody_knows_changes_nothing(tmp_path: Path) -> None:
    desk = ConsumerDesk(tmp_path, 2)
    desk.deliver(0.0)
    desk.journal.acknowledged(("0194b6a0-0000-7000-8000-000000000000",), 0.0)
    assert desk.outbox.counts().depth == 2
