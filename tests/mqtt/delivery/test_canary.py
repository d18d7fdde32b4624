"""The canary: a broker of MQTT 3.1.1 that accepts and throws away is found out before it costs a decision."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from edge.core.metrics import Metrics
from edge.mqtt.broker import Broker, Connected, Received
from edge.mqtt.delivery.canary import PATIENCE_S, Canary
from tests.support.broker import Mosquitto, subscriber
from tests.support.door import TOPICS, Door
from tests.support.waits import wait_until


class Loft:
    """A canary, and what it sent."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.sent: list[tuple[int, str, bytes]] = []
        self.canary = Canary(TOPICS.canary, lambda *sent: self.sent.append(sent), self.metrics)

    def fly(self, until_s: float) -> list[float]:
        """Tick until then; returns when it was sent."""
        times = []
        while (due_s := self.canary.due_s) is not None and due_s <= until_s:
            self.canary.tick(due_s)
            times.append(due_s)
        return times


def test_mqtt_5_needs_none():
    loft = Loft()
    loft.canary.begin(Connected(1, "5", 10, None), 0.0)
    assert loft.canary.clear
    assert loft.fly(100.0) == loft.sent == []


def test_it_is_sent_until_it_comes_back():
    loft = Loft()
    loft.canary.begin(Connected(1, "3.1.1", 10, None), 0.0)
    assert not loft.canary.clear
    assert loft.fly(1.0) == pytest.approx([0.1, 0.3, 0.7])
    assert not loft.canary.heard(Received(1, TOPICS.ack, b"1"))
    assert loft.canary.heard(Received(1, TOPICS.canary, b"1"))
    assert loft.canary.clear
    assert loft.canary.due_s is None


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(Received(1, TOPICS.canary, b"1"), id="of the connection before"),
        pytest.param(Received(2, TOPICS.canary, b"2", retained=True), id="kept by the broker"),
    ],
)
def test_an_old_one_proves_nothing(late: Received):
    loft = Loft()
    loft.canary.begin(Connected(1, "3.1.1", 10, None), 0.0)
    loft.canary.end()
    loft.canary.begin(Connected(2, "3.1.1", 10, None), 5.0)
    assert loft.canary.heard(late)
    assert not loft.canary.clear


def test_one_that_stays_away_is_told_once_and_tried_ever_more_slowly(caplog: pytest.LogCaptureFixture):
    loft = Loft()
    loft.canary.begin(Connected(1, "3.1.1", 10, None), 0.0)
    loft.fly(PATIENCE_S - 0.1)
    assert caplog.records == []
    times = loft.fly(3600.0)
    assert max(b - a for a, b in pairwise(times)) == pytest.approx(60.0)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert loft.metrics.counts() == {"mqtt.silenced": 1}


def test_a_silently_denied_door_keeps_its_journal_until_it_may_speak(
    tmp_path: Path,
    open_door: Callable[..., Door],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.mqtt.delivery.canary.PATIENCE_S", 0.3)
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write edge/v1/hq/door-03/status\n")
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", f"acl_file {rules}")).start()
    try:
        with subscriber(broker.port) as seen:
            door = open_door(broker.port, broker=Broker("127.0.0.1", broker.port, version="3.1.1"))
            wait_until(lambda: door.courier.connected)
            door.publish(20)
            wait_until(lambda: "does not pass it on" in caplog.text)
            time.sleep(0.3)
            assert door.courier.outbox_health().depth == 20, "no acknowledgement was believed"
            assert seen.on("/journal") == []
            rules.write_text("topic readwrite #\n")
            broker.restart()
            seen.wait(lambda: len(set(seen.on("/journal"))) >= 20)
            wait_until(lambda: door.courier.outbox_health().depth == 0)
    finally:
        broker.stop()


def test_live_events_do_not_wait_for_it(tmp_path: Path, open_door: Callable[..., Door]) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite #\ntopic deny edge/v1/hq/door-03/canary\n")
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", f"acl_file {rules}")).start()
    try:
        with subscriber(broker.port) as seen:
            door = open_door(broker.port, broker=Broker("127.0.0.1", broker.port, version="3.1.1"))
            wait_until(lambda: door.courier.connected)
            door.publish(5)
            seen.wait(lambda: len(seen.on("/event")) == 5)
            assert seen.on("/journal") == []
            assert door.courier.outbox_health().depth == 5
    finally:
        broker.stop()
