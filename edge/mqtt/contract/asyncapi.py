"""The AsyncAPI 3 document of what a device says and hears, from payload models and topics. Sends nothing.

Source: AsyncAPI specification 3.0.0.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from edge.mqtt.contract.messages import (
    AckPayload,
    CameraInfoPayload,
    CanaryPayload,
    CommandPayload,
    ConfigDesiredPayload,
    ConfigReportedPayload,
    EventPayload,
    GalleryDesiredPayload,
    GalleryReportedPayload,
    HealthPayload,
    InfoPayload,
    OutboxDroppedPayload,
    ResponsePayload,
    SignedCommandPayload,
    StatePayload,
    StatusPayload,
)
from edge.mqtt.contract.topics import MAJOR

SITE = f"edge/{MAJOR}/{{site}}"
ROOT = f"{SITE}/{{device}}"

PARAMETERS = {
    "site": "Where the device is: 1 to 32 of a-z, 0-9 and -.",
    "device": "Which device of the site.",
    "camera": "Which camera of the device.",
    "verb": "What is to be done.",
    "group": "Which group of devices, as in push.groups.",
}


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic below the device's root, its payload, how it is sent; `heard`: the device subscribes to it.

    `signed` is what the payload looks like where it is signed.
    """

    name: str
    path: str
    payload: type[BaseModel]
    qos: int
    retained: bool
    description: str
    heard: bool = False
    root: str = ROOT
    signed: type[BaseModel] | None = None

    @property
    def payloads(self) -> tuple[type[BaseModel], ...]:
        """Everything that a message may look like."""
        return (self.payload,) if self.signed is None else (self.payload, self.signed)

    @property
    def address(self) -> str:
        """The topic with its parameters in braces."""
        return f"{self.root}/{self.path}"

    @property
    def mode(self) -> JsonSchemaMode:
        """Whether the schema is of what is written, where every field is there, or of what may be read."""
        return "validation" if self.heard else "serialization"


def channels() -> tuple[Channel, ...]:
    """Return every topic of a device."""
    return (
        Channel("status", "status", StatusPayload, 1, True, "One plain word; also the last will."),
        Channel("info", "info", InfoPayload, 1, True, "What runs on this device."),
        Channel("health", "health", HealthPayload, 0, True, "How it runs, every minute."),
        Channel(
            "cameraStatus", "camera/{camera}/status", StatusPayload, 1, True, "Whether a camera delivers."
        ),
        Channel("cameraInfo", "camera/{camera}/info", CameraInfoPayload, 1, True, "Why it does or does not."),
        Channel(
            "event",
            "camera/{camera}/event",
            EventPayload,
            1,
            False,
            "Decisions as they fall, for actuators: they expire after 10 s and are never sent late.",
        ),
        Channel(
            "journal",
            "camera/{camera}/journal",
            EventPayload,
            1,
            False,
            "Every decision at least once, from a durable outbox; the same event_id as in event.",
        ),
        Channel(
            "ack",
            "ack",
            AckPayload,
            1,
            False,
            "Events of the journal that a consumer has; a device with outbox.delivery = consumer keeps them "
            "until then.",
            heard=True,
        ),
        Channel(
            "outboxDropped",
            "outbox_dropped",
            OutboxDroppedPayload,
            1,
            True,
            "How many decisions were dropped before they could be delivered; their seq is missing.",
        ),
        Channel(
            "canary",
            "canary",
            CanaryPayload,
            1,
            False,
            "What the device sends to itself through a broker of MQTT 3.1.1; nothing for others.",
        ),
        Channel("state", "camera/{camera}/state", StatePayload, 1, True, "Who is present now."),
        Channel(
            "command",
            "command/{verb}",
            CommandPayload,
            1,
            False,
            "Asks the device for something; signed (DSSE) where it changes state. Never to be retained: such "
            "a one is refused; a device that speaks MQTT 3.1.1 notices only those from before it came. A "
            "signed one is done once; the same again gets the same answer, a refusal where it only reads.",
            heard=True,
            signed=SignedCommandPayload,
        ),
        Channel(
            "response",
            "response/{verb}",
            ResponsePayload,
            1,
            False,
            "What came of a command, refusals included; with MQTT 5 at the response topic of the command, "
            "which has to lie below response/, with its correlation data. What is no known verb is refused "
            "at response/refused. At most about one refusal a second is told.",
        ),
        Channel(
            "configDesired",
            "config/desired",
            ConfigDesiredPayload,
            1,
            True,
            "Configuration pushed for this device, signed.",
            heard=True,
        ),
        Channel(
            "fleetConfigDesired",
            "_fleet/config/desired",
            ConfigDesiredPayload,
            1,
            True,
            "Configuration pushed for all devices of the site, signed.",
            heard=True,
            root=SITE,
        ),
        Channel(
            "groupConfigDesired",
            "_group-{group}/config/desired",
            ConfigDesiredPayload,
            1,
            True,
            "Configuration pushed for a group of devices, signed.",
            heard=True,
            root=SITE,
        ),
        Channel(
            "configReported",
            "config/reported",
            ConfigReportedPayload,
            1,
            True,
            "What came of the last push, and what is in force.",
        ),
        Channel(
            "galleryDesired",
            "gallery/desired",
            GalleryDesiredPayload,
            1,
            True,
            "Asks the device to synchronise its gallery now.",
            heard=True,
        ),
        Channel(
            "galleryReported",
            "gallery/reported",
            GalleryReportedPayload,
            1,
            True,
            "What the last synchronisation came to.",
        ),
    )


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every message by its name, such as camera_status, or command_signed."""
    schemas: dict[str, dict[str, Any]] = {}
    for channel in channels():
        name = re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", channel.name)
        for suffix, payload in zip(("", "_signed"), channel.payloads, strict=False):
            schemas[name + suffix] = payload.model_json_schema(mode=channel.mode)
    return schemas


def document(version: str) -> dict[str, Any]:
    """Return the document of this version of the software; operations are the device's own."""
    found = channels()
    modes = {payload: channel.mode for channel in found for payload in channel.payloads}
    _, schemas = models_json_schema(list(modes.items()), ref_template="#/components/schemas/{model}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edge, face recognition at an unattended door",
            "version": version,
            "license": {"name": "Apache-2.0"},
            "description": "Open a door from `event`, keep records from `journal`. No topic holds a name, no "
            "message an embedding. A picture is only in the answer to `snapshot`, off by default, "
            "and in the commands `enroll` and `identify`.",
        },
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel) for channel in found},
        "operations": {
            f"{'receive' if channel.heard else 'send'}{channel.name[0].upper()}{channel.name[1:]}": {
                "action": "receive" if channel.heard else "send",
                "channel": {"$ref": f"#/channels/{channel.name}"},
                "summary": channel.description,
                "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retained}},
            }
            for channel in found
        },
        "components": {
            "messages": {model.__name__: _message(model) for model in modes},
            "schemas": schemas["$defs"],
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    names = [payload.__name__ for payload in channel.payloads]
    return {
        "address": channel.address,
        "description": channel.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "parameters": {
            key: {"description": told} for key, told in PARAMETERS.items() if f"{{{key}}}" in channel.address
        },
    }


def _message(model: type[BaseModel]) -> dict[str, Any]:
    plain = model in (StatusPayload, CanaryPayload)
    return {
        "contentType": "text/plain" if plain else "application/json",
        "summary": (model.__doc__ or "").strip().split("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
    }
