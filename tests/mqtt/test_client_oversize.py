"""A message larger than the device's memory: it is not read, and the device goes on deciding and telling."""

from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.mqtt.broker import Connected, Received
from edge.mqtt.connection import DEAF_S
from tests.mqtt.linking import Linking
from tests.mqtt.listening import door, still_tells
from tests.support.broker import Mosquitto, subscriber
from tests.support.clock import SteppedClock
from tests.support.door import TOPICS
from tests.support.memory import peak_mb
from tests.support.waits import LIMIT_S, wait_until

HUGE = 100 * 1024 * 1024
MORE_MB = 64
DESIRED = TOPICS.config_desired("device")


def publish(port: int, payload: bytes, *, retain: bool = False) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(DESIRED, payload, 1, retain).wait_for_publish(LIMIT_S)
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("retain", [False, True], ids=["passing", "retained"])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_huge_message_costs_no_memory_and_no_decision(
    mosquitto: Mosquitto, tmp_path: Path, version: str, retain: bool
):
    with (
        subscriber(mosquitto.port, "edge/v1/+/+/camera/+/journal") as seen,
        door(tmp_path, mosquitto.port, version) as (pid, heard),
    ):
        publish(mosquitto.port, b"before")
        wait_until(lambda: (publish(mosquitto.port, b"before"), heard.read_text())[1])
        still_tells(seen)
        before_mb = peak_mb(pid)
        publish(mosquitto.port, bytes(HUGE), retain=retain)
        if version == "5":
            publish(mosquitto.port, b"12345")
            wait_until(lambda: "5" in heard.read_text().split())
        still_tells(seen)
        still_tells(seen)
        assert peak_mb(pid) - before_mb < MORE_MB
        assert str(HUGE) not in heard.read_text()


def test_after_a_huge_message_the_device_listens_to_nothing_for_a_while(
    mosquitto: Mosquitto, connect: Callable[..., Linking]
):
    clock = SteppedClock()
    linking = connect(mosquitto.port, version="3.1.1", subscriptions=(DESIRED,), clock=clock)
    linking.next(Connected)
    wait_until(lambda: (publish(mosquitto.port, b"before"), linking.inbox.qsize())[1])
    publish(mosquitto.port, bytes(2 * 1024 * 1024))
    linking.next(Connected)
    publish(mosquitto.port, b"not heard")
    clock.now_s += DEAF_S
    linking.next(Connected)
    wait_until(lambda: (publish(mosquitto.port, b"heard"), linking.inbox.qsize())[1])
    assert linking.next(Received).payload == b"heard"
    assert linking.metrics.counts()["mqtt.oversize"] == 1
