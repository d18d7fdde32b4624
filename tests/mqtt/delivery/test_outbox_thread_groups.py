"""How the outbox's thread groups what it is asked for: nothing waits long, and no flood is kept."""

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.mqtt.delivery import outbox_thread
from edge.mqtt.delivery.outbox import Outbox, Stored
from edge.mqtt.delivery.outbox_thread import OutboxThread
from tests.support.door import make_row, now
from tests.support.waits import LIMIT_S, Stopwatch, wait_until


@pytest.fixture
def thread(tmp_path: Path) -> Iterator[OutboxThread]:
    """Not started yet; its answers lie in `answers`."""
    made = OutboxThread(
        Outbox.open(tmp_path / "outbox.sqlite", max_rows=50_000, now=now),
        queue.SimpleQueue[Any](),
        beats=Beats(),
        metrics=Metrics(),
        clock=SystemClock(),
    )
    yield made
    if not made.ident:
        made.start()
    made.stop(5)


def test_the_first_rows_of_many_do_not_wait_for_the_last(thread: OutboxThread):
    for seq in range(1, 201):
        thread.put(make_row(seq))
    thread.start()
    stored: list[tuple[int, ...]] = []
    while sum(map(len, stored)) < 200:
        answer = thread._answers.get(timeout=LIMIT_S)
        assert isinstance(answer, Stored)
        stored.append(answer.seqs)
    assert stored[0][0] == 1
    assert max(map(len, stored)) <= 16


def test_what_was_delivered_is_forgotten_at_once(thread: OutboxThread):
    thread.put(make_row(1))
    thread.start()
    thread._answers.get(timeout=LIMIT_S)
    watch = Stopwatch()
    thread.done(1)
    wait_until(lambda: thread.counts.depth == 0)
    assert watch.undisturbed_s < 0.5, "well below a second"


def test_ids_to_look_up_are_bounded_until_they_were_looked_up(
    thread: OutboxThread, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox_thread, "MAX_LOOKED_UP", 5)
    row = make_row(1)
    thread.put(row)
    assert thread.look_up((row.event_id, "b", "c"))
    assert not thread.look_up(("d", "e", "f"))
    assert thread.look_up(("d", "e"))
    thread.start()
    wait_until(lambda: thread._metrics.counts().get("ack.unknown") == 4)
    assert thread.counts.depth == 0
    assert thread.look_up(("d", "e", "f"))
