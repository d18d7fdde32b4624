"""What Home Assistant is told. A real one (2026.11) shows it: tests/e2e/test_home_assistant.py."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from edge.core.types import EventType
from edge.mqtt.contract.home_assistant import birth_topic, documents
from edge.mqtt.contract.messages import CommandPayload, HealthPayload
from edge.mqtt.contract.topics import Topics
from tests.support.broker import Mosquitto, subscriber
from tests.support.door import Door
from tests.support.places import ROOT
from tests.support.waits import wait_until

TOPICS = Topics("hq", "door-03")


@pytest.fixture
def found() -> dict[str, Any]:
    made = documents(TOPICS, ("front", "side"), "1.2.3", "homeassistant")
    return {topic: json.loads(document) for topic, document in made.items()}


def entities(document: dict[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in document["cmps"].items() if part["p"] != "device_automation"}


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
    ids = [part["unique_id"] for document in found.values() for part in entities(document).values()]
    assert len(set(ids)) == len(ids) == 16
    for document in found.values():
        assert all(key == part["unique_id"] for key, part in entities(document).items())
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


def test_each_kind_of_decision_may_start_an_automation(found: dict[str, Any]):
    front = found["homeassistant/device/edge__hq__door-03__front/config"]
    triggers = [part for part in front["cmps"].values() if part["p"] == "device_automation"]
    assert {part["subtype"] for part in triggers} == {part["payload"] for part in triggers}
    assert {part["subtype"] for part in triggers} == {kind.value for kind in EventType}
    assert {part["topic"] for part in triggers} == {TOPICS.event("front")}


def test_what_is_measured_has_statistics_and_everything_has_an_icon_or_a_class(found: dict[str, Any]):
    node = found["homeassistant/device/edge__hq__door-03/config"]["cmps"]
    measured = [part for part in node.values() if part["p"] == "sensor"]
    assert [part["state_class"] for part in measured] == ["measurement"] * 5
    for document in found.values():
        assert all(part.keys() & {"icon", "device_class"} for part in entities(document).values())


def test_people_name_the_door_and_its_cameras():
    named = {"name": "Front door", "camera_names": {"front": "Street"}}
    made = documents(TOPICS, ("front", "side"), "1", "homeassistant", **named)
    names = [json.loads(document)["dev"]["name"] for document in made.values()]
    assert names == ["Front door", "Front door Street", "Front door side"]


def test_only_a_door_that_answers_unsigned_questions_has_buttons(found: dict[str, Any]):
    [asked] = documents(TOPICS, (), "1", "homeassistant", buttons=True).values()
    buttons = [part for part in json.loads(asked)["cmps"].values() if part["p"] == "button"]
    assert {part["command_topic"] for part in buttons} == {
        TOPICS.command("selftest"),
        TOPICS.command("diagnostics"),
    }
    for part in buttons:
        command = re.sub(r"{{.*?}}", "17", part["command_template"])
        CommandPayload.model_validate_json(command)
    assert not [part for node in found.values() for part in node["cmps"].values() if part["p"] == "button"]


def test_only_a_camera_that_publishes_pictures_has_an_image(found: dict[str, Any]):
    made = documents(TOPICS, ("front", "side"), "1", "homeassistant", pictures=("side",))
    images = [
        part for node in made.values() for part in json.loads(node)["cmps"].values() if part["p"] == "image"
    ]
    assert [each["image_topic"] for each in images] == [TOPICS.snapshot("side")]
    assert not [part for node in found.values() for part in node["cmps"].values() if part["p"] == "image"]


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


def test_the_automations_and_the_blueprint_use_what_is_announced(found: dict[str, Any]):
    front = found["homeassistant/device/edge__hq__door-03__front/config"]
    folder = ROOT / "deploy" / "home-assistant"
    blueprint = yaml.load((folder / "door.yaml").read_text(), WithInputs)
    chosen = {(each["type"], each["subtype"]) for each in blueprint["triggers"]}
    announced = [part for part in front["cmps"].values() if part["p"] == "device_automation"]
    assert chosen == {(part["type"], part["subtype"]) for part in announced}
    [shown] = blueprint["blueprint"]["input"]["camera"]["selector"]["device"]["filter"]
    assert (shown["manufacturer"], shown["model"]) == (front["dev"]["mf"], front["dev"]["mdl"])

    opening, _ = yaml.safe_load((folder / "automations.yaml").read_text())
    assert opening["triggers"][0]["topic"] == Topics("home", "door").event("front")


class WithInputs(yaml.SafeLoader):
    """Reads `!input name` of a blueprint as the name."""


WithInputs.add_constructor("!input", lambda loader, node: node.value)
