"""The AsyncAPI 3 document and the JSON Schemas of what a device says and hears, from the table of channels.

Sends nothing. Source: AsyncAPI specification 3.0.0, MQTT bindings 0.2.0; JSON Schema 2020-12.
"""

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import core_schema

from edge.mqtt.contract.examples import EXAMPLES
from edge.mqtt.contract.messages import VERBS, CommandPayload
from edge.mqtt.contract.topics import CHANNELS, MAJOR, PARAMETERS, Channel


class MessageSchema(GenerateJsonSchema):
    """JSON Schema that code in other languages is generated from.

    What a device sends may have fields that are not listed, so that older consumers read newer devices; what
    it takes may not.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False for every field: generators make a type of each title."""
        return False

    def handle_ref_overrides(self, json_schema: dict[str, Any]) -> dict[str, Any]:
        """Return a field that is described as another type; its own words do not stand beside `$ref`.

        Generators make a type of its own of a `$ref` with anything beside it.
        """
        made = super().handle_ref_overrides(json_schema)
        if "$ref" not in made or len(made) == 1:
            return made
        return {"allOf": [{"$ref": made.pop("$ref")}], **made}

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """Return the schema of an object, open for more fields where it is sent."""
        made = super().model_schema(schema)
        if self.mode == "serialization" and made.get("additionalProperties") is False:
            made["additionalProperties"] = True
        return made

    def tuple_schema(self, schema: core_schema.TupleSchema) -> dict[str, Any]:
        """Return the schema of a tuple; `items` is for generators that do not know `prefixItems`."""
        made = super().tuple_schema(schema)
        first, *rest = made.get("prefixItems", [None])
        if first is not None and all(each == first for each in rest):
            made["items"] = first
        return made


def schema_mode(channel: Channel) -> JsonSchemaMode:
    """Return whether a schema is of what is written, where every field is there, or of what may be read."""
    return "serialization" if channel.sent else "validation"


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every message by its name, such as camera_status, or command_signed."""
    schemas: dict[str, dict[str, Any]] = {}
    for channel in CHANNELS:
        name = re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", channel.name)
        for suffix, payload in zip(("", "_signed"), channel.payloads, strict=False):
            mode = schema_mode(channel)
            schema = payload.model_json_schema(mode=mode, schema_generator=MessageSchema)
            if payload is CommandPayload:
                known = {
                    each.__name__: each.model_json_schema(schema_generator=MessageSchema)
                    for each in VERBS.values()
                }
                schema["$defs"] = {**schema.get("$defs", {}), **known}
                _name_arguments(schema, "#/$defs/")
            schemas[name + suffix] = {
                "$schema": GenerateJsonSchema.schema_dialect,
                "$id": f"urn:edge:{MAJOR}:{name}{suffix}",
                **schema,
                "examples": _examples(payload, mode),
            }
    return schemas


def document(version: str) -> dict[str, Any]:
    """Return the document of this version of the software; operations are the device's own."""
    modes = {payload: schema_mode(channel) for channel in CHANNELS for payload in channel.payloads}
    kinds = {payload: channel.content_type for channel in CHANNELS for payload in channel.payloads}
    described = modes | dict.fromkeys(VERBS.values(), modes[CommandPayload])
    _, schemas = models_json_schema(
        list(described.items()),
        ref_template="#/components/schemas/{model}",
        schema_generator=MessageSchema,
    )
    _name_arguments(schemas["$defs"][CommandPayload.__name__], "#/components/schemas/")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edge, face recognition at an unattended door",
            "version": version,
            "license": {"name": "Apache-2.0"},
            "description": "Open a door from `event`, keep records from `journal`. No topic holds a name, no "
            "message an embedding. A picture is only on the topic `snapshot` and in the answer "
            "to the command `snapshot`, both off by default, and in the commands `enroll` and `identify`.",
        },
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {
            f"{action}{channel.name[0].upper()}{channel.name[1:]}": _operation(channel, action)
            for channel in CHANNELS
            for action, done in (("send", channel.sent), ("receive", channel.heard))
            if done
        },
        "components": {
            "messages": {
                model.__name__: _message(model, mode, kinds[model]) for model, mode in modes.items()
            },
            "schemas": schemas["$defs"],
        },
    }


def _name_arguments(command: dict[str, Any], place: str) -> None:
    """Let the schema of a command say what each verb takes: schemas at `place`, and which is whose."""
    references = {verb: {"$ref": f"{place}{args.__name__}"} for verb, args in VERBS.items()}
    args = command["properties"]["args"]
    args["anyOf"] = list({each["$ref"]: each for each in references.values()}.values())
    args["x-verbs"] = {verb: each["$ref"] for verb, each in references.items()}


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


def _operation(channel: Channel, action: str) -> dict[str, Any]:
    expiry = {} if channel.expiry_s is None else {"messageExpiryInterval": channel.expiry_s}
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.description,
        "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retained, **expiry}},
    }


def _message(model: type[BaseModel], mode: JsonSchemaMode, kind: str) -> dict[str, Any]:
    return {
        "contentType": kind,
        "summary": (model.__doc__ or "").strip().split("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        "examples": [{"payload": each} for each in _examples(model, mode)],
    }


def _examples(payload: type[BaseModel], mode: JsonSchemaMode) -> list[Any]:
    """Return examples as what their JSON holds; of what is heard, without what is left to its default."""
    heard = mode == "validation"
    return [each.model_dump(mode="json", exclude_unset=heard) for each in EXAMPLES[payload]]
