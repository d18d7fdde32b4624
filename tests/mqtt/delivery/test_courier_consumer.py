"""delivery = "consumer" over a real mosquitto: nothing leaves the outbox that no consumer has named."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.door import TOPICS, Door
from tests.support.waits import Stopwatch, wait_until

OpenDoor = Callable[..., Door]
UNKNOWN = "0194b6a0-0000-7000-8000-000000000000"


def decisions(seen: Subscriber) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in seen.on("/journal")]


def ids(seen: Subscriber) -> list[str]:
    return [decision["event_id"] for decision in decisions(seen)]


def ack(seen: Subscriber, *event_ids: str) -> None:
    seen._client.publish(TOPICS.ack, json.dumps({"event_ids": event_ids}), qos=1)


def test_a_row_leaves_when_a_consumer_names_it(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, consumer=True)
        decided = door.publish(10)
        seen.wait(lambda: set(ids(seen)) == set(decided))
        time.sleep(1.3)  # longer than the broker's word needs to settle
        assert door.courier.outbox_health().depth == 10
        ack(seen, *decided[:4], UNKNOWN)
        wait_until(lambda: door.courier.outbox_health().depth == 6)
        assert door.metrics.counts()["ack.unknown"] == 1
        ack(seen, *decided)
        wait_until(lambda: door.courier.outbox_health().depth == 0)
        assert len(ids(seen)) == 10, "nothing was sent twice"


def test_what_was_not_named_goes_again_after_a_reconnect_and_says_so(
    mosquitto: Mosquitto, open_door: OpenDoor
) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, consumer=True)
        decided = door.publish(6)
        seen.wait(lambda: set(ids(seen)) == set(decided))
        first = decisions(seen)
        ack(seen, *decided[:2])
        wait_until(lambda: door.courier.outbox_health().depth == 4)
        mosquitto.restart()
        seen.wait(lambda: len(decisions(seen)) >= 10)
    again = {decision["event_id"]: decision for decision in decisions(seen)[6:]}
    assert set(again) == set(decided[2:])
    assert {decision["replayed"] for decision in again.values()} == {True}
    assert {decision["replayed"] for decision in first} == {False}
    assert [again[event_id]["seq"] for event_id in decided[2:]] == [3, 4, 5, 6]


def test_what_nobody_names_goes_again_by_itself(
    mosquitto: Mosquitto, open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.mqtt.delivery.receipts.SLOT_S", 0.1)
    monkeypatch.setattr("edge.mqtt.delivery.receipts.ACK_S", 0.3)
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, consumer=True)
        decided = door.publish(3)
        seen.wait(lambda: len(ids(seen)) >= 6)
        assert {decision["replayed"] for decision in decisions(seen)[3:]} == {True}
        ack(seen, *decided)
        wait_until(lambda: door.courier.outbox_health().depth == 0)


def test_a_broker_that_loses_everything_loses_nothing(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    """The consumer keeps a session, so that the broker says it has taken over what it then forgets."""
    decided: list[str] = []
    kept: list[str] = []
    keeper = "keeper"
    door = open_door(mosquitto.port, consumer=True)
    for _ in range(4):
        with subscriber(mosquitto.port, client_id=keeper) as seen:
            decided += door.publish(40)
            seen.wait(lambda: len(ids(seen)) >= 40)
            came = ids(seen)
            kept += came
            ack(seen, *came)
            time.sleep(0.05)
        decided += door.publish(40)  # accepted by the broker for a consumer that is away
        wait_until(lambda: door.courier.outbox_health().depth >= 40)
        time.sleep(0.1)
        mosquitto.restart()
    with subscriber(mosquitto.port, client_id=keeper) as seen:
        while door.courier.outbox_health().depth:
            time.sleep(0.05)
            came = ids(seen)
            kept += came
            ack(seen, *came)
    assert set(kept) == set(decided), "nothing lost"
    assert len(decided) == 320


def test_rows_wait_for_the_consumer_over_a_restart_of_the_door(
    mosquitto: Mosquitto, open_door: OpenDoor, tmp_path: Path
) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, consumer=True)
        decided = door.publish(5)
        seen.wait(lambda: set(ids(seen)) == set(decided))
        watch = Stopwatch()
        assert door.courier.stop(5.0)
        assert watch.undisturbed_s < 2.0, "stopping waits for no consumer"
        door = open_door(mosquitto.port, consumer=True)
        seen.wait(lambda: len(ids(seen)) == 10)
        assert {decision["replayed"] for decision in decisions(seen)[5:]} == {True}
        ack(seen, *decided)
        wait_until(lambda: door.courier.outbox_health().depth == 0)


def test_dropped_decisions_are_told_to_those_who_listen_and_to_those_who_come(
    tmp_path: Path, open_door: OpenDoor
) -> None:
    broker = Mosquitto(tmp_path)
    door = open_door(broker.port, max_rows=100)
    door.publish(130)
    wait_until(lambda: door.courier.outbox_health().dropped == 30)
    broker.start()
    try:
        for _ in range(2):
            with subscriber(broker.port) as seen:
                told = partial(seen.on, "/outbox_dropped")
                seen.wait(lambda told=told: told() and json.loads(told()[-1])["dropped"] == 30)
                assert json.loads(told()[-1])["schema"] == "edge.outbox-dropped/1"
    finally:
        broker.stop()
