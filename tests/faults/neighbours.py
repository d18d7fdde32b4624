"""Faults that others make: a borrowed client id, wrong access rules, limits of the broker, floods."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from uuid import uuid4

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.core.types import Subject
from tests.faults.ledger import OPEN, Consumer, Entry, Scenario, at, settle, stop
from tests.support.broker import Mosquitto
from tests.support.door import TOPICS, Door
from tests.support.waits import wait_until


def client(port: int, client_id: str = "") -> paho.Client:
    made = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
    made.connect("127.0.0.1", port)
    made.loop_start()
    return made


def leave(made: paho.Client) -> None:
    made.disconnect()
    made.loop_stop()


def borrowed_id(directory: Path, rounds: int) -> Entry:
    """Another client comes with the door's client id again and again."""
    broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
    with Consumer(broker, acknowledge=False) as consumer:
        door = Door(directory, at(broker.port))
        wait_until(lambda: door.courier.connected)
        for _ in range(rounds):
            thief = client(broker.port, TOPICS.client_id)
            decided |= set(door.publish(10))
            time.sleep(0.2)
            leave(thief)
            decided |= set(door.publish(10))
            time.sleep(0.2)
        times = door.metrics.counts().get("mqtt.faults", 0)
        assert times
        entry = settle("client id taken over", rounds, decided, consumer, f"{times} times", timeout_s=120)
        stop(door)
    broker.stop()
    return entry


def denied(directory: Path, rounds: int) -> Entry:
    """The broker's rules deny the journal, are mended, and are spoiled again; it keeps nothing in between."""
    rules, broken = (
        directory / "acl",
        f"topic read #\ntopic write {TOPICS.status}\ntopic write {TOPICS.ack}\n",
    )
    rules.write_text(broken)
    broker, decided = Mosquitto(directory, (*OPEN, f"acl_file {rules}")).start(), set[str]()
    with Consumer(broker, acknowledge=True) as consumer:
        door = Door(directory, at(broker.port), consumer=True)
        for _ in range(rounds):
            for text in (broken, "topic readwrite #\n"):
                rules.write_text(text)
                connects = door.metrics.counts().get("mqtt.connects", 0)
                broker.restart()
                wait_until(partial(_connected_again, door, connects))
                new = set(door.publish(20))
                decided |= new
                time.sleep(0.5)
                assert text != broken or not new & consumer.kept
        # mosquitto 2.0.11 ends some connections at the first denied message instead of answering 0x87.
        note = f"paused {door.metrics.counts().get('journal.paused', 0)} times"
        entry = settle("journal denied, then allowed (consumer)", rounds, decided, consumer, note)
        stop(door)
    broker.stop()
    return entry


def _connected_again(door: Door, connects: int) -> bool:
    return door.metrics.counts().get("mqtt.connects", 0) > connects and door.courier.connected


def oversize(directory: Path, rounds: int) -> Entry:
    """One event in ten is larger than the broker takes: it is undeliverable, out of the way of the others."""
    broker, decided, large = (
        Mosquitto(directory, (*OPEN, "max_packet_size 4096")).start(),
        set[str](),
        set[str](),
    )
    with Consumer(broker, acknowledge=False) as consumer:
        door = Door(directory, at(broker.port))
        wait_until(lambda: door.courier.connected)
        for _ in range(rounds):
            decided |= set(door.publish(9))
            large |= set(door.publish(1, subject=Subject("p_1", "A" * 5000, ())))
            time.sleep(0.1)
        consumer.wait_for(decided, 60)
        wait_until(lambda: door.courier.outbox_health().undeliverable == len(large))
        note = f"{len(large)} more undeliverable"
        entry = settle(
            "event larger than the broker takes", rounds, decided, consumer, note, dropped=len(large)
        )
        stop(door)
    broker.stop()
    return entry


def flood(fault: str, topic: str, payload: bytes, per_s: int) -> Scenario:
    """Return the scenario of somebody, a process of its own, who publishes this so often."""

    def run(directory: Path, rounds: int) -> Entry:
        broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
        file = directory / "payload"
        file.write_bytes(payload)
        flooding = [sys.executable, "-m", "tests.faults.flood_child"]
        with (
            Consumer(broker, acknowledge=topic == TOPICS.ack) as consumer,
            subprocess.Popen([*flooding, str(broker.port), topic, str(file), str(per_s)]) as child,
        ):
            door = Door(directory, at(broker.port), subscriptions=(topic,), consumer=topic == TOPICS.ack)
            door.courier._hear = door.reader.hear  # what was heard is not kept
            for _ in range(rounds):
                decided |= set(door.publish(10))
                time.sleep(0.1)
            consumer.wait_for(decided, 60)
            child.kill()
            entry = settle(fault, rounds, decided, consumer)
            stop(door)
        broker.stop()
        return entry

    return run


ACK = json.dumps({"event_ids": [str(uuid4()) for _ in range(500)]}).encode()
SYNC = b'{"version": 1}'
NEIGHBOURS: dict[str, tuple[Scenario, int, int]] = {
    "borrowed-id": (borrowed_id, 20, 2),
    "denied": (denied, 10, 2),
    "oversize": (oversize, 50, 5),
    "flood-config": (flood("flood of pushes", TOPICS.config_desired("device"), b"x" * 65_000, 200), 100, 10),
    "flood-ack": (flood("flood of acknowledgements (consumer)", TOPICS.ack, ACK, 800), 100, 10),
    "flood-gallery": (
        flood("flood of gallery/desired", TOPICS.gallery_desired, b'{"version": 1}', 2000),
        100,
        10,
    ),
}
