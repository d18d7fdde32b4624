import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.mqtt.contract.messages import EventPayload, StatePayload
from edge.mqtt.delivery.outbox import Changes, Outbox, Unopened, Written, beyond
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.door import TOPICS, Door, make_event, make_row, now
from tests.support.waits import LIMIT_S, Stopwatch, wait_until

OpenDoor = Callable[..., Door]


def events(payloads: list[bytes]) -> list[EventPayload]:
    return [EventPayload.model_validate_json(payload) for payload in payloads]


def last_state(seen: Subscriber) -> StatePayload:
    return StatePayload.model_validate_json(seen.on("/state")[-1])


def test_stopping_clears_takes_leave_and_leaves_nothing_undelivered(
    mosquitto: Mosquitto, open_door: OpenDoor, tmp_path: Path
) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        door.courier.publish_camera_status("front", True, "")
        wait_until(lambda: door.courier.connected)
        ids = door.publish(40)
        watch = Stopwatch()
        assert door.courier.stop(LIMIT_S)
        assert watch.undisturbed_s < 3.0
        seen.wait(lambda: seen.on("door-03/status")[-1:] == [b"offline"])

        assert [event.event_id for event in events(seen.on("/journal"))] == ids
        assert last_state(seen) == StatePayload()
        assert seen.on("/camera/front/status")[-1] == b"offline"
        assert seen.seen[-1].topic == TOPICS.status, "the farewell is the last word"
    left = Outbox.open(tmp_path / "outbox.sqlite", max_rows=100, now=lambda: make_event().captured_at)
    assert left.counts().depth == 0
    assert left.last_seq == 40
    left.close()


def test_stopping_with_a_backlog_that_nobody_takes_keeps_its_deadline(
    mosquitto: Mosquitto, open_door: OpenDoor, tmp_path: Path
) -> None:
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)
    door.publish(500)
    wait_until(lambda: door.courier.outbox_health().depth == 500)
    watch = Stopwatch()

    assert door.courier.stop(3.0)

    assert watch.undisturbed_s < 3.0
    left = Outbox.open(tmp_path / "outbox.sqlite", max_rows=1000, now=lambda: make_event().captured_at)
    assert left.counts().depth == 500
    left.close()


@pytest.mark.parametrize("frozen", [False, True], ids=["broker absent", "broker frozen"])
def test_stopping_without_an_answering_broker_keeps_its_deadline(
    mosquitto: Mosquitto, open_door: OpenDoor, tmp_path: Path, frozen: bool
) -> None:
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)
    if frozen:
        mosquitto.freeze()
    else:
        mosquitto.kill()
    door.publish(10)
    wait_until(lambda: door.courier.outbox_health().depth == 10)
    watch = Stopwatch()

    door.courier.stop(2.0)

    assert watch.undisturbed_s < 3.0
    left = Outbox.open(tmp_path / "outbox.sqlite", max_rows=1000, now=lambda: make_event().captured_at)
    assert left.counts().depth == 10
    left.close()


