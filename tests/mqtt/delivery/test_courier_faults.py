import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from edge.core.types import EventType
from edge.mqtt.broker import Broker
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.disk import small_disk
from tests.support.door import Door
from tests.support.waits import LIMIT_S, Stopwatch, wait_until

OpenDoor = Callable[..., Door]


def ids(payloads: list[bytes]) -> list[str]:
    return [json.loads(payload)["event_id"] for payload in payloads]


def journal(seen: Subscriber) -> set[str]:
    return set(ids(seen.on("/journal")))


def test_decisions_before_the_first_connection_arrive_when_the_broker_appears(
    tmp_path: Path, open_door: OpenDoor
) -> None:
    """The broker remembers its consumer over the restart: it knows whose they are before the door comes."""
    lines = ("allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/")
    broker = Mosquitto(tmp_path, lines=lines).start()
    try:
        with subscriber(broker.port) as seen:
            broker.stop()
            door = open_door(broker.port)
            decided = door.publish(100)
            wait_until(lambda: door.courier.outbox_health().depth == 100)
            broker.start()
            seen.wait(lambda: len(journal(seen)) == 100)

            assert list(dict.fromkeys(ids(seen.on("/journal")))) == decided, "in their order"
            assert seen.on("/event") == []
    finally:
        broker.stop()


def test_nothing_is_lost_while_the_broker_is_killed_again_and_again(
    mosquitto: Mosquitto, open_door: OpenDoor
) -> None:
    decided: list[str] = []
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        for _ in range(5):
            for number in range(60):
                decided += door.publish(event_type=EventType.REJECT if number % 3 else EventType.MATCH)
                time.sleep(0.003)
                if number == 20:
                    mosquitto.kill()
                if number == 40:
                    mosquitto.start()
        seen.wait(lambda: journal(seen) >= set(decided))
        wait_until(lambda: door.courier.outbox_health().depth == 0)

    live = ids(seen.on("/event"))
    assert len(live) == len(set(live)), "a live event is never sent twice"
    assert len(live) < len(decided), "and never replayed"
    assert not [payload for payload in seen.on("/event") if json.loads(payload)["replayed"]]
    numbers = {json.loads(payload)["seq"] for payload in seen.on("/journal")}
    assert numbers == set(range(1, len(decided) + 1)), "no gap"
    assert door.courier.outbox_health().dropped == 0


