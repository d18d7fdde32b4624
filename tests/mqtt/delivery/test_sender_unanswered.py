"""A broker that swallows its answers: the door notices, connects anew, and sends again."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.mqtt.broker import Broker, Connected, Received
from edge.mqtt.delivery import sender
from tests.mqtt.linking import Linking
from tests.support.broker import Mosquitto, subscriber
from tests.support.door import Door
from tests.support.proxy import Proxy, dropping_pubacks, faithful
from tests.support.waits import LIMIT_S, wait_until


def test_messages_that_nobody_answers_are_sent_on_a_new_connection(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_door: Callable[..., Door]
):
    monkeypatch.setattr(sender, "ANSWER_S", 1.0)
    with Proxy(mosquitto.port) as proxy, subscriber(mosquitto.port, "edge/v1/+/+/camera/+/journal") as seen:
        door = Door(tmp_path, Broker("127.0.0.1", proxy.port, backoff_max_s=0.2))
        try:
            wait_until(lambda: door.courier.connected)
            proxy.mangle = dropping_pubacks(1.0, random.Random(0))
            ids = set(door.publish(40))
            wait_until(lambda: door.metrics.counts().get("mqtt.unanswered", 0) >= 1)
            proxy.mangle = faithful
            wait_until(lambda: door.courier.outbox_health().depth == 0)
            assert len({message.payload for message in seen.seen}) >= len(ids)
        finally:
            assert door.courier.stop(5)


def test_what_comes_while_the_device_is_away_for_a_moment_waits_for_it(
    mosquitto: Mosquitto, connect: Callable[..., Linking]
):
    first = connect(mosquitto.port, version="5", subscriptions=("to/us",))
    first.next(Connected)
    with subscriber(mosquitto.port, "nothing") as other:
        other._client.publish("to/us", b"?", 1, retain=True).wait_for_publish(LIMIT_S)
        first.next(Received)  # subscribed
        assert first.link.stop(5)
        other._client.publish("to/us", b"while away", 1).wait_for_publish(LIMIT_S)
    again = connect(mosquitto.port, version="5", subscriptions=("to/us",))
    heard = {again.next(Received).payload for _ in range(2)}
    assert heard == {b"?", b"while away"}
