"""The faults themselves, against real brokers and the real threads of delivery."""

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from tests.faults.disks import DISKS
from tests.faults.ledger import OPEN, Consumer, Entry, Scenario, at, settle, stop
from tests.faults.neighbours import NEIGHBOURS
from tests.faults.power import power_cut
from tests.support.broker import Mosquitto
from tests.support.clock import SteppedClock
from tests.support.door import Door
from tests.support.proxy import Mangle, Proxy, dropping_pubacks, faithful, resetting, slicing
from tests.support.waits import wait_until


def broker_killed(directory: Path, rounds: int) -> Entry:
    """The broker keeps nothing and is killed; the door forgets only what the consumer has named."""
    broker, rng, decided = Mosquitto(directory, OPEN).start(), random.Random(1), set[str]()
    with Consumer(broker, acknowledge=True) as consumer:
        door = Door(directory, at(broker.port), consumer=True)
        for _ in range(rounds):
            for _ in range(rng.randrange(2, 8)):
                decided |= set(door.publish(3))
                time.sleep(0.01)
            broker.kill()
            decided |= set(door.publish(3))
            time.sleep(rng.random() * 0.1)
            broker.start()
            time.sleep(rng.random() * 0.3)
        entry = settle(
            "broker kill -9, nothing persisted (consumer)", rounds, decided, consumer, timeout_s=150
        )
        stop(door)
    broker.stop()
    return entry


def door_killed(directory: Path, rounds: int) -> Entry:
    """The door's process is killed; what it had said to be durable arrives after the next start."""
    broker, rng, promised = Mosquitto(directory, OPEN).start(), random.Random(2), set[str]()
    state = directory / "state"
    state.mkdir()
    with Consumer(broker, acknowledge=False) as consumer:
        for _ in range(rounds):
            with subprocess.Popen(
                [sys.executable, "-m", "tests.support.door_child", str(state), str(broker.port)],
                stderr=subprocess.PIPE,
                text=True,
            ) as child:
                assert child.stderr is not None
                wanted = rng.randrange(5, 60)
                for line in child.stderr:
                    record = json.loads(line)
                    if record["message"] == "decision" and record["durable"]:
                        promised.add(record["event_id"])
                        wanted -= 1
                    if wanted <= 0:
                        break
                child.kill()
                for line in child.stderr:  # what it had said before it died
                    if line.endswith("\n") and (record := json.loads(line))["message"] == "decision":
                        promised |= {record["event_id"]} if record["durable"] else set()
        door = Door(state, at(broker.port))
        consumer.wait_for(promised, 60)
        wait_until(lambda: door.courier.outbox_health().depth == 0)
        unsaid = consumer.kept - promised
        entry = settle("daemon SIGKILL", rounds, promised | unsaid, consumer)
        stop(door)
    broker.stop()
    return entry


def clock_steps(directory: Path, rounds: int) -> Entry:
    """+400 days, -9,000 days, 1970."""
    broker, decided, clock = Mosquitto(directory, OPEN).start(), set[str](), SteppedClock.running()
    with Consumer(broker, acknowledge=True) as consumer:
        door = Door(directory, at(broker.port), consumer=True, clock=clock)
        for number in range(rounds):
            clock.shift = (timedelta(days=400), timedelta(days=-9000), timedelta(days=-30_000))[number % 3]
            decided |= set(door.publish(10))
            if number % 2:
                broker.kill()
                decided |= set(door.publish(5))
                broker.start()
            time.sleep(0.2)
        entry = settle("clock +400 d, -9,000 d, 1970 (consumer)", rounds, decided, consumer, timeout_s=120)
        stop(door)
    broker.stop()
    return entry


def frozen(directory: Path, rounds: int) -> Entry:
    """The broker is stopped (SIGSTOP) and goes on."""
    broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
    with Consumer(broker, acknowledge=False) as consumer:
        door = Door(directory, at(broker.port))
        for _ in range(rounds):
            decided |= set(door.publish(20))
            broker.freeze()
            decided |= set(door.publish(20))
            time.sleep(1.0)
            broker.thaw()
            time.sleep(0.2)
        entry = settle("broker frozen for 1 s", rounds, decided, consumer)
        stop(door)
    broker.stop()
    return entry


def away(directory: Path, rounds: int) -> Entry:
    """The broker is away while a long queue gathers; then it drains."""
    broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
    with Consumer(broker, acknowledge=False) as consumer:
        door = Door(directory, at(broker.port))
        wait_until(lambda: door.courier.connected)
        broker.kill()
        for _ in range(rounds):
            decided |= set(door.publish(500))
            time.sleep(0.3)
        broker.start()
        began_s = time.monotonic()
        consumer.wait_for(decided, 120)
        took_s = time.monotonic() - began_s
        entry = settle("broker away", rounds, decided, consumer, f"{len(decided)} drained in {took_s:.1f} s")
        stop(door)
    broker.stop()
    return entry


