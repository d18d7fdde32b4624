"""Forgets a device that is gone: takes back everything that the broker keeps under its name.

That is what the device has said, what was asked of it, and, where it is wanted, what Home Assistant was told.
A device that still runs would say everything again: it has to be stopped before.
"""

import queue
from collections.abc import Iterable

from pydantic import ValidationError

from edge.core.errors import ConfigError, FleetError
from edge.fleet.rollout.listen import QUIET_S, check_accepted, site_listener
from edge.mqtt.broker import Broker
from edge.mqtt.contract.home_assistant import documents
from edge.mqtt.contract.messages import InfoPayload
from edge.mqtt.contract.topics import Topics
from edge.mqtt.subscriber import Listener

ONLINE = b"online"
"""What a device says of itself that runs. Source: `StatusPayload`."""


def forget_device(
    broker: Broker, site: str, device: str, *, discovery_prefix: str | None = None, running: bool = False
) -> list[str]:
    """Take back what the broker keeps of a device; return the topics.

    `discovery_prefix` is Home Assistant's; None: it was told nothing. `running`: also where the device is
    online.

    Raises:
        ConfigError: A name cannot be in a topic.
        FleetError: The device is online.
        LinkError: The broker cannot be reached, or refuses it.
    """
    topics = Topics(site, device)
    named = (*topics.documents(()), topics.config_desired("device"), topics.gallery_desired)
    with site_listener(broker, (f"{topics.root}/#", *named)) as listener:
        kept = _kept(listener)
        if topics.info in kept and not _cameras(topics, kept):
            kept |= _of_cameras(broker, topics, kept[topics.info])
        if kept.get(topics.status) == ONLINE and not running:
            raise FleetError(f"{device} is online and would say everything again; stop it, or add --running")
        gone = sorted(kept)
        if discovery_prefix is not None:
            gone += documents(topics, _cameras(topics, kept), "", discovery_prefix)
        for topic in gone:
            listener.publish(topic, b"", retain=True)
        listener.flush()
        check_accepted(listener)
    return gone


def _kept(listener: Listener) -> dict[str, bytes]:
    """Return what the broker keeps, by topic."""
    kept: dict[str, bytes] = {}
    while True:
        try:
            message = listener.messages.get(timeout=QUIET_S)
        except queue.Empty:
            return kept
        if message.retained and message.payload:
            kept[message.topic] = message.payload


def _of_cameras(broker: Broker, topics: Topics, info: bytes) -> dict[str, bytes]:
    """Return what a broker keeps of a device's cameras that gives it only to who names the topics."""
    try:
        cameras = InfoPayload.model_validate_json(info, extra="ignore").cameras
        named = tuple(topic for camera in cameras for topic in topics.camera_documents(camera))
    except (ValidationError, ConfigError):
        return {}
    if not named:
        return {}
    with site_listener(broker, named) as listener:
        return _kept(listener)


def _cameras(topics: Topics, kept: Iterable[str]) -> tuple[str, ...]:
    """Return the cameras that topics of a device are of: `<root>/camera/<camera>/...`."""
    parts = [topic.removeprefix(topics.root).split("/") for topic in kept]
    return tuple(dict.fromkeys(each[2] for each in parts if len(each) == 4 and each[1] == "camera"))
