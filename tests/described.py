"""Whether messages are what the AsyncAPI document says: used by every end-to-end test."""

import json
import re
from functools import cache
from typing import Any

import jsonschema

from edge import __version__
from edge.mqtt.asyncapi import channels, document
from tests.broker import Seen


@cache
def made() -> dict[str, Any]:
    return document(__version__)


@cache
def validator(address: str) -> jsonschema.Draft202012Validator:
    name = next(channel.payload.__name__ for channel in channels() if channel.address == address)
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", **made()})


def check(message: Seen) -> None:
    """Fail where a message that a device sends is not described, or is not as described.

    What devices hear is not looked at: tests send them nonsense on purpose.
    """
    if not message.topic.startswith("edge/v1/") or not message.payload:
        return
    for channel in channels():
        pattern = re.sub(r"\\\{\w+\\\}", "[A-Za-z0-9._-]+", re.escape(channel.address))
        if re.fullmatch(pattern, message.topic):
            if not channel.heard:
                text = message.payload.decode()
                plain = channel.payload.__name__ == "StatusPayload"
                validator(channel.address).validate(text if plain else json.loads(text))
            return
    if "/command/" not in message.topic:
        raise AssertionError(f"{message.topic} is not described")