def wiped(directory: Path, rounds: int) -> Entry:
    """A broker that persists is killed and its disk is wiped."""
    store = directory / "mosquitto"
    store.mkdir()
    store.chmod(0o777)
    lines = (*OPEN, "persistence true", f"persistence_location {store}/", "autosave_interval 1")
    broker, decided = Mosquitto(directory, lines).start(), set[str]()
    with Consumer(broker, acknowledge=True) as consumer:
        door = Door(directory, at(broker.port), consumer=True)
        for _ in range(rounds):
            decided |= set(door.publish(20))
            time.sleep(0.1)
            broker.kill()
            shutil.rmtree(store)
            store.mkdir()
            store.chmod(0o777)
            decided |= set(door.publish(20))
            broker.start()
            time.sleep(0.3)
        entry = settle("broker's disk wiped (consumer)", rounds, decided, consumer, timeout_s=150)
        stop(door)
    broker.stop()
    return entry


def through(fault: str, mangle: Mangle, latency_s: float = 0.0) -> Scenario:
    """Return the scenario of a network that misbehaves, and recovers at the end."""

    def run(directory: Path, rounds: int) -> Entry:
        broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
        with Consumer(broker, acknowledge=False) as consumer, Proxy(broker.port, mangle, latency_s) as proxy:
            door = Door(directory, at(proxy.port))
            for _ in range(rounds):
                decided |= set(door.publish(10))
                time.sleep(0.15)
            resets, proxy.mangle = proxy.resets, faithful
            note = f"{resets} resets" if resets else ""
            entry = settle(fault, rounds, decided, consumer, note, timeout_s=120)
            stop(door)
        broker.stop()
        return entry

    return run


def nobody_listens(directory: Path, rounds: int) -> Entry:
    """Nobody subscribes while decisions fall; whoever comes later gets all of them."""
    broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
    door = Door(directory, at(broker.port), consumer=True)
    for _ in range(rounds):
        decided |= set(door.publish(20))
        time.sleep(0.05)
    with Consumer(broker, acknowledge=True) as consumer:
        entry = settle("no subscriber (consumer)", rounds, decided, consumer, timeout_s=150)
        stop(door)
    broker.stop()
    return entry


def soak(directory: Path, rounds: int) -> Entry:
    """300 decisions a second for so many seconds, the broker killed once a minute."""
    broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
    with Consumer(broker, acknowledge=True) as consumer:
        door = Door(directory, at(broker.port), consumer=True)
        began_s, sent, minute = time.monotonic(), 0, 0
        while (spent_s := time.monotonic() - began_s) < rounds:
            due = int(spent_s * 300) - sent
            decided |= set(door.publish(due))
            sent += due
            if spent_s // 60 > minute:
                minute += 1
                broker.restart()
            time.sleep(0.05)
        note = f"{sent / rounds:.0f} a second, {threading.active_count()} threads"
        entry = settle("soak (consumer)", rounds, decided, consumer, note, timeout_s=200)
        stop(door)
    broker.stop()
    return entry


def forgetful(directory: Path, rounds: int) -> Entry:
    """With puback the broker's word is enough: what it then forgets is lost, and that is what is promised."""
    broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
    with Consumer(broker, acknowledge=False):
        pass  # has a session, and is away
    door = Door(directory, at(broker.port))
    for _ in range(rounds):
        decided |= set(door.publish(20))
        time.sleep(0.1)
    wait_until(lambda: door.courier.outbox_health().depth == 0)
    broker.kill()
    broker.start()
    with Consumer(broker, acknowledge=False) as consumer:
        entry = settle("puback: broker forgets what it took", rounds, decided, consumer, timeout_s=1)
        stop(door)
    broker.stop()
    note = "as promised; use delivery = consumer"
    return Entry(**{**entry.__dict__, "note": note, "expected_loss": True})


SCENARIOS: dict[str, tuple[Scenario, int, int]] = {
    "door-killed": (door_killed, 200, 3),
    "broker-killed": (broker_killed, 200, 5),
    "power-cut": (power_cut, 1000, 30),
    "clock-steps": (clock_steps, 10, 3),
    "broker-frozen": (frozen, 20, 1),
    "broker-away": (away, 40, 4),
    "broker-wiped": (wiped, 20, 2),
    "reset": (through("reset in mid-PUBLISH", resetting(0.05, random.Random(4))), 200, 15),
    "puback-dropped": (through("PUBACK dropped", dropping_pubacks(0.05, random.Random(5))), 100, 10),
    "sliced": (through("1 byte at a time, 5 ms late", slicing, 0.005), 50, 5),
    "no-subscriber": (nobody_listens, 50, 5),
    "soak": (soak, 600, 5),
    "puback-forgets": (forgetful, 20, 3),
    **DISKS,
    **NEIGHBOURS,
}
"""Each with its rounds in `make faults`, and in the suite."""