def test_an_oversize_event_is_undeliverable_and_blocks_nothing(
    tmp_path: Path, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", "max_packet_size 2000")).start()
    try:
        with subscriber(broker.port) as seen:
            door = open_door(broker.port)
            wait_until(lambda: door.courier.connected)
            before = door.publish()
            door.publish(visit="v" * 3000)
            after = door.publish()
            seen.wait(lambda: len(seen.on("/journal")) == 2)

            assert [event.event_id for event in events(seen.on("/journal"))] == before + after
            wait_until(lambda: door.courier.outbox_health().undeliverable == 1)
            assert door.courier.outbox_health().quarantined == 1, "the old name, for one release"
            assert "event undeliverable: the packet is too large" in caplog.text
            assert door.courier.link_health().connects == 1
    finally:
        broker.stop()


def test_a_denied_journal_keeps_its_rows_and_says_so_once(
    tmp_path: Path, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "acl"
    allowed = "topic read #\ntopic write edge/v1/hq/door-03/status\n"
    rules.write_text(allowed)
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", f"acl_file {rules}")).start()
    try:
        with subscriber(broker.port) as seen:
            door = open_door(broker.port)
            wait_until(lambda: door.courier.connected)
            ids = door.publish(20)
            wait_until(lambda: "journal refused" in caplog.text)
            assert "the broker does not authorise it" in caplog.text
            time.sleep(0.3)
            assert caplog.text.count("journal refused") == 1
            assert door.courier.outbox_health().depth == 20

            rules.write_text("topic readwrite #\n")
            assert broker.process is not None
            broker.restart()
            seen.wait(lambda: {event.event_id for event in events(seen.on("/journal"))} == set(ids))
    finally:
        broker.stop()


def test_a_disk_that_stalls_does_not_keep_the_door_waiting(
    mosquitto: Mosquitto, open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_really, disk = Outbox.write, threading.Event()

    def stalled(self: Outbox, *args: Any) -> Written:
        assert disk.wait(LIMIT_S)
        return write_really(self, *args)

    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        wait_until(lambda: door.courier.connected)
        monkeypatch.setattr(Outbox, "write", stalled)
        watch = Stopwatch()
        door.publish()
        seen.wait(lambda: seen.on("/event"))
        assert watch.wall_s > 0.09
        assert watch.undisturbed_s < 0.4
        assert seen.on("/journal") == [], "the journal waits for the disk"
        disk.set()
        seen.wait(lambda: seen.on("/journal"))
        monkeypatch.undo()


def test_an_event_that_cannot_be_encoded_costs_nothing_but_itself(
    mosquitto: Mosquitto, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        door.publish(event_id="no id")
        (good,) = door.publish()
        seen.wait(lambda: seen.on("/journal"))

    (arrived,) = events(seen.on("/journal"))
    assert (arrived.event_id, arrived.seq) == (good, 1), "and no number"
    assert "courier failed" in caplog.text
    assert door.metrics.counts()["courier.failures"] == 1


def test_the_threads_show_that_they_make_progress(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)

    assert door.beats.late() == []
    assert door.courier.link_health().protocol == "5"


def test_a_device_whose_disk_comes_late_delivers_meanwhile_and_then_what_was_left_on_it(
    mosquitto: Mosquitto, open_door: OpenDoor, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    away, path = tmp_path / "away", tmp_path / "disk" / "outbox.sqlite"
    away.mkdir()
    left = Outbox.open(away / path.name, max_rows=100, now=now)
    topic, waiting = TOPICS.journal("front"), range(1, 101)
    rows = {seq: make_row(seq, topic=topic, payload=b'{"seq":%d}' % seq) for seq in waiting}
    left.write(Changes(puts=rows))
    left.close()
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, database=Unopened(path, 1000, 1 << 20, beyond(now())))
        wait_until(lambda: door.courier.connected)
        door.publish(3)
        seen.wait(lambda: len(seen.on("/journal")) == 3 and len(seen.on("/event")) == 3)
        assert door.courier.outbox_health().durable is False
        live = [event.seq for event in events(seen.on("/event"))]
        away.rename(path.parent)
        wait_until(lambda: door.courier.outbox_health().durable)
        door.publish(2)
        seen.wait(lambda: len(seen.on("/event")) == 5)
        numbers = [event.seq for event in events(seen.on("/event"))]
        # Some twice: the broker's answer may come while the rows change from memory to the disk.
        seen.wait(lambda: {json.loads(row)["seq"] for row in seen.on("/journal")} == {*waiting, *numbers})
        wait_until(lambda: door.courier.outbox_health().depth == 0)
        assert door.courier.stop(5)
    assert numbers == list(range(live[0], live[0] + 5)), "it goes on, and no number repeats"
    again = Outbox.open(path, max_rows=100, now=now)
    assert again.last_seq == numbers[-1]
    again.close()
    told = [record.durable for record in caplog.records if record.message == "decision"]  # type: ignore[attr-defined]
    assert told == [False] * 3 + [True] * 2
