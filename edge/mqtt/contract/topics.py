"""The topics of one device, as value objects that cannot hold a bad name. Sends nothing.

A topic never holds a subject's id or label: topics are seen by everybody who may list them.
"""

from dataclasses import dataclass

from edge.core.errors import ConfigError
from edge.core.ids import is_slug

MAJOR = "v1"
"""Version of the topics; payloads carry their own."""


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
    """What a device publishes to.

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

    @property
    def status(self) -> str:
        """`online` or `offline`, retained; the last will."""
        return f"{self.root}/status"

    @property
    def info(self) -> str:
        """What runs here, retained."""
        return f"{self.root}/info"

    @property
    def health(self) -> str:
        """How it runs, retained."""
        return f"{self.root}/health"

    @property
    def gallery_desired(self) -> str:
        """Asks the device to synchronise its gallery, retained."""
        return f"{self.root}/gallery/desired"

    @property
    def gallery_reported(self) -> str:
        """What the last synchronisation came to, retained."""
        return f"{self.root}/gallery/reported"

    @property
    def commands(self) -> str:
        """Where commands come in: all verbs."""
        return f"{self.root}/command/+"

    def command(self, verb: str) -> str:
        """Where one verb comes in, never retained."""
        return f"{self.root}/command/{verb}"

    def response(self, verb: str) -> str:
        """What came of a command, never retained."""
        return f"{self.root}/response/{verb}"

    @property
    def config_reported(self) -> str:
        """What came of the last configuration push, retained."""
        return f"{self.root}/config/reported"

    def config_desired(self, layer: str) -> str:
        """Configuration pushed for a layer: fleet, group:<name> or device; retained.

        A fleet's and a group's lie beside the devices of the site, under names that no device can have.
        """
        if layer == "device":
            return f"{self.root}/config/desired"
        group = layer.removeprefix("group:")
        below = "_fleet" if layer == "fleet" else f"_group-{check_slug(group, 'push.groups')}"
        return f"edge/{MAJOR}/{self.site}/{below}/config/desired"

    @property
    def ack(self) -> str:
        """Where a consumer says which events of the journal it has."""
        return f"{self.root}/ack"

    @property
    def outbox_dropped(self) -> str:
        """How many events were dropped before they could be delivered, retained."""
        return f"{self.root}/outbox_dropped"

    @property
    def canary(self) -> str:
        """What the device sends to itself."""
        return f"{self.root}/canary"

    def camera_status(self, camera: str) -> str:
        """`online` or `offline`, retained."""
        return self._camera(camera, "status")

    def camera_info(self, camera: str) -> str:
        """Why a camera is online or offline, retained."""
        return self._camera(camera, "info")

    def event(self, camera: str) -> str:
        """Live decisions, never retained and never replayed."""
        return self._camera(camera, "event")

    def journal(self, camera: str) -> str:
        """Every decision, at least once."""
        return self._camera(camera, "journal")

    def state(self, camera: str) -> str:
        """Who is present, retained."""
        return self._camera(camera, "state")

    def _camera(self, camera: str, leaf: str) -> str:
        return f"{self.root}/camera/{check_slug(camera, 'camera')}/{leaf}"
