"""Configuration pushes as an operator signs them, or somebody else does."""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.device.pushes.push import PAYLOAD_TYPE
from edge.mqtt.contract.envelope import public_text, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = public_text(KEY)


def content(version: Any, patch: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """Return what is signed: by default for the device `door` of the site `test`."""
    document = {
        "schema": "edge.config-desired/1",
        "scope": "device",
        "site": "test",
        "name": "door",
        "version": version,
        "patch": {} if patch is None else patch,
    }
    document |= changes
    return json.dumps({key: value for key, value in document.items() if value != "absent"}).encode()


def push(version: Any, patch: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """Return a signed push."""
    return sign(content(version, patch, **changes), PAYLOAD_TYPE, [KEY])
