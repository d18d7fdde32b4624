"""What Home Assistant is told. A real one (2025.1.4) shows it: tests/e2e/test_home_assistant.py."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from edge.core.types import EventType
from edge.mqtt.contract.home_assistant import birth_topic, documents
from edge.mqtt.contract.messages import HealthPayload
from edge.mqtt.contract.topics import Topics
from tests.support.broker import Mosquitto, subscriber
from tests.support.door import Door
from tests.support.waits import wait_until

TOPICS = Topics("hq", "door-03")


@pytest.fixture
def found() -> dict[str, Any]:
    made = documents(TOPICS, ("front", "side"), "1.2.3", "homeassistant")
    return {topic: json.loads(document) for topic, document in made.items()}


def test_there_is_a_device_for_the_node_and_one_per_camera_that_hangs_on_it(found: dict[str, Any]):
    node, front, side = found.values()
    assert list(found) == [
        "homeassistant/device/edge__hq__door-03/config",
        "homeassistant/device/edge__hq__door-03__front/config",
        "homeassistant/device/edge__hq__door-03__side/config",
    ]
    assert front["dev"]["via_device"] == side["dev"]["via_device"] == node["dev"]["ids"][0]
    assert "via_device" not in node["dev"]
    for document in found.values():
        assert document["o"]["name"] == "edge"
        assert document["dev"]["sw"] == "1.2.3"


def test_every_entity_has_an_id_that_nothing_else_has(found: dict[str, Any]):
    ids = [part["unique_id"] for document in found.values() for part in document["cmps"].values()]
    assert len(set(ids)) == len(ids) == 14
    for document in found.values():
        assert all(key == part["unique_id"] for key, part in document["cmps"].items())
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in document["cmps"])


def test_names_that_join_alike_stay_apart():
    first = documents(Topics("a-b", "c"), (), "1", "homeassistant")
    second = documents(Topics("a", "b-c"), (), "1", "homeassistant")
    assert first.keys() & second.keys() == set()


def test_a_camera_is_available_while_the_device_and_the_camera_are(found: dict[str, Any]):
    front = found["homeassistant/device/edge__hq__door-03__front/config"]
    assert front["availability_mode"] == "all"
    assert [entry["topic"] for entry in front["availability"]] == [
        TOPICS.status,
        TOPICS.camera_status("front"),
    ]
    problem = front["cmps"]["edge__hq__door-03__front__problem"]
    # Were it unavailable with the camera, nobody would see the problem.
    assert [entry["topic"] for entry in problem["availability"]] == [TOPICS.status]


def test_decisions_come_from_the_topic_that_is_never_retained(found: dict[str, Any]):
    front = found["homeassistant/device/edge__hq__door-03__front/config"]
    decision = front["cmps"]["edge__hq__door-03__front__decision"]
    assert decision["state_topic"] == TOPICS.event("front")
    assert decision["event_types"] == [kind.value for kind in EventType]
    assert found["homeassistant/device/edge__hq__door-03/config"]["cmps"]["edge__hq__door-03__problem"][
        "expire_after"
    ]


def test_the_node_s_problem_tells_what_is_wrong_and_what_to_do(found: dict[str, Any]):
    node = found["homeassistant/device/edge__hq__door-03/config"]["cmps"]["edge__hq__door-03__problem"]
    assert node["json_attributes_topic"] == node["state_topic"] == TOPICS.health
    shown = set(re.findall(r"value_json\.(\w+)", node["json_attributes_template"]))
    assert shown == {"problems", "remedies", "late"} <= HealthPayload.model_fields.keys()


def test_a_restarted_building_system_gets_every_document_once_more(
    mosquitto: Mosquitto, open_door: Callable[..., Door]
) -> None:
    door = open_door(mosquitto.port)
    made = documents(TOPICS, ("front",), "1", "homeassistant")
    door.courier.publish_documents(made)
    with subscriber(mosquitto.port) as seen:
        seen.wait(lambda: seen.on("front/config") and seen.on("/state"))
        before = len(seen.on("/config"))
        door.courier.tell_again()
        wait_until(lambda: len(seen.on("/config")) == before + 2)
        door.courier.publish_documents(dict.fromkeys(made, b""))
        wait_until(lambda: seen.on("/config")[-2:] == [b"", b""])
    with subscriber(mosquitto.port) as late:
        late.wait(lambda: late.on("/status"))
        assert late.on("/config") == []
    assert birth_topic("homeassistant") == "homeassistant/status"
