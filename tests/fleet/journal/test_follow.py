"""`edge journal follow` against a real broker: two devices, restarts, acknowledgements, gaps."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from edge.core.types import EventType
from edge.fleet.journal.follow import Contact, Follower
from edge.fleet.journal.gaps import Gaps
from edge.fleet.journal.store import MemoryStore
from edge.mqtt.broker import Broker
from edge.mqtt.contract.topics import Topics
from tests.support.broker import Mosquitto, subscriber
from tests.support.door import Door
from tests.support.events import decision, event, event_id, topic
from tests.support.waits import LIMIT_S, wait_until

DOORS = ("door-03", "door-04")


class Following:
    """A follower in a process of its own, and what it printed."""

    def __init__(self, directory: Path, port: int, *options: str) -> None:
        self.out, self.err = directory / "out.txt", directory / "err.txt"
        self.before = self.told()
        command = [sys.executable, "-m", "edge", "journal", "follow", "--site", "hq"]
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self.process = subprocess.Popen(
                [*command, "--broker", f"127.0.0.1:{port}", *options], stdout=out, stderr=err
            )
        wait_until(self.ready, what="the follower follows")

    def ready(self) -> bool:
        assert self.process.poll() is None, self.told()
        return "following" in self.told()[len(self.before) :]

    def told(self) -> str:
        return self.err.read_text() if self.err.exists() else ""

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def end(self, signum: int = signal.SIGINT) -> int:
        self.process.send_signal(signum)
        return self.process.wait(LIMIT_S)


@contextmanager
def following(directory: Path, port: int, *options: str) -> Iterator[Following]:
    follower = Following(directory, port, *options)
    try:
        yield follower
    finally:
        if follower.process.poll() is None:
            follower.end(signal.SIGKILL)


@pytest.fixture
def doors(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[list[Door]]:
    made = []
    for name in DOORS:
        (tmp_path / name).mkdir()
        broker = Broker("127.0.0.1", mosquitto.port, backoff_max_s=0.2)
        made.append(Door(tmp_path / name, broker, topics=Topics("hq", name), consumer=True))
    yield made
    for door in made:
        door.courier.stop(2.0)


def depth(doors: list[Door]) -> int:
    return sum(door.courier.outbox_health().depth for door in doors)


def publish(doors: list[Door], each: int) -> set[str]:
    return {event_id for door in doors for event_id in door.publish(each)}


@pytest.mark.parametrize("kind", ["jsonl", "sqlite", "postgresql"])
def test_two_devices_a_killed_follower_and_a_killed_broker_and_no_line_twice(
    tmp_path: Path, mosquitto: Mosquitto, doors: list[Door], kind: str, request: pytest.FixtureRequest
) -> None:
    journal = (
        request.getfixturevalue("database") if kind == "postgresql" else str(tmp_path / f"journal.{kind}")
    )
    options = ("--to", journal, "--ack", "--json")
    decided = publish(doors, 30)
    with following(tmp_path, mosquitto.port, *options) as follower:
        wait_until(lambda: len(follower.lines()) >= 60)
        decided |= publish(doors, 100)
        wait_until(lambda: len(follower.lines()) > 100)
        follower.end(signal.SIGKILL)
    decided |= publish(doors, 30)
    mosquitto.restart()
    with following(tmp_path, mosquitto.port, *options) as follower:
        wait_until(lambda: depth(doors) == 0, what="every decision is acknowledged")
        assert follower.end() == 0
    printed = [json.loads(line)["event_id"] for line in follower.lines()]
    assert len(printed) - len(set(printed)) == 0, "no line twice"
    # Killed between keeping and printing, a follower has kept what it never printed.
    assert set(printed) <= decided
    assert kept(journal) == sorted(decided)
    summary = follower.told().splitlines()[-1]
    assert "0 refused; 0 missing in gaps" in summary


def kept(journal: str) -> list[str]:
    if journal.startswith("postgresql:"):
        with psycopg.connect(journal) as server:
            return [str(row[0]) for row in server.execute("SELECT event_id FROM decision ORDER BY event_id")]
    path = Path(journal)
    if path.suffix == ".jsonl":
        return sorted(json.loads(line)["event_id"] for line in path.read_text().splitlines())
    with sqlite3.connect(path) as database:
        found = database.execute("SELECT event_id FROM decision ORDER BY event_id").fetchall()
    database.close()
    return [event_id for (event_id,) in found]


def test_without_ack_nothing_is_acknowledged_and_known_decisions_are_counted(
    tmp_path: Path, mosquitto: Mosquitto, doors: list[Door]
) -> None:
    with following(tmp_path, mosquitto.port) as follower:
        publish(doors, 5)
        wait_until(lambda: len(follower.lines()) == 10)
        mosquitto.restart()
        wait_until(lambda: "connected again" in follower.told())
        publish(doors, 1)
        wait_until(lambda: len(follower.lines()) == 12)
        assert depth(doors) == 12
        assert follower.end(signal.SIGTERM) == 0
    assert any("hq/door-03/front #1 match p_8f21 Alice Example 0.61" in line for line in follower.lines())
    assert "12 new" in follower.told()
    assert "connection lost" in follower.told()


def test_a_gap_is_shown_and_later_said_to_be_filled(tmp_path: Path, mosquitto: Mosquitto) -> None:
    def send(payload: dict[str, Any] | bytes, **options: Any) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        seen._client.publish(topic(), data, qos=1, **options)

    with following(tmp_path, mosquitto.port) as follower, subscriber(mosquitto.port, "none") as seen:
        for seq in (1, 2, 5, 5):
            send(event(seq))
        wait_until(lambda: "hq/door-03: gap: #3-4 missing" in follower.told())
        send(event(3))
        send(event(4, replayed=True))
        wait_until(lambda: "hq/door-03: gap filled: #3-4 came late" in follower.told())
        send(event(9))
        send(b"nonsense")
        seen._client.publish(
            "edge/v1/hq/door-03/outbox_dropped", b'{"at": "2026-08-01T07:31:22Z", "dropped": 3}'
        )
        wait_until(lambda: "3 decisions dropped" in follower.told() and "refused: " in follower.told())
        assert follower.end() == 0
    assert follower.told().splitlines()[-1] == (
        "8 received, 6 new, 1 duplicates, 1 refused; 3 missing in gaps (hq/door-03), 1 gaps filled"
    )


def test_a_session_brings_what_came_while_the_follower_was_away(
    tmp_path: Path, mosquitto: Mosquitto, doors: list[Door]
) -> None:
    options = ("--session", "keeper", "--to", str(tmp_path / "journal.jsonl"))
    with following(tmp_path, mosquitto.port, *options) as follower:
        publish(doors, 5)
        wait_until(lambda: len(follower.lines()) == 10)
        follower.end(signal.SIGKILL)
    publish(doors, 50)
    wait_until(lambda: all(door.courier._journal.idle for door in doors))
    for door in doors:
        assert door.courier.stop(5.0)
    with following(tmp_path, mosquitto.port, *options) as follower:
        wait_until(lambda: len(follower.lines()) == 110)
        assert follower.end() == 0


def test_acknowledgements_that_wait_for_the_broker_are_joined_by_device() -> None:
    named: list[tuple[str, list[str]]] = []
    follower = Follower(
        MemoryStore(),
        Gaps(),
        show=lambda _: None,
        tell=print,
        publish=lambda topic, payload: named.append((topic, json.loads(payload)["event_ids"])),
    )
    follower.keep([decision(1), decision(1, "door-04")], 0.0)
    follower.keep([decision(2), decision(1)], 0.0)
    assert named == []
    follower.acknowledge()
    follower.acknowledge()
    assert named == [
        ("edge/v1/hq/door-03/ack", [event_id(1), event_id(2)]),
        ("edge/v1/hq/door-04/ack", [event_id(1)]),
    ]


def test_a_connection_that_is_lost_again_and_again_is_told_so_once() -> None:
    contact = Contact(0.0)
    told = [contact.news(connected, step / 2) for step in range(1, 11) for connected in (False, True)]
    assert told[:4] == ["connection lost; trying again", "connected again"] * 2
    assert "again and again" in str(told[4])
    assert told[5:] == [None] * 15
    assert contact.news(False, 100.0) == "connection lost; trying again"


def test_of_two_followers_with_one_session_each_says_so(
    tmp_path: Path, mosquitto: Mosquitto, doors: list[Door]
) -> None:
    options = ("--session", "keeper", "--to", str(tmp_path / "journal.sqlite"))
    (tmp_path / "second").mkdir()
    with (
        following(tmp_path, mosquitto.port, *options) as first,
        following(tmp_path / "second", mosquitto.port, *options) as second,
    ):
        wait_until(lambda: all("again and again; if another" in each.told() for each in (first, second)))
        assert second.end() == 0
        publish(doors, 5)
        wait_until(lambda: len(first.lines()) == 10)
        assert first.end() == 0


def test_a_follower_whose_session_another_takes_over_ends(tmp_path: Path) -> None:
    greeting, subscribed, taken_over = b"\x20\x03\0\0\0", b"\x90\x05\0\x01\0\1\1", b"\xe0\x02\x8e\0"
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-m", "edge", "journal", "follow", "--site", "hq", "--session", "keeper"]
        process = subprocess.Popen(
            [*command, "--broker", f"127.0.0.1:{server.getsockname()[1]}"], stderr=subprocess.PIPE, text=True
        )
        client, _ = server.accept()
        with client:  # no mosquitto 2.0 says why it ends the connection of the earlier client; 2.1 does
            for answer in (greeting, subscribed + taken_over):
                assert client.recv(1000)
                client.sendall(answer)
            _, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "took over the session of this one; give each its own name" in told.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(("--broker", "nowhere"), "write HOST:PORT", id="no port"),
        pytest.param(("--broker", "127.0.0.1:1"), "cannot be reached", id="nobody listens"),
        pytest.param(("--to", "journal.txt"), "must end in .jsonl or .sqlite", id="an unknown kind of file"),
        pytest.param(("--to", "postgresql://[x"), "write postgresql://user@host/database", id="no address"),
        pytest.param(("--to", "postgresql://u:secret@127.0.0.1:1/d"), "at 127.0.0.1: ", id="no server"),
        pytest.param(("--to", "postgresql://u:pass/secret@h/d"), "cannot be read", id="a / in the password"),
        pytest.param(("--to", "postgresql://u:pass@secret@h/d"), "cannot be read", id="an @ in the password"),
        pytest.param(("--share", "keepers", "--ack"), "where all of them keep", id="shared without it"),
        pytest.param(("--site", "a/b"), "cannot be in a topic", id="a site with a slash"),
        pytest.param(("--password-file", "x"), "a password needs a username", id="password without user"),
        pytest.param(("--user", "u", "--password-file", "none"), "/none: ", id="no such password"),
        pytest.param(("--ca-file", "ca.pem"), "need tls = true", id="certificates without TLS"),
    ],
)
def test_what_cannot_be_followed_is_one_line(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    command = [sys.executable, "-m", "edge", "journal", "follow", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path.cwd(), timeout=LIMIT_S, check=False
    )
    assert done.returncode in (1, 2, 78)
    assert says in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_rejects_are_shown_with_their_reason(tmp_path: Path, mosquitto: Mosquitto, doors: list[Door]) -> None:
    with following(tmp_path, mosquitto.port, "--device", "door-04") as follower:
        doors[0].publish()
        doors[1].publish(event_type=EventType.REJECT)
        wait_until(lambda: len(follower.lines()) == 1)
        assert follower.end() == 0
    assert "hq/door-04/front #1 reject below_threshold" in follower.lines()[0]
