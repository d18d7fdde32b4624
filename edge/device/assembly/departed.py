"""What the broker keeps of cameras that were taken out, and of a name that this device had before.

Nobody else would ever take it back, and an automation would go on reading it. What was shown is remembered in
a file of the state directory. `edge fleet forget` does the same for a device that is no more.
"""

import logging

from pydantic import BaseModel, ConfigDict

from edge.core.errors import ConfigError, FileError
from edge.core.files import StateFile
from edge.core.ids import Slug
from edge.device.settings.load import Settings
from edge.mqtt.contract.topics import Topics

log = logging.getLogger(__name__)

MAX_BYTES = 16 * 1024
MAX_GONE = 16
"""Cameras that go on being taken back: nobody says whether a broker has ever heard that they are gone."""


class ShownCameras(BaseModel):
    """Under which name this device has shown which cameras, and which of them are `gone`, the latest last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: Slug
    device: Slug
    cameras: tuple[Slug, ...] = ()
    gone: tuple[Slug, ...] = ()


def departed(settings: Settings) -> dict[str, bytes]:
    """Return empty documents that take back what the broker keeps of what is gone.

    The last `MAX_GONE` cameras go on being taken back, over restarts. A name that the device had before is
    taken back once, in this run of the daemon: another device may have it now.
    """
    mend = "remove it: cameras that were taken out are then not taken back"
    file = StateFile(settings.state_dir / "shown.json", ShownCameras, MAX_BYTES, ConfigError, mend)
    before: ShownCameras | None = None
    try:
        before = file.read()
    except ConfigError as error:
        log.warning("what the broker keeps of this device is not known: %s", error)
    except FileError as error:
        log.warning("what the broker keeps of this device is not known: %s", error)
        return {}
    name, cameras = (settings.site, settings.device), tuple(settings.cameras)
    known = before is not None and (before.site, before.device) == name
    shown = (*before.gone, *before.cameras) if before is not None else ()
    gone = tuple(dict.fromkeys(each for each in shown if each not in cameras)) if known else ()
    now = ShownCameras(site=settings.site, device=settings.device, cameras=cameras, gone=gone[-MAX_GONE:])
    if now != before:
        try:
            file.write(now)
        except FileError as error:
            log.warning("what the broker keeps of this device cannot be remembered: %s", error)
    topics: list[str] = []
    if known:
        own = Topics(*name)
        topics = [topic for camera in gone for topic in own.camera_documents(camera)]
    elif before is not None:
        topics = Topics(before.site, before.device).documents(shown)
    return dict.fromkeys(topics, b"")
