"""How an operator hears and asks the devices of a site: one connection to its broker."""

import queue
from collections.abc import Callable, Iterable, Sequence

from edge.core.clock import Clock
from edge.core.errors import LinkError
from edge.mqtt.broker import Broker
from edge.mqtt.contract.topics import Channel
from edge.mqtt.subscriber import Listener, Message

QUIET_S = 1.5
"""Retained messages come at once; after this long without one there are no more."""

LOOK_S = 0.25
"""Between two looks whether the broker refuses what was sent."""

GATHER_S = 0.05
"""Messages that come within this time are looked at together: thousands of devices may answer at once."""


def of_devices(channels: Sequence[Channel], site: str, devices: Iterable[str]) -> tuple[str, ...]:
    """Return the topics of these channels of all devices of a site, and of those named once more.

    Some brokers give what they keep only to who names its topic, as RabbitMQ does.
    """
    return tuple(channel.topic(site=site, device=name) for name in ("+", *devices) for channel in channels)


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


def hear_kept(listener: Listener, hear: Callable[[Message], object], clock: Clock) -> None:
    """Hear what comes, until nothing that the broker had kept has come for `QUIET_S`.

    What devices say meanwhile does not prolong it: of thousands, one always says something.
    """
    until_s = clock.monotonic() + QUIET_S
    while (left_s := until_s - clock.monotonic()) > 0:
        try:
            message = listener.messages.get(timeout=left_s)
        except queue.Empty:
            return
        hear(message)
        if message.retained:
            until_s = clock.monotonic() + QUIET_S


def gathered(listener: Listener, clock: Clock) -> list[Message]:
    """Return what has come and comes within `GATHER_S` of the first; nothing comes: [] after `LOOK_S`."""
    messages: list[Message] = []
    try:
        messages.append(listener.messages.get(timeout=LOOK_S))
        until_s = clock.monotonic() + GATHER_S
        while (left_s := until_s - clock.monotonic()) > 0:
            messages.append(listener.messages.get(timeout=left_s))
    except queue.Empty:
        pass
    return messages


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
        f"broker's access rules let this user read nothing below edge/v1/{site}/; log in as operator. A "
        f"broker such as RabbitMQ shows only a device that is named"
    )
