"""Commands over MQTT as an operator signs them, for the device `door` of the site `test`."""

import json
from datetime import timedelta
from typing import Any

from edge.device.commands.parse import PAYLOAD_TYPE
from edge.mqtt.contract.envelope import sign
from tests.support.clock import START
from tests.support.pushes import KEY


def content(verb: str = "revoke", args: Any = None, **changes: Any) -> bytes:
    document = {
        "schema": "edge.command/1",
        "transaction": "t-1",
        "args": {"subject": "p-1"} if args is None else args,
        "expires_at": (START + timedelta(minutes=5)).isoformat(),
        "site": "test",
        "device": "door",
        "verb": verb,
    } | changes
    return json.dumps({key: value for key, value in document.items() if value != "absent"}).encode()


def signed(verb: str = "revoke", args: Any = None, **changes: Any) -> bytes:
    return sign(content(verb, args, **changes), PAYLOAD_TYPE, [KEY])
