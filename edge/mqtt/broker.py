"""What a link is told about the broker, and what it reports. Connects to nothing."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.core.errors import ConfigError

Protocol = Literal["5", "3.1.1"]


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how to speak to it. `tls` None: in the clear."""

    host: str
    port: int
    version: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    keepalive_s: int = 15
    backoff_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us, retained and at QoS 1, when we vanish."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted connection number `connection`. `maximum_packet_size` in bytes, None: no limit."""

    connection: int
    protocol: Protocol
    receive_maximum: int
    maximum_packet_size: int | None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended; what it did not acknowledge, it never will."""

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class Published:
    """The broker answered a message at QoS 1 with reason code `reason` (always 0 with 3.1.1)."""

    connection: int
    mid: int
    reason: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message of a subscription. `retained` is set when it lay at the broker before we subscribed."""

    connection: int
    topic: str
    payload: bytes = field(repr=False)
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A message too large to be looked at, in bytes."""

    connection: int
    topic: str
    size: int


@dataclass(frozen=True, slots=True)
class Unheard:
    """The broker refuses a subscription: what is pushed there will not be heard."""

    connection: int
    reason: str


class _HandshakeSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts `ca_file` (None: the system's authorities) and shows our certificate.

    Raises:
        ConfigError: A file cannot be read or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or error
        raise ConfigError(
            f"mqtt.ca_file: cannot use {ca_file}: {why}; it must hold PEM certificates"
        ) from None
    context.sslsocket_class = _HandshakeSocket
    if cert_file is not None:
        try:
            context.load_cert_chain(cert_file, key_file, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"mqtt.cert_file, mqtt.key_file: cannot use {cert_file} with {key_file}: "
                f"{error.strerror or error}; they must be a PEM certificate and its key without a passphrase"
            ) from None
    return context
