"""Whether messages are what the AsyncAPI document says: used by every end-to-end test."""

import json
import re
from functools import cache
from typing import Any

import jsonschema
from pydantic import BaseModel, ValidationError

from edge import __version__
from edge.mqtt.contract.asyncapi import document
from edge.mqtt.contract.topics import CHANNELS, Channel
from tests.support.broker import Seen


@cache
def made() -> dict[str, Any]:
    """Return the document, closed: a device sends nothing that is not listed, whatever consumers let pass."""
    made: dict[str, Any] = json.loads(json.dumps(document(__version__)), object_hook=_closed)
    return made


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    return node | (
        {"additionalProperties": False} if node.get("additionalProperties") and "properties" in node else {}
    )


@cache
def validator(payload: type[BaseModel]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{payload.__name__}", **made()})


def check(message: Seen) -> None:
    """Fail where a message that a device sends is not described, or is not as described.

    Of what devices hear only what they can read has to be: tests send them nonsense on purpose.
    """
    if not message.topic.startswith("edge/v1/") or not message.payload:
        return
    for channel in CHANNELS:
        pattern = re.sub(r"\\\{\w+\\\}", "[A-Za-z0-9._-]+", re.escape(channel.address))
        if re.fullmatch(pattern, message.topic):
            if not channel.sent:
                _check_heard(channel, message.payload)
                return
            if channel.content_type == "image/jpeg":
                assert message.payload.startswith(b"\xff\xd8\xff")
                assert len(message.payload) <= 256 * 1024
                text = ""
            else:
                text = message.payload.decode()
            validator(channel.payload).validate(text if channel.plain else json.loads(text))
            assert message.qos == channel.qos, f"{message.topic} was sent at QoS {message.qos}"
            assert channel.retained or not message.retain, f"{message.topic} was retained"
            return
    if "/command/" not in message.topic:
        raise AssertionError(f"{message.topic} is not described")


def _check_heard(channel: Channel, payload: bytes) -> None:
    for model in channel.payloads:
        try:
            model.model_validate_json(payload)
        except ValidationError:
            continue
        validator(model).validate(json.loads(payload))
