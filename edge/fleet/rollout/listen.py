"""How an operator hears and asks the devices of a site: one connection to its broker."""

from edge.core.errors import LinkError
from edge.mqtt.broker import Broker
from edge.mqtt.subscriber import Listener

QUIET_S = 1.5
"""Retained messages come at once; after this long without one there are no more."""

LOOK_S = 0.25
"""Between two looks whether the broker refuses what was sent."""


def site_listener(broker: Broker, topics: tuple[str, ...], *, session: str | None = None) -> Listener:
    """Return what hears these topics at the site's broker; connects once it is entered.

    `session` as in `Listener`.
    """
    return Listener(
        broker.host,
        broker.port,
        topics,
        version=broker.version,
        username=broker.username,
        password=broker.password,
        tls=broker.tls,
        session=session,
    )


def check_accepted(listener: Listener) -> None:
    """Go on where the broker took what was published, as far as it has answered.

    Raises:
        LinkError: Its access rules forbid something; nobody will answer that.
    """
    if (refusal := listener.refusal()) is not None:
        raise LinkError(refusal)


def nobody_heard(broker: Broker, site: str) -> str:
    """Say why no device may have been heard; a broker does not tell that it withholds something."""
    return (
        f"no device of site {site} was heard at {broker.host}:{broker.port}: none was ever there, or the "
        f"broker's access rules let this user read nothing below edge/v1/{site}/; log in as operator"
    )
