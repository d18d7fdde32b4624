"""The operator's half of configuration pushes: keys, patches, signed envelopes, and how far a push has come.

What devices report is believed as far as the broker lets others write there. Sends nothing.
"""

import base64
import binascii
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from edge.core import files
from edge.core.errors import FleetError
from edge.device.pushes.push import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, Desired
from edge.fleet.rollout.listen import of_devices
from edge.mqtt.contract.envelope import public_text, sign
from edge.mqtt.contract.messages import ConfigReportedPayload, RefusedPushPayload
from edge.mqtt.contract.topics import CONFIG_DESIRED, CONFIG_REPORTED, STATUS

MAX_PEM_BYTES = 4096


def make_signing_key(path: Path) -> str:
    """Make a key in a new file of mode 0600; returns its public half as settings take it.

    Raises:
        FleetError: There is a file already, or it cannot be written.
    """
    if path.exists():
        raise FleetError(f"{path}: it is there already; a key is never overwritten")
    private = Ed25519PrivateKey.generate()
    files.write_whole(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return public_text(private)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the key that `make_signing_key` made.

    Raises:
        FleetError: It is not there, readable by others, or none.
    """
    pem = files.read_bounded(path, MAX_PEM_BYTES)
    if pem is None:
        raise FleetError(f"{path}: there is no such key; make one with `edge config keygen {path}`")
    files.check_private(path)
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
    data = files.read_bounded(path, MAX_ENVELOPE_BYTES)
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


OPEN = ("waiting", "pending")
"""What may still come to something else."""


@dataclass(slots=True)
class Device:
    """One device as it shows itself; `seen`: it ever did, and not only something was published for it."""

    seen: bool = False
    online: bool = False
    report: ConfigReportedPayload | None = None
    desired: int | None = None


@dataclass(frozen=True, slots=True)
class PublishedPush:
    """What an operator publishes: the envelope `data`; `before`, what each device had refused by then."""

    layer: str
    name: str | None
    version: int
    data: bytes
    before: Mapping[str, RefusedPushPayload | None]


def watched(site: str, *devices: str) -> tuple[str, ...]:
    """Return the topics that tell how a site's configuration stands, and that of `devices` by name."""
    return of_devices((STATUS, CONFIG_REPORTED, CONFIG_DESIRED), site, devices)


@dataclass(slots=True)
class SiteView:
    """The devices of a site by name; `layers` are the versions published for the fleet and for groups."""

    devices: dict[str, Device] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message of `watched`; one that cannot be read is passed over."""
        _, _, _, name, leaf = topic.split("/", 4)
        if name.startswith("_"):
            version = desired_version(payload)
            if version is not None:
                self.layers[name[1:].replace("group-", "group:", 1)] = version
            return
        device = self.devices.setdefault(name, Device())
        device.seen |= leaf != "config/desired" and bool(payload)
        if leaf == "status":
            device.online = payload == b"online"
        elif leaf == "config/desired":
            device.desired = desired_version(payload)
        else:
            try:
                device.report = ConfigReportedPayload.model_validate_json(payload, extra="ignore")
            except ValidationError:
                device.report = None

    def concerned(self, layer: str, name: str | None) -> dict[str, Device]:
        """Return the devices that a push is for, as far as they have ever shown themselves.

        Which devices are in a group they say themselves.
        """
        return {
            key: device
            for key, device in self.devices.items()
            if device.seen
            and (
                layer == "fleet"
                or (layer == "device" and key == name)
                or (device.report is not None and name in device.report.groups)
            )
        }

    def push(self, layer: str, name: str | None, version: int, data: bytes) -> PublishedPush:
        """Return a push that is about to be published."""
        before = {key: each.report.refused for key, each in self.devices.items() if each.report}
        return PublishedPush(layer, name, version, data, before)

    def came_to(self, push: PublishedPush) -> dict[str, tuple[str, str]]:
        """Return what became of a push at each device that it is for, and why.

        That is applied, rejected, rolled_back, refused, pending, offline or waiting.
        """
        concerned = self.concerned(push.layer, push.name)
        return {key: _came_to(device, push, push.before.get(key)) for key, device in concerned.items()}


def _came_to(device: Device, push: PublishedPush, before: RefusedPushPayload | None) -> tuple[str, str]:
    report = device.report
    if report is not None:
        if (report.layer, report.version) == (push.layer, push.version):
            return report.status, report.error or ""
        if report.versions.get(push.layer) == push.version:
            return "applied", ""
        refused = report.refused
        if (
            refused is not None
            and refused != before
            and refused.sha256 == hashlib.sha256(push.data).hexdigest()
        ):
            return "refused", refused.error
    return ("waiting", "no answer yet") if device.online else ("offline", "")


def desired_version(envelope: bytes) -> int | None:
    """Return the version that a published push says it is, unverified; None where it says none."""
    try:
        version = json.loads(base64.b64decode(json.loads(envelope)["payload"]))["version"]
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        return None
    return version if isinstance(version, int) else None