def packet_types(data: bytes) -> list[int]:
    """Return the type of every whole MQTT packet in `data`."""
    types, at = [], 0
    while at < len(data):
        length, shift, position = 0, 0, at + 1
        while True:
            if position >= len(data):
                return types
            length |= (data[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
            if data[position - 1] < 0x80:
                break
        types.append(data[at] >> 4)
        at = position + length
    return types


def test_no_more_is_unanswered_than_the_broker_allows(open_door: OpenDoor) -> None:
    publish, received = 3, b""
    with socket.create_server(("127.0.0.1", 0)) as server:
        door = open_door(server.getsockname()[1])
        with server.accept()[0] as connection:
            connection.recv(1024)
            connection.sendall(bytes([0x20, 6, 0, 0, 3, 0x21, 0, 5]))  # CONNACK, Receive Maximum 5
            wait_until(lambda: door.courier.connected)
            door.publish(50)
            connection.settimeout(LIMIT_S)
            while packet_types(received).count(publish) < 5:
                received += connection.recv(65536)
            connection.settimeout(0.5)
            with suppress(TimeoutError):
                while True:
                    received += connection.recv(65536)
        door.courier.stop(1)

    assert packet_types(received).count(publish) == 5


def test_live_events_that_queue_when_the_broker_dies_die_with_it(
    mosquitto: Mosquitto, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge.mqtt.delivery.courier")
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)
    mosquitto.freeze()
    decided = door.publish(60)
    wait_until(lambda: sum(record.message == "decision" for record in caplog.records) == 60)
    mosquitto.restart()
    with subscriber(mosquitto.port) as seen:
        seen.wait(lambda: journal(seen) == set(decided))

        assert seen.on("/event") == []
    # How many had left the queue for the frozen broker's socket depends on the machine's load.
    assert door.metrics.counts()["live.missed"] > 0


def test_live_events_of_a_connection_that_has_just_ended_are_counted_as_missed(
    mosquitto: Mosquitto, open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)
    with monkeypatch.context() as ended:
        # What the link answers between the end of a connection and the courier's hearing of it.
        ended.setattr(door.link, "publish", lambda *_, **__: None)
        door.publish(3)
        wait_until(lambda: door.metrics.counts().get("live.missed", 0) == 3)
    assert door.courier.connected
    assert "live.late" not in door.metrics.counts(), "the connection had ended; that is no fault of the door"


def test_a_killed_door_delivers_what_it_said_was_durable(tmp_path: Path, open_door: OpenDoor) -> None:
    broker = Mosquitto(tmp_path).start()
    state = tmp_path / "state"
    state.mkdir()
    promised: list[str] = []
    with subscriber(broker.port) as seen:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.door_child", str(state), str(broker.port)],
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stderr is not None
            for line in child.stderr:
                record = json.loads(line)
                if record["message"] == "decision" and record["durable"]:
                    promised.append(record["event_id"])
                if len(promised) == 50:
                    broker.kill()
                if len(promised) == 150:
                    break
            child.kill()
        before, live = journal(seen), len(seen.on("/event"))
        broker.start()
        open_door(broker.port, directory=state)
        seen.wait(lambda: journal(seen) >= set(promised))
        broker.stop()

    assert len(before) < 150, "the outage kept some back"
    late = [
        json.loads(payload)
        for payload in seen.on("/journal")
        if json.loads(payload)["event_id"] not in before
    ]
    assert {event["replayed"] for event in late} == {True}
    assert len(seen.on("/event")) == live, "nobody opens a door for what was decided before"


def test_seq_goes_on_after_a_restart(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    with subscriber(mosquitto.port) as seen:
        first = open_door(mosquitto.port)
        first.publish(3)
        seen.wait(lambda: len(journal(seen)) == 3)
        first.courier.stop(5)
        open_door(mosquitto.port).publish(3)
        seen.wait(lambda: len(journal(seen)) == 6)

    assert [json.loads(payload)["seq"] for payload in seen.on("/journal")] == [1, 2, 3, 4, 5, 6]


def test_an_outage_longer_than_the_outbox_shows_as_a_gap(tmp_path: Path, open_door: OpenDoor) -> None:
    broker = Mosquitto(tmp_path)
    door = open_door(broker.port, max_rows=100)
    matches = door.publish(20)
    rejects = door.publish(200, event_type=EventType.REJECT)
    wait_until(lambda: door.courier.outbox_health().dropped == 120)
    broker.start()
    try:
        with subscriber(broker.port) as seen:
            seen.wait(lambda: len(journal(seen)) == 100)
            assert journal(seen) == {*matches, *rejects[-80:]}
            numbers = [json.loads(payload)["seq"] for payload in seen.on("/journal")]
            assert sorted(set(numbers)) == [*range(1, 21), *range(141, 221)]
    finally:
        broker.stop()


def test_a_full_disk_stops_neither_live_events_nor_the_journal(
    mosquitto: Mosquitto, open_door: OpenDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.mqtt.delivery.outbox_thread.RETRY_S", 0.05)
    with small_disk(tmp_path / "disk") as disk, subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, directory=disk.directory)
        wait_until(lambda: door.courier.connected)
        disk.fill()
        decided = []
        for _ in range(400):
            decided += door.publish()
            time.sleep(0.001)
        seen.wait(lambda: journal(seen) >= set(decided) and set(ids(seen.on("/event"))) >= set(decided))
        assert door.metrics.counts().get("outbox.failures", 0) > 0
        disk.free()
        wait_until(lambda: door.courier.outbox_health().durable and door.courier.outbox_health().depth == 0)
        assert door.courier.stop(5)


@pytest.mark.parametrize("version", ["auto", "3.1.1"])
def test_a_broker_of_the_old_version_gets_everything_too(
    old_broker: int, open_door: OpenDoor, version: str
) -> None:
    with subscriber(old_broker, "edge/#") as seen:
        door = open_door(old_broker, broker=Broker("127.0.0.1", old_broker, version=version))  # type: ignore[arg-type]
        wait_until(lambda: door.courier.connected)
        decided = door.publish(50)
        seen.wait(lambda: journal(seen) == set(decided) == set(ids(seen.on("/event"))))
        assert door.courier.link_health().protocol == "3.1.1"
        assert door.courier.stop(5)
        seen.wait(lambda: seen.on("door-03/status")[-1:] == [b"offline"])


def test_a_backlog_of_thousands_drains_in_seconds(tmp_path: Path, open_door: OpenDoor) -> None:
    broker = Mosquitto(tmp_path)
    door = open_door(broker.port)
    for _ in range(30):
        door.publish(100)
    wait_until(lambda: door.courier.outbox_health().depth == 3000)
    broker.start()
    try:
        with subscriber(broker.port) as seen:
            watch = Stopwatch()
            wait_until(lambda: door.courier.outbox_health().depth == 0)
            # The goal is 10,000 in 60 s.
            assert watch.undisturbed_s < 18
            seen.wait(lambda: len(journal(seen)) == 3000)
    finally:
        broker.stop()
