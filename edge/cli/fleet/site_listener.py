"""How commands hear and ask the devices of the site: one connection to its broker, as the settings say."""

from edge.core.errors import LinkError
from edge.device.assembly.delivery import build_broker
from edge.device.settings.tables import MqttSettings
from edge.mqtt.subscriber import Listener

QUIET_S = 1.5
"""Retained messages come at once; after this long without one there are no more."""


def site_listener(values: MqttSettings, topics: tuple[str, ...], *, session: str | None = None) -> Listener:
    """Return what hears these topics at the site's broker; connects once it is entered.

    `session` as in `Listener`.

    Raises:
        ConfigError: A certificate or a password cannot be used.
    """
    known = build_broker(values)
    return Listener(
        known.host,
        known.port,
        topics,
        version=known.version,
        username=known.username,
        password=known.password,
        tls=known.tls,
        session=session,
    )


def check_accepted(listener: Listener) -> None:
    """Go on where the broker took what was published, as far as it has answered.

    Raises:
        LinkError: Its access rules forbid something; nobody will answer that.
    """
    if (refusal := listener.refusal()) is not None:
        raise LinkError(refusal)
