"""Two brokers and the bridge that we ship: a door at one, headquarters at the other."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.mqtt.broker import Broker
from edge.mqtt.contract.topics import CHANNELS, Topics
from tests.fleet.journal.test_follow import Following, following
from tests.support.broker import Mosquitto, retained, subscriber
from tests.support.door import Door
from tests.support.places import ROOT
from tests.support.waits import wait_until

BRIDGE = ROOT / "deploy/mosquitto/bridge.conf"
SAVED = ("autosave_on_changes true", "autosave_interval 1")
"""Sessions are on the disk at once, so that a broker that is killed knows its consumers again: where it does
not, a door waits a minute before it sends again what was not acknowledged."""

DOOR = Topics("hq", "door-03")


def bridge_lines(port: int) -> tuple[str, ...]:
    """The bridge as we ship it, to a broker of this machine without certificates."""
    lines = BRIDGE.read_text().replace("headquarters.example:8883", f"127.0.0.1:{port}").splitlines()
    left_out = ("#", "bridge_cafile", "restart_timeout")
    kept = tuple(line for line in lines if line and not line.startswith(left_out))
    return (*kept, "restart_timeout 1 1")


@pytest.fixture
def headquarters(tmp_path: Path) -> Iterator[Mosquitto]:
    """Everybody may do everything but the bridge, which has the rights that its configuration asks for."""
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    for path in (passwords, acl):
        path.touch(mode=0o600)
    command = ["mosquitto_passwd", "-b", str(passwords), "bridge-hq", "change-this"]
    subprocess.run(command, check=True, capture_output=True)
    rights = re.findall(r"^# +((?:user|topic) .+)$", BRIDGE.read_text(), re.MULTILINE)
    acl.write_text("\n".join(["topic readwrite #", "topic read $SYS/#", *rights]) + "\n")
    yield from running(tmp_path / "headquarters", (f"password_file {passwords}", f"acl_file {acl}"))


@pytest.fixture
def site(tmp_path: Path, headquarters: Mosquitto) -> Iterator[Mosquitto]:
    yield from running(tmp_path / "site", bridge_lines(headquarters.port))


def running(directory: Path, lines: tuple[str, ...]) -> Iterator[Mosquitto]:
    directory.mkdir()
    kept = ("allow_anonymous true", "persistence true", f"persistence_location {directory}/", *SAVED)
    broker = Mosquitto(directory, lines=(*kept, *lines)).start()
    yield broker
    broker.stop()


@pytest.fixture
def door(tmp_path: Path, site: Mosquitto) -> Iterator[Door]:
    made = Door(tmp_path, Broker("127.0.0.1", site.port, backoff_max_s=0.2), topics=DOOR, consumer=True)
    yield made
    made.courier.stop(2.0)


def kept(follower: Following) -> list[str]:
    return [json.loads(line)["event_id"] for line in follower.lines()]


def test_decisions_arrive_once_whichever_broker_goes(
    tmp_path: Path, headquarters: Mosquitto, site: Mosquitto, door: Door
):
    decided: list[str] = []

    def arrived() -> bool:
        return set(kept(follower)) >= set(decided) and door.courier.outbox_health().depth == 0

    options = ("--to", str(tmp_path / "journal.jsonl"), "--ack", "--json", "--session", "keeper")
    with following(tmp_path, headquarters.port, *options) as follower:
        for broker in (None, headquarters, site):
            if broker is not None:
                broker.kill()
            decided += door.publish(10)
            if broker is not None:
                broker.start()
            wait_until(arrived, "what was decided is kept, and acknowledged")
        assert follower.end(signal.SIGINT) == 0
    assert sorted(kept(follower)) == sorted(decided), "each once"
    assert "0 refused; 0 missing in gaps" in follower.told().splitlines()[-1]


def test_headquarters_know_the_door_and_are_heard_by_it(headquarters: Mosquitto, site: Mosquitto, door: Door):
    door_hears = (DOOR.commands, DOOR.config_desired("device"), DOOR.config_desired("fleet"))
    with subscriber(site.port, door_hears) as heard, subscriber(headquarters.port, "edge/#") as office:
        # Once or twice each: a bridge that comes up while something is said passes on what is kept, too.
        office.wait(lambda: set(office.on("door-03/status")) == {b"online"})
        office.wait(lambda: retained(headquarters.port).get(DOOR.status) == b"online")
        office._client.publish(DOOR.config_desired("device"), b"a push", 1, retain=True)
        office._client.publish(DOOR.command("selftest"), b"{}", 1)
        heard.wait(lambda: set(heard.on("config/desired")) == {b"a push"} and heard.on("selftest") == [b"{}"])
        assert retained(site.port)[DOOR.config_desired("device")] == b"a push", "for a door that is off"
        door.courier.stop(2.0)
        office.wait(lambda: office.on("door-03/status")[-1:] == [b"offline"])


def test_headquarters_are_told_that_a_site_is_cut_off(headquarters: Mosquitto, site: Mosquitto):
    with subscriber(headquarters.port, "$SYS/broker/connection/bridge-hq/state") as office:
        office.wait(lambda: office.on("state")[-1:] == [b"1"])
        site.kill()
        office.wait(lambda: office.on("state")[-1:] == [b"0"])


def test_every_topic_but_those_of_the_site_crosses_the_bridge():
    lines = [line.split() for line in BRIDGE.read_text().splitlines() if line.startswith("topic ")]
    crossing = {topic: way for _, topic, way, _ in lines}
    for channel in CHANNELS:
        names = {"site": "hq", "device": "+", "camera": "+", "verb": "#", "group": "north"}
        topic = channel.topic(**names)
        if channel.name in ("event", "canary", "snapshot"):
            assert topic not in crossing
        elif not channel.path.startswith("_"):
            assert crossing[topic] == ("out" if channel.sent else "in"), topic
