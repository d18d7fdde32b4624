"""A device that is gone leaves nothing at the broker once it is forgotten."""

from pathlib import Path

import paho.mqtt.publish as mqtt
import pytest

from edge.core.errors import ConfigError, FleetError, LinkError
from edge.fleet.rollout.forget import forget_device
from edge.mqtt.broker import Broker
from edge.mqtt.contract.home_assistant import documents
from edge.mqtt.contract.topics import Topics
from tests.support.broker import Mosquitto, subscriber
from tests.support.command_line import run, write_config

GONE, OTHER = Topics("hq", "door-03"), Topics("hq", "door-031")
DESIRED = [GONE.config_desired("device"), GONE.gallery_desired]


def leave(port: int, topics: Topics, status: bytes) -> None:
    """Leave behind what a device with two cameras does, and what was asked of it."""
    told = [*topics.documents(("front", "side")), *(DESIRED if topics is GONE else ())]
    told += documents(topics, ("front", "side"), "1", "homeassistant")
    messages = [
        {"topic": each, "payload": status if each == topics.status else b"{}", "qos": 1, "retain": True}
        for each in told
    ]
    mqtt.multiple(messages, hostname="127.0.0.1", port=port)


def kept(port: int) -> list[str]:
    """Return the topics of which the broker keeps something; those of the other device are its last."""
    with subscriber(port, "#") as seen:
        seen.wait(lambda: {f"{OTHER.root}/health", OTHER.status} <= {each.topic for each in seen.seen})
        mqtt.single("marker", b"x", qos=1, hostname="127.0.0.1", port=port)
        seen.wait(lambda: seen.on("marker"))
        return sorted(each.topic for each in seen.seen if each.payload and each.topic != "marker")


@pytest.fixture
def left(mosquitto: Mosquitto) -> Mosquitto:
    leave(mosquitto.port, GONE, b"offline")
    leave(mosquitto.port, OTHER, b"online")
    return mosquitto


def own(topics: list[str], of: Topics) -> list[str]:
    name = f"edge__{of.site}__{of.device}"
    return [each for each in topics if each.startswith((f"{of.root}/", f"homeassistant/device/{name}/"))] + [
        each for each in topics if each.startswith(f"homeassistant/device/{name}__")
    ]


def test_a_device_is_forgotten_and_no_other(left: Mosquitto):
    before = kept(left.port)
    assert set(DESIRED) < set(own(before, GONE))
    broker = Broker("127.0.0.1", left.port)
    gone = forget_device(broker, "hq", "door-03", discovery_prefix="homeassistant")
    assert sorted(gone) == sorted(own(before, GONE))
    after = kept(left.port)
    assert own(after, GONE) == []
    assert own(after, OTHER) == own(before, OTHER)
    assert forget_device(broker, "hq", "door-03") == []


def test_without_discovery_home_assistant_is_not_spoken_to(left: Mosquitto):
    gone = forget_device(Broker("127.0.0.1", left.port), "hq", "door-03")
    assert gone
    assert all(topic.startswith(f"{GONE.root}/") for topic in gone)


def test_a_device_that_runs_is_not_forgotten_unless_that_is_meant(left: Mosquitto):
    broker = Broker("127.0.0.1", left.port)
    with pytest.raises(FleetError, match="online"):
        forget_device(broker, "hq", "door-031")
    assert len(forget_device(broker, "hq", "door-031", running=True)) == 12


def test_a_name_that_means_others_is_refused():
    with pytest.raises(ConfigError, match="cannot be in a topic"):
        forget_device(Broker("127.0.0.1", 1), "hq", "+")


def test_what_the_broker_does_not_allow_is_said(tmp_path: Path):
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite #\nuser reader\ntopic read #\n")
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", f"acl_file {rules}")).start()
    try:
        leave(broker.port, GONE, b"offline")
        with pytest.raises(LinkError, match="the broker refuses"):
            forget_device(Broker("127.0.0.1", broker.port, username="reader"), "hq", "door-03")
    finally:
        broker.stop()


def test_it_is_a_command(left: Mosquitto, tmp_path: Path):
    config = write_config(tmp_path, 'mqtt.host = "127.0.0.1"', f"mqtt.port = {left.port}", site="hq")
    assert "14 retained message(s) taken back" in run("fleet", "forget", "door-03", config=config)
    assert "nothing is kept" in run("fleet", "forget", "door-03", config=config)
