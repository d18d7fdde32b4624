"""What an operator sees of a fleet's configuration: desired, reported, and how far a push has come.

Only listens to what devices publish; believes it as far as the broker lets others write there.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from edge.mqtt.contract.payloads_config import ConfigReportedPayload, UnbelievedPushPayload
from edge.mqtt.contract.topics import MAJOR

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
class Push:
    """What an operator publishes: the envelope `data`; `before`, what each device had refused by then."""

    layer: str
    name: str | None
    version: int
    data: bytes
    before: Mapping[str, UnbelievedPushPayload | None]


def watched(site: str) -> tuple[str, ...]:
    """Return the topics that tell how a site's configuration stands."""
    root = f"edge/{MAJOR}/{site}/+"
    return (f"{root}/status", f"{root}/config/reported", f"{root}/config/desired")


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
                device.report = ConfigReportedPayload.model_validate_json(payload)
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

    def push(self, layer: str, name: str | None, version: int, data: bytes) -> Push:
        """Return a push that is about to be published."""
        before = {key: each.report.refused for key, each in self.devices.items() if each.report}
        return Push(layer, name, version, data, before)

    def came_to(self, push: Push) -> dict[str, tuple[str, str]]:
        """Return what became of a push at each device that it is for, and why.

        That is applied, rejected, rolled_back, refused (not believed), pending, offline or waiting.
        """
        concerned = self.concerned(push.layer, push.name)
        return {key: _came_to(device, push, push.before.get(key)) for key, device in concerned.items()}


def _came_to(device: Device, push: Push, before: UnbelievedPushPayload | None) -> tuple[str, str]:
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
