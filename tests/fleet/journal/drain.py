"""`python -m tests.fleet.journal.drain`: what many doors have decided, through a broker into a database.

A `backlog` waits in the broker's queue for a session, or in the `outboxes` of the doors; or the doors
decide `steady`, so many a second. The doors are one client that keeps to what each of them may have on its
way. Doors, broker, consumer and server share the machine.
"""

import argparse
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psycopg
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.table import Table

from edge.mqtt.delivery.receipts import ACK_S, ACK_WINDOW
from tests.support.broker import Mosquitto, leave
from tests.support.events import sent_event, topic
from tests.support.memory import peak_mb
from tests.support.places import ROOT
from tests.support.postgres import running_postgres

SESSION = "keeper"
ON_THE_WAY = 2000
"""Messages that the broker has not taken over yet; 1,000 doors would have 16 each."""

LOOK_S = 1.0


class Doors:
    """Publishes decision `number` of `doors` doors in turn, and notes when a consumer has named it."""

    def __init__(self, port: int, doors: int, rows: int) -> None:
        self._doors = doors
        self._sent_s = [0.0] * (rows + 1)
        self._named = bytearray(rows + 1)
        self._waiting = [0] * doors
        self._room = threading.Semaphore(ON_THE_WAY)
        self.delays_s: list[float] = []
        self.named = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "doors", protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(ON_THE_WAY)
        self._client.on_publish = lambda *_: self._room.release()
        self._client.on_message = self._heard
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("edge/v1/hq/+/ack", 1)
        self._client.loop_start()

    def publish(self, number: int) -> None:
        """Send it, as soon as the broker has room."""
        self._room.acquire()
        door = (number - 1) % self._doors
        self._waiting[door] += not self._sent_s[number]
        self._sent_s[number] = time.monotonic()
        name = f"door-{door:04}"
        self._client.publish(topic(name), sent_event(number, (number - 1) // self._doors + 1, name), 1)

    def empty_outboxes(self, rows: int) -> None:
        """Send all of 1 to `rows` as doors do: so many at once, and again what nobody names for a minute."""
        upcoming = [range(door + 1, rows + 1, self._doors) for door in range(self._doors)]
        places = [0] * self._doors
        while self.named < rows:
            idle = True
            for door, numbers in enumerate(upcoming):
                for _ in range(16):
                    if places[door] < len(numbers) and self._waiting[door] < ACK_WINDOW:
                        self.publish(numbers[places[door]])
                        places[door] += 1
                        idle = False
            if idle:
                self._send_again(rows)
                time.sleep(LOOK_S)

    def _send_again(self, rows: int) -> None:
        before_s = time.monotonic() - ACK_S
        for number in range(1, rows + 1):
            if 0 < self._sent_s[number] < before_s and not self._named[number]:
                self.publish(number)

    def settle(self) -> None:
        """Wait until the broker has taken over everything."""
        for _ in range(ON_THE_WAY):
            self._room.acquire()
        self._room.release(ON_THE_WAY)

    def close(self) -> None:
        leave(self._client)

    def _heard(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        now_s = time.monotonic()
        for each in json.loads(message.payload)["event_ids"]:
            number = int(each[-12:])
            if not self._named[number]:
                self._named[number] = 1
                self.named += 1
                self._waiting[(number - 1) % self._doors] -= 1
                self.delays_s.append(now_s - self._sent_s[number])


@contextmanager
def following(port: int, to: str, directory: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`edge journal follow --ack --to` in the body; it has subscribed when the body begins."""
    command = [sys.executable, "-m", "edge", "journal", "follow", "--site", "hq", "--ack", "--to", to]
    with (directory / "told").open("wb") as told:
        process = subprocess.Popen(
            [*command, "--broker", f"127.0.0.1:{port}", *options], stdout=subprocess.DEVNULL, stderr=told
        )
        try:
            while b"following" not in (directory / "told").read_bytes():
                assert process.poll() is None, (directory / "told").read_text()
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait()


def kept(to: str) -> tuple[int, int, float]:
    """Return how many rows there are, of how many different decisions, and their size in MiB."""
    asked = "SELECT count(*), count(DISTINCT source || event_id) FROM decision"
    if to.startswith("postgresql"):
        with psycopg.connect(to) as server:
            rows = server.execute("SELECT count(*), count(DISTINCT (source, event_id)) FROM decision")
            size = server.execute("SELECT pg_database_size(current_database())")
            return (*rows.fetchall()[0], size.fetchall()[0][0] / 2**20)
    with sqlite3.connect(to) as database:
        rows_found = database.execute(asked).fetchall()[0]
    return (*rows_found, sum(each.stat().st_size for each in Path(to).parent.glob("journal.sqlite*")) / 2**20)


def family(pid: int | None) -> list[str]:
    """Return a process and those that it started."""
    if pid is None:
        return []
    return [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(*pids: str) -> float:
    """Return the processor's time of processes. Source: proc(5), stat."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def server_mib(pid: int | None) -> float:
    """Return what the processes of a server hold, what they share once, in MiB; 0 without a server."""
    found = 0.0
    for each in family(pid):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        found += int(match[1]) / 1024 if match else 0.0
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("backlog", "outboxes", "steady"))
    parser.add_argument("--to", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--doors", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=5000.0, help="steady: decisions a second")
    parser.add_argument(
        "--queue", type=int, help="the broker's max_queued_messages, instead of the example's"
    )
    parser.add_argument("--session", action="store_true", help="follow with a session")
    said = parser.parse_args()
    example = (ROOT / "deploy/mosquitto/mosquitto.conf").read_text()
    allowed = re.findall(r"^(?:max_|message_size).*$", example, re.MULTILINE)
    if said.queue is not None:
        allowed = [f"max_queued_messages {said.queue}"]
    with tempfile.TemporaryDirectory(prefix="edge-drain-") as name:
        directory = Path(name)
        broker = Mosquitto(directory, ("allow_anonymous true", *allowed)).start()
        try:
            if said.to == "sqlite":
                report = measured(said, broker, str(directory / "journal.sqlite"), None, directory)
            else:
                with running_postgres(durable=True) as server:
                    assert server.process is not None
                    report = measured(said, broker, server.database(), server.process.pid, directory)
        finally:
            broker.stop()
    table = Table("what", "value")
    for what, value in report.items():
        table.add_row(what, f"{value:.3g}" if isinstance(value, float) else str(value))
    Console(highlight=False).print(table)
    print(json.dumps(report))


def measured(
    said: argparse.Namespace, broker: Mosquitto, to: str, server: int | None, directory: Path
) -> dict[str, Any]:
    """Let the doors deliver, and return what came of it."""
    options = ("--session", SESSION) if said.session or said.what == "backlog" else ()
    doors = Doors(broker.port, said.doors, said.rows)
    assert broker.process is not None
    report: dict[str, Any] = {"what": said.what, "to": to.split(":")[0] if server else "sqlite", **vars(said)}
    load = os.getloadavg()[0]
    if said.what == "backlog":
        with following(broker.port, to, directory, *options):
            pass  # the broker knows the session now
        for number in range(1, said.rows + 1):
            doors.publish(number)
        doors.settle()
        report["broker_full_mib"] = peak_mb(broker.process.pid)
    largest, broker_before_s = 0.0, cpu_s(str(broker.process.pid))
    server_before_s = cpu_s(*family(server))
    begun_s = time.monotonic()
    with following(broker.port, to, directory, *options) as consumer:
        sending = threading.Thread(target=_send, args=(said, doors), daemon=True)
        if said.what != "backlog":
            sending.start()
        before, quiet = 0, 0
        while doors.named < said.rows and quiet < 60:
            assert consumer.poll() is None, (directory / "told").read_text()
            quiet = 0 if doors.named > before else quiet + 1
            before = doors.named
            largest = max(largest, server_mib(server))
            time.sleep(LOOK_S)
        took_s = time.monotonic() - begun_s - quiet * LOOK_S
        report["cpu_us_a_decision"] = {
            "consumer": cpu_s(str(consumer.pid)) / said.rows * 1e6,
            "broker": (cpu_s(str(broker.process.pid)) - broker_before_s) / said.rows * 1e6,
            "server": (cpu_s(*family(server)) - server_before_s) / said.rows * 1e6,
        }
        report["consumer_mib"] = peak_mb(consumer.pid)
        report["broker_mib"] = peak_mb(broker.process.pid)
    rows, different, size_mib = kept(to)
    delays_s = sorted(doors.delays_s)
    doors.close()
    return report | {
        "server_mib": largest,
        "seconds": took_s,
        "per_s": doors.named / took_s,
        "lost": said.rows - different,
        "doubled": rows - different,
        "database_mib": size_mib,
        "delay_p50_s": delays_s[len(delays_s) // 2],
        "delay_p95_s": delays_s[int(len(delays_s) * 0.95)],
        "delay_max_s": delays_s[-1],
        "load": (load, os.getloadavg()[0]),
        "told": (directory / "told").read_text().splitlines()[-1],
    }


def _send(said: argparse.Namespace, doors: Doors) -> None:
    if said.what == "outboxes":
        doors.empty_outboxes(said.rows)
        return
    begun_s = time.monotonic()
    for number in range(1, said.rows + 1):
        ahead_s = begun_s + number / said.rate - time.monotonic()
        if ahead_s > 0.01:
            time.sleep(ahead_s)
        doors.publish(number)


if __name__ == "__main__":
    main()
