"""Live events: for now or never, also where the broker stops answering while the connection stays."""

import json
import time
from collections.abc import Callable
from functools import partial

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.core.clock import SystemClock
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.door import Door
from tests.support.waits import Stopwatch, wait_until

LIVE = "edge/v1/+/+/camera/+/event"


def ids(payloads: list[bytes]) -> list[str]:
    return [json.loads(payload)["event_id"] for payload in payloads]


def test_a_live_event_expires_ten_seconds_after_its_moment_not_after_it_was_sent(
    mosquitto: Mosquitto, open_door: Callable[..., Door]
):
    left: list[int] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe(LIVE, 1)
    client.on_message = lambda _c, _u, m: left.append(m.properties.MessageExpiryInterval)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    wait_until(client.is_connected)
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)
    with subscriber(mosquitto.port, "edge/v1/+/+/camera/+/journal") as seen:
        for age_s in (0.0, 4.5, 8.5, 9.5, 20.0):
            door.publish(1, monotonic_s=SystemClock().monotonic() - age_s)
            time.sleep(0.2)
        seen.wait(lambda: len(seen.seen) == 5)
    client.disconnect()
    client.loop_stop()
    assert [each <= most for each, most in zip(left, (10, 5, 1), strict=True)] == [True] * 3, left
    assert door.metrics.counts()["live.missed"] == 2


def test_a_broker_that_does_not_answer_is_sent_no_more_live_events(
    mosquitto: Mosquitto, open_door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.mqtt.delivery.sender.LIVE_S", 4)
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        wait_until(lambda: door.courier.connected)
        sender = door.courier._sender
        before = door.publish(1)
        seen.wait(lambda: seen.on("/event"))
        wait_until(lambda: not sender._asked_s)
        mosquitto.freeze()
        in_the_socket = door.publish(1)
        wait_until(lambda: sender._asked_s)
        time.sleep(1.5)
        held = door.publish(3)
        wait_until(lambda: door.metrics.counts().get("live.missed") == 3)
        young = door.publish(1)
        wait_until(lambda: sender._live)
        mosquitto.thaw()
        seen.wait(lambda: len(seen.on("/journal")) >= 6)
        seen.wait(lambda: len(seen.on("/event")) >= 3)
        time.sleep(0.5)
        assert ids(seen.on("/event")) == [*before, *in_the_socket, *young]
        assert set(ids(seen.on("/journal"))) == {*before, *in_the_socket, *held, *young}
    assert door.metrics.counts()["live.missed"] == 3


def test_one_answer_that_was_lost_holds_nothing_back(mosquitto: Mosquitto, open_door: Callable[..., Door]):
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        wait_until(lambda: door.courier.connected)
        door.courier._sender._asked_s[60_000] = SystemClock().monotonic() - 5
        for number in range(1, 4):
            watch = Stopwatch()
            door.publish(1)
            seen.wait(partial(_came, seen, number))
            assert watch.undisturbed_s < 1
            door.courier._sender._asked_s[60_000 + number] = SystemClock().monotonic()
            time.sleep(1.5)


def _came(seen: Subscriber, number: int) -> bool:
    return len(seen.on("/event")) == number
