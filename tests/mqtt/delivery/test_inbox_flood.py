"""A flood of acknowledgements that name nothing: memory stays bounded, decisions keep their pace."""

import json
import threading
import time
from pathlib import Path
from uuid import uuid4

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.mqtt import client
from edge.mqtt.client import Unread
from tests.mqtt.listening import door, still_tells
from tests.support.broker import Mosquitto, subscriber
from tests.support.door import TOPICS
from tests.support.memory import peak_mb
from tests.support.waits import LIMIT_S, Stopwatch

MORE_MB = 64
FLOOD_S = 8.0


def flood(port: int, until_s: float) -> None:
    """Name 500 events that never were as often as the broker takes it."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    payloads = [json.dumps({"event_ids": [str(uuid4()) for _ in range(500)]}) for _ in range(40)]
    number = 0
    while time.monotonic() < until_s:
        info = client.publish(TOPICS.ack, payloads[number % 40])
        number += 1
        if number % 50 == 0:
            info.wait_for_publish(LIMIT_S)
            time.sleep(0.04)
    client.disconnect()
    client.loop_stop()


def test_a_flood_of_acknowledgements_costs_no_memory_and_delays_no_decision(tmp_path: Path):
    broker = Mosquitto(tmp_path, ("allow_anonymous true", "max_queued_messages 0")).start()
    with (
        subscriber(broker.port, "edge/v1/+/+/camera/+/journal") as seen,
        door(tmp_path, broker.port, "5", "consumer") as (pid, _),
    ):
        still_tells(seen)
        before_mb, before = peak_mb(pid), len(seen.seen)
        watch = Stopwatch()
        flooding = threading.Thread(target=flood, args=(broker.port, time.monotonic() + FLOOD_S))
        flooding.start()
        flooding.join()
        came, undisturbed_s = len(seen.seen) - before, watch.undisturbed_s
        assert peak_mb(pid) - before_mb < MORE_MB
        assert came >= undisturbed_s * 10 / 3, "ten a second are decided"
        still_tells(seen)
    broker.stop()


def test_what_is_not_looked_at_is_bounded_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(client, "MAX_UNREAD_BYTES", 10_000)
    metrics = Metrics()
    waiting = Unread(metrics, TokenBucket(1, 1, lambda: 0.0))
    assert [waiting.add(3000) for _ in range(4)] == [True, True, False, False]
    waiting.remove(3000)
    assert waiting.add(3000)
    assert metrics.counts()["received.dropped"] == 2
    assert not caplog.text
    waiting.remove(3000)
    waiting.remove(3000)
    assert "2 messages were dropped" in caplog.text
    assert [waiting.add(5000) for _ in range(2)] == [True, False]
    waiting.remove(5000)
    assert len(caplog.records) == 1, "one line, however many are dropped"
