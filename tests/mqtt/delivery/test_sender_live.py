"""Live events: for now or never, also where the broker stops answering while the connection stays."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.mqtt.broker import Broker
from edge.mqtt.delivery.sender import ANSWER_S, LIVE_S, SILENT_S
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.clock import SteppedClock
from tests.support.door import Door
from tests.support.proxy import Proxy, dropping_pubacks, faithful
from tests.support.waits import Stopwatch, wait_until

LIVE = "edge/v1/+/+/camera/+/event"


@pytest.fixture
def clock() -> SteppedClock:
    """The door's: how long anything took on this machine makes nothing older."""
    return SteppedClock(now_s=1000.0)


def decide(door: Door, count: int = 1) -> list[str]:
    """Publish events of this moment by the door's clock; returns their ids."""
    return door.publish(count, monotonic_s=door.clock.monotonic())


def ids(payloads: list[bytes]) -> list[str]:
    return [json.loads(payload)["event_id"] for payload in payloads]


def test_a_live_event_expires_ten_seconds_after_its_moment_not_after_it_was_sent(
    mosquitto: Mosquitto, open_door: Callable[..., Door], clock: SteppedClock
):
    left: list[int] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe(LIVE, 1)
    client.on_message = lambda _c, _u, m: left.append(m.properties.MessageExpiryInterval)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    wait_until(client.is_connected)
    door = open_door(mosquitto.port, clock=clock)
    wait_until(lambda: door.courier.connected)
    with subscriber(mosquitto.port, "edge/v1/+/+/camera/+/journal") as seen:
        for age_s in (0.0, 4.5, 8.5, 9.5, 20.0):
            door.publish(1, monotonic_s=clock.monotonic() - age_s)
        seen.wait(lambda: len(seen.seen) == 5)
        wait_until(lambda: len(left) == 3)
    client.disconnect()
    client.loop_stop()
    assert [each <= most for each, most in zip(left, (10, 5, 1), strict=True)] == [True] * 3, left
    assert door.metrics.counts()["live.missed"] == door.metrics.counts()["live.late"] == 2


def test_a_broker_that_does_not_answer_is_sent_no_more_live_events(
    mosquitto: Mosquitto, open_door: Callable[..., Door], clock: SteppedClock
):
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, clock=clock)
        wait_until(lambda: door.courier.connected)
        sender = door.courier._sender
        before = decide(door)
        seen.wait(lambda: seen.on("/event"))
        wait_until(lambda: not sender._asked_s)
        mosquitto.freeze()
        clock.now_s += 0.1  # later than the broker's last answer
        in_the_socket = decide(door)
        wait_until(lambda: sender._asked_s)
        clock.now_s += 1.5 * SILENT_S
        held = decide(door, 3)
        wait_until(lambda: len(sender._live) == 3)
        clock.now_s += LIVE_S
        wait_until(lambda: door.metrics.counts().get("live.missed") == 3)
        young = decide(door)
        wait_until(lambda: sender._live)
        mosquitto.thaw()
        seen.wait(lambda: len(seen.on("/journal")) >= 6)
        seen.wait(lambda: len(seen.on("/event")) >= 3)
        wait_until(lambda: not sender._live and not sender._unanswered)
        assert ids(seen.on("/event")) == [*before, *in_the_socket, *young]
        assert set(ids(seen.on("/journal"))) == {*before, *in_the_socket, *held, *young}
    assert door.metrics.counts()["live.missed"] == door.metrics.counts()["live.late"] == 3


def test_a_broker_that_greets_and_then_answers_nothing_is_sent_no_live_event(
    mosquitto: Mosquitto, tmp_path: Path, clock: SteppedClock
):
    with Proxy(mosquitto.port) as proxy, subscriber(mosquitto.port) as seen:
        proxy.mangle = dropping_pubacks(1.0, random.Random(0))
        door = Door(tmp_path, Broker("127.0.0.1", proxy.port, backoff_max_s=0.2), clock=clock)
        try:
            wait_until(lambda: door.courier._sender._asked_s)
            decide(door)
            wait_until(lambda: door.courier._sender._live)
            clock.now_s += LIVE_S
            wait_until(lambda: door.metrics.counts().get("live.missed") == 1)
            seen.wait(lambda: seen.on("/journal"))
            assert seen.on("/event") == []
            proxy.mangle = faithful
            clock.now_s += ANSWER_S
            wait_until(lambda: door.courier._sender.connects == 2)
            after = decide(door)
            seen.wait(lambda: seen.on("/event"))
            assert ids(seen.on("/event")) == after
        finally:
            assert door.courier.stop(5)


def test_one_answer_that_was_lost_holds_nothing_back(
    mosquitto: Mosquitto, open_door: Callable[..., Door], clock: SteppedClock
):
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, clock=clock)
        wait_until(lambda: door.courier.connected)
        door.courier._sender._asked_s[60_000] = clock.monotonic() - 5
        for number in range(1, 4):
            watch = Stopwatch()
            decide(door)
            seen.wait(partial(_came, seen, number))
            assert watch.undisturbed_s < 1
            door.courier._sender._asked_s[60_000 + number] = clock.monotonic()
            clock.now_s += 1.5 * SILENT_S


def _came(seen: Subscriber, number: int) -> bool:
    return len(seen.on("/event")) == number
