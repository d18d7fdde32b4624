"""The operator's half of configuration pushes: keys, patches, signed envelopes. Sends nothing."""

import json
import tomllib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edge.core import files as safefile
from edge.core.errors import FleetError
from edge.device.envelope import public_text, sign
from edge.device.pushes.push import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, Desired

MAX_PEM_BYTES = 4096


def make_signing_key(path: Path) -> str:
    """Make a key in a new file of mode 0600; returns its public half as settings take it.

    Raises:
        FleetError: There is a file already, or it cannot be written.
    """
    if path.exists():
        raise FleetError(f"{path}: it is there already; a key is never overwritten")
    private = Ed25519PrivateKey.generate()
    safefile.write_whole(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return public_text(private)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the key that `make_signing_key` made.

    Raises:
        FleetError: It is not there, readable by others, or none.
    """
    pem = safefile.read_bounded(path, MAX_PEM_BYTES)
    if pem is None:
        raise FleetError(f"{path}: there is no such key; make one with `edge config keygen {path}`")
    safefile.check_private(path)
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise FleetError(f"{path}: this is no ed25519 key; make one with `edge config keygen`")
    return key


def read_patch(path: Path) -> dict[str, Any]:
    """Return a patch from a TOML file, written like edge.toml, or from a JSON file.

    Raises:
        FleetError: It cannot be read, or is neither.
    """
    data = safefile.read_bounded(path, MAX_ENVELOPE_BYTES)
    if data is None:
        raise FleetError(f"{path}: it is not there")
    try:
        text = data.decode()
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise FleetError(f"{path}: holds no tables")
    return found


def signed_push(desired: Desired, key: Ed25519PrivateKey) -> bytes:
    """Return the envelope to publish, retained.

    Raises:
        FleetError: It is larger than a device accepts.
    """
    data = sign(desired.model_dump_json(by_alias=True).encode(), PAYLOAD_TYPE, [key])
    if len(data) > MAX_ENVELOPE_BYTES:
        raise FleetError(f"the signed push has {len(data)} bytes, devices accept {MAX_ENVELOPE_BYTES}")
    return data
