"""What an operator sees of a fleet's configuration: desired, reported, and how far a push has come.

Only listens to what devices publish; believes it as far as the broker lets others write there.
"""

import base64
import binascii
import json
from dataclasses import dataclass, field

from pydantic import ValidationError

from edge.mqtt.payloads_config import ConfigReportedPayload
from edge.mqtt.topics import MAJOR

SETTLED = ("applied", "rejected", "rolled_back")


@dataclass(slots=True)
class Device:
    """One device as it shows itself."""

    online: bool = False
    report: ConfigReportedPayload | None = None
    desired: int | None = None


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
        """Return the devices that a push is for, as far as they have shown themselves.

        Which devices are in a group only they know: those that have told of this layer.
        """
        if layer == "device":
            return {name: self.devices.get(name, Device())} if name else {}
        if layer == "fleet":
            return self.devices
        return {
            key: device
            for key, device in self.devices.items()
            if device.report and (layer in device.report.versions or device.report.layer == layer)
        }


def came_to(device: Device, layer: str, version: int) -> str:
    """Return what became of a push at a device: applied, rejected, rolled_back, pending, offline, waiting."""
    report = device.report
    if report is not None and (report.layer, report.version) == (layer, version):
        return report.status
    if report is not None and report.versions.get(layer) == version:
        return "applied"
    return "waiting" if device.online else "offline"


def desired_version(envelope: bytes) -> int | None:
    """Return the version that a published push says it is, unverified; None where it says none."""
    try:
        version = json.loads(base64.b64decode(json.loads(envelope)["payload"]))["version"]
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        return None
    return version if isinstance(version, int) else None
