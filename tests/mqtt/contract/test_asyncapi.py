"""The AsyncAPI document: current, complete, and true of what a device really sends.

The official parser (@asyncapi/parser 3) found no error in it when it was written.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest

from edge import __version__
from edge.core.types import EventType
from edge.mqtt.contract.asyncapi import document, json_schemas
from edge.mqtt.contract.encode import encode
from edge.mqtt.contract.messages import VERBS, AckPayload, GalleryReportedPayload
from edge.mqtt.contract.topics import CHANNELS
from tests.support import places
from tests.support.broker import Mosquitto, subscriber
from tests.support.commands import signed as signed_command
from tests.support.described import validator
from tests.support.door import Door
from tests.support.pushes import push
from tests.support.waits import wait_until

COMMITTED = places.ROOT / "deploy" / "asyncapi.json"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(__version__)


def test_the_committed_document_is_the_current_one(made: dict[str, Any]):
    assert json.loads(COMMITTED.read_text()) == made, "edge schema asyncapi > deploy/asyncapi.json"


def test_every_reference_leads_somewhere(made: dict[str, Any]):
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(made)))
    assert len(references) > 30
    for reference in references:
        at: Any = made
        for part in reference.split("/"):
            at = at[part]


def checker(topic: str) -> jsonschema.Draft202012Validator:
    """Return what checks a message of this topic; a topic that no channel describes is a failure."""
    for channel in CHANNELS:
        pattern = re.sub(r"\\\{\w+\\\}", "[a-z0-9-]+", re.escape(channel.address))
        if re.fullmatch(pattern, topic):
            return validator(channel.payload)
    raise AssertionError(f"{topic} is not described")


def test_what_a_device_sends_is_what_the_document_says(
    mosquitto: Mosquitto, open_door: Callable[..., Door]
) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        wait_until(lambda: door.courier.connected)
        door.publish()
        door.publish(
            event_type=EventType.LEFT, subject=None, score=None, quality=None, latency=None, box=None
        )
        at = datetime(2026, 11, 24, tzinfo=UTC)
        door.courier.publish_gallery(
            GalleryReportedPayload(at=at, status="updated", version=3, count=2, model_id="m", error=None)
        )
        seen.wait(lambda: len(seen.on("/journal")) == 2 and len(seen.on("/event")) == 2)
        seen.wait(lambda: seen.on("/reported") and seen.on("/state"))
    kinds = set()
    for message in seen.seen:
        text = message.payload.decode()
        plain = message.topic.endswith("/status")
        checker(message.topic).validate(text if plain else json.loads(text))
        kinds.add(message.topic.rsplit("/", 1)[1])
    assert kinds >= {"status", "info", "event", "journal", "state", "reported"}


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        pytest.param("edge/v1/hq/door-03/status", "gone", id="an unknown word"),
        pytest.param("edge/v1/hq/door-03/gallery/desired", {"version": -1}, id="a negative version"),
        pytest.param("edge/v1/hq/door-03/camera/front/event", {"event_type": "match"}, id="half an event"),
    ],
)
def test_the_document_refuses_what_is_not_so(topic: str, message: object):
    with pytest.raises(jsonschema.ValidationError):
        checker(topic).validate(message)


EVENT_ID = "0194b6a0-0000-7000-8000-000000000000"
SENT = [
    pytest.param("command/revoke", signed_command("revoke"), True, id="a signed command"),
    pytest.param("command/subjects", b'{"transaction": "t-1"}', True, id="a command that is not signed"),
    pytest.param("config/desired", push(1, {"decision": {"margin": 0.1}}), True, id="a push"),
    pytest.param("gallery/desired", b'{"version": 7}', True, id="a request to synchronise"),
    pytest.param("ack", encode(AckPayload(event_ids=(EVENT_ID,))), True, id="ack"),
    pytest.param("command/revoke", b'{"transaction": "a b"}', False, id="a bad transaction"),
    pytest.param("config/desired", signed_command("revoke"), False, id="a command as a push"),
    pytest.param("command/revoke", push(1), False, id="a push as a command"),
    pytest.param("ack", b'{"event_ids": "*"}', False, id="no list"),
]


@pytest.mark.parametrize(("leaf", "payload", "described"), SENT)
def test_what_devices_take_is_described(made: dict[str, Any], leaf: str, payload: bytes, described: bool):
    [channel] = [
        each
        for each in CHANNELS
        if not each.sent
        and re.sub(r"\{verb\}", leaf.rpartition("/")[2], each.path.removeprefix("{device}/")) == leaf
    ]
    names = [each["$ref"].rpartition("/")[2] for each in made["channels"][channel.name]["messages"].values()]
    schema = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names], **made}
    assert jsonschema.Draft202012Validator(schema).is_valid(json.loads(payload)) is described


def test_the_schemas_name_the_arguments_of_every_verb(made: dict[str, Any]):
    command = made["components"]["schemas"]["CommandPayload"]["properties"]["args"]
    alone = json_schemas()["command"]
    assert set(command["x-verbs"]) == set(alone["properties"]["args"]["x-verbs"]) == set(VERBS)
    for verb, args in VERBS.items():
        for schemas, said in (
            (made["components"]["schemas"], command),
            (alone["$defs"], alone["properties"]["args"]),
        ):
            reference = said["x-verbs"][verb]
            assert {"$ref": reference} in said["anyOf"]
            schema = schemas[reference.rpartition("/")[2]]
            assert set(schema.get("properties", {})) == set(args.model_fields)


def test_every_schema_says_what_it_is_and_holds_its_examples():
    schemas = json_schemas()
    assert len({schema["$id"] for schema in schemas.values()}) == len(schemas)
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["examples"], name
        for example in schema["examples"]:
            jsonschema.Draft202012Validator(schema).validate(example)


def test_an_old_consumer_reads_what_a_newer_device_sends():
    sent = {channel.payload.__name__ for channel in CHANNELS if channel.sent}
    for name, schema in json_schemas().items():
        if schema["type"] == "object":
            newer = schema["examples"][0] | {"a_new_field": 1}
            assert jsonschema.Draft202012Validator(schema).is_valid(newer) is (schema["title"] in sent), name
