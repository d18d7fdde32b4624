"""The topics: one table of channels, and the names of one device in it. Sends nothing.

`CHANNELS` is what `Topics`, the AsyncAPI document, the reference in deploy/MQTT.md and the tests of the
access rules (deploy/mosquitto/acl) are made from. A topic never holds a subject's id or label: topics are
seen by everybody who may list them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, RootModel

from edge.core.errors import ConfigError
from edge.core.ids import is_slug
from edge.mqtt.contract.messages import (
    AckPayload,
    CameraInfoPayload,
    CanaryPayload,
    CommandPayload,
    ConfigDesiredPayload,
    ConfigReportedPayload,
    EventPayload,
    GalleryDesiredPayload,
    GalleryReportedPayload,
    HealthPayload,
    InfoPayload,
    OutboxDroppedPayload,
    ResponsePayload,
    SignedCommandPayload,
    SnapshotPayload,
    StatePayload,
    StatusPayload,
)

MAJOR = "v1"
"""Version of the topics; payloads carry their own."""

LIVE_S = 10
"""Age from which nobody may act on an event any more; the journal marks such events as replayed."""

PARAMETERS = {
    "site": "Where the device is: 1 to 32 of a-z, 0-9 and -.",
    "device": "Which device of the site.",
    "camera": "Which camera of the device.",
    "verb": "What is to be done.",
    "group": "Which group of devices, as in push.groups.",
}
"""What stands for what in the address of a channel."""


class Party(StrEnum):
    """Who takes part, by what it logs in to the broker as; a device logs in as `<site>/<device>`."""

    DEVICE = "device"
    BUILDING = "building"
    HOME_ASSISTANT = "homeassistant"
    JOURNAL = "journal"
    OPERATOR = "operator"
    PAGE = "page"


DEVICE = frozenset({Party.DEVICE})
JOURNAL_KEEPER = frozenset({Party.JOURNAL})
OPERATOR = frozenset({Party.OPERATOR})
KEPT = DEVICE | OPERATOR
"""Who publishes what the broker keeps of a device: an operator only empty messages, to forget it."""

PAGE = frozenset({Party.PAGE})
READERS = frozenset(Party) - DEVICE - PAGE
"""Who reads everything: devices read only what is theirs, the page in a browser only what it shows."""


SEERS = frozenset({Party.HOME_ASSISTANT, Party.OPERATOR})
"""Who sees pictures."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic below `edge/v1/<site>/`, what is sent there, how, and who may.

    `signed` is what the payload looks like where it is signed. `expiry_s` is after how many seconds the
    broker throws a message away that it could not pass on (MQTT 5); None: never.
    """

    name: str
    path: str
    payload: type[BaseModel]
    description: str
    qos: Literal[0, 1] = 1
    retained: bool = False
    expiry_s: int | None = None
    publishers: frozenset[Party] = DEVICE
    subscribers: frozenset[Party] = READERS | PAGE
    signed: type[BaseModel] | None = None

    @property
    def address(self) -> str:
        """The topic with its parameters in braces."""
        return f"edge/{MAJOR}/{{site}}/{self.path}"

    @property
    def payloads(self) -> tuple[type[BaseModel], ...]:
        """Everything that a message may look like."""
        return (self.payload,) if self.signed is None else (self.payload, self.signed)

    @property
    def plain(self) -> bool:
        """Whether a message is a word or a picture, and no JSON."""
        return issubclass(self.payload, RootModel)

    @property
    def content_type(self) -> str:
        """The media type of a message."""
        if self.payload is SnapshotPayload:
            return "image/jpeg"
        return "text/plain" if self.plain else "application/json"

    @property
    def sent(self) -> bool:
        """Whether the device publishes here."""
        return Party.DEVICE in self.publishers

    @property
    def heard(self) -> bool:
        """Whether the device subscribes to this."""
        return Party.DEVICE in self.subscribers

    def topic(self, **names: str) -> str:
        """Return the topic with these for its parameters; `+` for one that may be any."""
        return self.address.format(**names)


STATUS = Channel(
    "status",
    "{device}/status",
    StatusPayload,
    "One plain word; also the last will.",
    retained=True,
    publishers=KEPT,
)
INFO = Channel(
    "info", "{device}/info", InfoPayload, "What runs on this device.", retained=True, publishers=KEPT
)
HEALTH = Channel(
    "health",
    "{device}/health",
    HealthPayload,
    "How it runs, every minute.",
    qos=0,
    retained=True,
    publishers=KEPT,
)
CAMERA_STATUS = Channel(
    "cameraStatus",
    "{device}/camera/{camera}/status",
    StatusPayload,
    "Whether a camera delivers.",
    retained=True,
    publishers=KEPT,
)
CAMERA_INFO = Channel(
    "cameraInfo",
    "{device}/camera/{camera}/info",
    CameraInfoPayload,
    "Why it does or does not.",
    retained=True,
    publishers=KEPT,
)
EVENT = Channel(
    "event",
    "{device}/camera/{camera}/event",
    EventPayload,
    "Decisions as they fall, for actuators: they expire after 10 s and are never sent late.",
    expiry_s=LIVE_S,
)
JOURNAL = Channel(
    "journal",
    "{device}/camera/{camera}/journal",
    EventPayload,
    "Every decision at least once, from a durable outbox; the same event_id as in event.",
    subscribers=READERS,
)
ACK = Channel(
    "ack",
    "{device}/ack",
    AckPayload,
    "Events of the journal that a consumer has; a device with outbox.delivery = consumer keeps them until "
    "then.",
    publishers=JOURNAL_KEEPER,
    subscribers=READERS | DEVICE,
)
OUTBOX_DROPPED = Channel(
    "outboxDropped",
    "{device}/outbox_dropped",
    OutboxDroppedPayload,
    "How many decisions were dropped before they could be delivered; their seq is missing.",
    retained=True,
    publishers=KEPT,
)
CANARY = Channel(
    "canary",
    "{device}/canary",
    CanaryPayload,
    "What the device sends to itself through a broker of MQTT 3.1.1; nothing for others.",
    subscribers=READERS | DEVICE,
)
STATE = Channel(
    "state",
    "{device}/camera/{camera}/state",
    StatePayload,
    "Who is present now.",
    retained=True,
    publishers=KEPT,
)
SNAPSHOT = Channel(
    "snapshot",
    "{device}/camera/{camera}/snapshot",
    SnapshotPayload,
    "A picture of the camera as JPEG, of at most 256 KiB, one in two seconds: of a decision, or as the "
    "command snapshot asked for it. Only where the camera's setting snapshot says so, and never with "
    "privacy.anonymous.",
    qos=0,
    expiry_s=LIVE_S,
    subscribers=SEERS,
)
COMMAND = Channel(
    "command",
    "{device}/command/{verb}",
    CommandPayload,
    "Asks the device for something; signed (DSSE) where it changes state. Never to be retained: such a one "
    "is refused; a device that speaks MQTT 3.1.1 notices only those from before it came. A signed one is "
    "done once; the same again gets the same answer, a refusal where it only reads.",
    publishers=OPERATOR,
    subscribers=READERS | DEVICE,
    signed=SignedCommandPayload,
)
RESPONSE = Channel(
    "response",
    "{device}/response/{verb}",
    ResponsePayload,
    "What came of a command, refusals included; with MQTT 5 at the response topic of the command, which has "
    "to lie below response/, with its correlation data. What is no known verb is refused at "
    "response/refused. At most about one refusal a second is told.",
    subscribers=READERS,
)
CONFIG_DESIRED = Channel(
    "configDesired",
    "{device}/config/desired",
    ConfigDesiredPayload,
    "Configuration pushed for this device, signed.",
    retained=True,
    publishers=OPERATOR,
    subscribers=READERS | PAGE | DEVICE,
)
FLEET_CONFIG_DESIRED = Channel(
    "fleetConfigDesired",
    "_fleet/config/desired",
    ConfigDesiredPayload,
    "Configuration pushed for all devices of the site, signed.",
    retained=True,
    publishers=OPERATOR,
    subscribers=READERS | PAGE | DEVICE,
)
GROUP_CONFIG_DESIRED = Channel(
    "groupConfigDesired",
    "_group-{group}/config/desired",
    ConfigDesiredPayload,
    "Configuration pushed for a group of devices, signed.",
    retained=True,
    publishers=OPERATOR,
    subscribers=READERS | PAGE | DEVICE,
)
CONFIG_REPORTED = Channel(
    "configReported",
    "{device}/config/reported",
    ConfigReportedPayload,
    "What came of the last push, and what is in force.",
    retained=True,
    publishers=KEPT,
)
GALLERY_DESIRED = Channel(
    "galleryDesired",
    "{device}/gallery/desired",
    GalleryDesiredPayload,
    "Asks the device to synchronise its gallery now.",
    retained=True,
    publishers=OPERATOR,
    subscribers=READERS | PAGE | DEVICE,
)
GALLERY_REPORTED = Channel(
    "galleryReported",
    "{device}/gallery/reported",
    GalleryReportedPayload,
    "What the last synchronisation came to.",
    retained=True,
    publishers=KEPT,
)

CHANNELS = (
    *(STATUS, INFO, HEALTH, CAMERA_STATUS, CAMERA_INFO, EVENT, JOURNAL, ACK, OUTBOX_DROPPED, CANARY, STATE),
    *(
        SNAPSHOT,
        COMMAND,
        RESPONSE,
        CONFIG_DESIRED,
        FLEET_CONFIG_DESIRED,
        GROUP_CONFIG_DESIRED,
        CONFIG_REPORTED,
    ),
    *(GALLERY_DESIRED, GALLERY_REPORTED),
)
"""Every topic of a device and of its site."""


def check_slug(name: str, what: str) -> str:
    """Return `name` if it is safe in a topic; `what` says whose name it is.

    Raises:
        ConfigError: It is not.
    """
    if not is_slug(name):
        raise ConfigError(f"{what}: {name[:40]!r} cannot be in a topic; use 1 to 32 of a-z, 0-9 and -")
    return name


@dataclass(frozen=True, slots=True)
class Topics:
    """The channels of one device by name: a value object that cannot hold a bad one.

    Raises:
        ConfigError: A name is not a slug, at construction or in the methods that take a camera.
    """

    site: str
    device: str

    def __post_init__(self) -> None:
        check_slug(self.site, "site")
        check_slug(self.device, "device")

    @property
    def client_id(self) -> str:
        """Who the device is to the broker; the dot keeps (a-b, c) and (a, b-c) apart."""
        return f"edge.{self.site}.{self.device}"

    @property
    def root(self) -> str:
        """What all topics of the device begin with, without the last slash."""
        return f"edge/{MAJOR}/{self.site}/{self.device}"

    def documents(self, cameras: Iterable[str]) -> list[str]:
        """Return the topics under which the broker keeps what a device with these cameras has said."""
        kept = [channel for channel in CHANNELS if channel.retained and channel.sent]
        own = [self._of(channel) for channel in kept if "{camera}" not in channel.path]
        return own + [topic for camera in cameras for topic in self.camera_documents(camera)]

    def camera_documents(self, camera: str) -> list[str]:
        """Return the topics under which the broker keeps what was said of a camera."""
        check_slug(camera, "camera")
        return [
            self._of(channel, camera=camera)
            for channel in CHANNELS
            if channel.retained and channel.sent and "{camera}" in channel.path
        ]

    @property
    def status(self) -> str:
        """As `STATUS`."""
        return self._of(STATUS)

    @property
    def info(self) -> str:
        """As `INFO`."""
        return self._of(INFO)

    @property
    def health(self) -> str:
        """As `HEALTH`."""
        return self._of(HEALTH)

    @property
    def gallery_desired(self) -> str:
        """As `GALLERY_DESIRED`."""
        return self._of(GALLERY_DESIRED)

    @property
    def gallery_reported(self) -> str:
        """As `GALLERY_REPORTED`."""
        return self._of(GALLERY_REPORTED)

    @property
    def commands(self) -> str:
        """Where commands come in: all verbs."""
        return self._of(COMMAND, verb="+")

    def command(self, verb: str) -> str:
        """As `COMMAND`."""
        return self._of(COMMAND, verb=verb)

    def response(self, verb: str) -> str:
        """As `RESPONSE`."""
        return self._of(RESPONSE, verb=verb)

    @property
    def config_reported(self) -> str:
        """As `CONFIG_REPORTED`."""
        return self._of(CONFIG_REPORTED)

    def config_desired(self, layer: str) -> str:
        """Return where configuration for a layer is pushed: fleet, group:<name> or device.

        A fleet's and a group's lie beside the devices of the site, under names that no device can have.
        """
        if layer == "device":
            return self._of(CONFIG_DESIRED)
        if layer == "fleet":
            return self._of(FLEET_CONFIG_DESIRED)
        group = check_slug(layer.removeprefix("group:"), "push.groups")
        return self._of(GROUP_CONFIG_DESIRED, group=group)

    @property
    def ack(self) -> str:
        """As `ACK`."""
        return self._of(ACK)

    @property
    def outbox_dropped(self) -> str:
        """As `OUTBOX_DROPPED`."""
        return self._of(OUTBOX_DROPPED)

    @property
    def canary(self) -> str:
        """As `CANARY`."""
        return self._of(CANARY)

    def camera_status(self, camera: str) -> str:
        """As `CAMERA_STATUS`."""
        return self._of(CAMERA_STATUS, camera=check_slug(camera, "camera"))

    def camera_info(self, camera: str) -> str:
        """As `CAMERA_INFO`."""
        return self._of(CAMERA_INFO, camera=check_slug(camera, "camera"))

    def event(self, camera: str) -> str:
        """As `EVENT`."""
        return self._of(EVENT, camera=check_slug(camera, "camera"))

    def journal(self, camera: str) -> str:
        """As `JOURNAL`."""
        return self._of(JOURNAL, camera=check_slug(camera, "camera"))

    def state(self, camera: str) -> str:
        """As `STATE`."""
        return self._of(STATE, camera=check_slug(camera, "camera"))

    def snapshot(self, camera: str) -> str:
        """As `SNAPSHOT`."""
        return self._of(SNAPSHOT, camera=check_slug(camera, "camera"))

    def _of(self, channel: Channel, **names: str) -> str:
        return channel.topic(site=self.site, device=self.device, **names)
