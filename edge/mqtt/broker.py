"""The broker as a connection sees it: where it is, what it does, and why it cannot be reached.

Connects to nothing.
"""

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.core.errors import ConfigError

Protocol = Literal["5", "3.1.1"]
Version = Literal["auto", "5", "3.1.1"]
"""What the settings say: one version of MQTT, or auto for what `ProtocolChoice` finds out."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how to speak to it. `tls` None: in the clear."""

    host: str
    port: int
    version: Version = "auto"
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


CONNECT_TIMEOUT_S = 5.0
"""For the network connection and TLS, and again for the broker's answer."""

GUESS_TIMEOUT_S = 1.5
"""For the first answer in MQTT 5 where 3.1.1 is tried next: older brokers such as amqtt may give none."""

NO_SUCH_VERSION = 132
"""CONNACK reason "Unsupported protocol version". Source: MQTT 5.0, section 3.2.2.2."""


class ProtocolChoice:
    """Which MQTT to speak: 5 first, and 3.1.1 where the broker answers as one that does not know 5.

    Some older brokers refuse the version, some hang up, some say nothing. A broker that has spoken 5 has to
    say that it no longer does: one that hangs up is starting anew, or stands behind a balancer that does,
    and with 3.1.1 it could not say for as long as that connection lasts that nobody subscribes.
    """

    def __init__(self, version: Version) -> None:
        self._version = version
        self.speaks_5 = False
        """Whether the broker has accepted a connection of MQTT 5."""

    @property
    def first(self) -> Protocol:
        """What to try first."""
        return "3.1.1" if self._version == "3.1.1" else "5"

    def guesses(self, protocol: Protocol) -> bool:
        """Return whether it is open that the broker knows `protocol`: silence then means that it does not."""
        return self._version == "auto" and protocol == "5" and not self.speaks_5

    def patience_s(self, protocol: Protocol) -> float:
        """Return how long to wait for the broker's answer to a connection with `protocol`, in seconds."""
        return GUESS_TIMEOUT_S if self.guesses(protocol) else CONNECT_TIMEOUT_S

    def accepted(self, protocol: Protocol) -> None:
        """Note that the broker accepted a connection."""
        self.speaks_5 = self.speaks_5 or protocol == "5"

    def wants_older(self, protocol: Protocol, refusal: int | None, *, silent: bool) -> bool:
        """Return whether to try 3.1.1 after a connection with `protocol` that the broker did not accept.

        `refusal` is the reason code it gave. `silent`: it gave no answer, or hung up without one.
        """
        if self._version != "auto" or protocol != "5":
            return False
        return refusal == NO_SUCH_VERSION or (silent and not self.speaks_5)


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


REFUSALS = {
    132: "speaks another version of MQTT; set mqtt.version = 'auto'",
    133: "refused the client id; allow it at the broker or correct site and device",
    134: "refused the username or the password; correct mqtt.username and mqtt.password_file",
    135: "does not authorise this device; correct mqtt.username and mqtt.password_file or the broker's rules",
    138: "has banned this device; lift the ban at the broker",
    140: "wants another way to authenticate; set mqtt.username, or mqtt.cert_file and mqtt.key_file",
}
"""CONNACK reasons that only a person can mend. Source: MQTT 5.0, section 3.2.2.2."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no connection, as an operator is told: what, where, how to mend it.

    `lasting`: it will not pass by itself, so that trying is done slowly.
    """

    text: str
    lasting: bool = False

    @classmethod
    def refused(cls, where: str, code: int, name: str) -> "Fault":
        """Return the fault for a CONNACK with reason `code`."""
        if code in REFUSALS:
            return cls(f"broker at {where} {REFUSALS[code]}", lasting=True)
        return cls(f"broker at {where} refused the connection: {name}")

    @classmethod
    def unreachable(cls, where: str, error: OSError, *, tls: bool) -> "Fault":
        """Return the fault for an error in connecting."""
        match error:
            case ssl.SSLCertVerificationError():
                why = error.verify_message
                hint = "set mqtt.ca_file to the authority that signed it, and mqtt.host to a name in it"
                text = f"certificate of the broker at {where} is not trusted: {why}; {hint}"
                return cls(text, lasting=True)
            case ssl.SSLError() | ConnectionResetError() if tls:
                reason = getattr(error, "reason", None) or error.strerror or str(error)
                hint = "use the broker's TLS port or set mqtt.tls = false; check mqtt.cert_file"
                return cls(f"no TLS with the broker at {where}: {reason}; {hint}", lasting=True)
            case socket.gaierror():
                return cls(f"cannot find the broker {where}: {error.strerror}; correct mqtt.host")
            case ConnectionRefusedError():
                return cls(f"no broker listens at {where}; start it or correct mqtt.host and mqtt.port")
            case TimeoutError():
                return cls(f"broker at {where} does not answer; check the network and mqtt.host")
            case _:
                why = error.strerror or str(error)
                return cls(f"cannot reach the broker at {where}: {why}; check the network")

    @classmethod
    def hung_up(cls, where: str, *, tls: bool, known: bool = False) -> "Fault":
        """Return the fault for a connection that ended without an answer; `known`: there once was one."""
        if known:
            return cls(f"broker at {where} hung up without an answer; is it starting anew?")
        hint = (
            "if it wants a certificate, set mqtt.cert_file and mqtt.key_file"
            if tls
            else "if that is its TLS port, set mqtt.tls = true"
        )
        return cls(f"broker at {where} hung up without an answer; {hint}", lasting=True)

    @classmethod
    def taken_over(cls, where: str, client_id: str) -> "Fault":
        """Return the fault for a connection that the broker ended for a newer one of the same name."""
        hint = "two devices have the same site and device; rename one"
        return cls(f"another client came to {where} as {client_id}: {hint}", lasting=True)

    @classmethod
    def oversize(cls, where: str, size: int, limit: int, deaf_s: float) -> "Fault":
        """Return the fault for a packet that is larger than any that is read, in bytes."""
        return cls(
            f"broker at {where} sends a packet of {size} bytes, more than {limit}: set its "
            f"message_size_limit; for {deaf_s / 60:.0f} minutes this device listens to nothing"
        )

    def too_brief(self, client_id: str) -> "Fault":
        """Return this fault with what it means when connections keep ending soon after they were accepted."""
        hint = (
            f"several connections ended at once: is there another device with the client id {client_id}? "
            "Or does the broker hang up at what its rules deny (`edge doctor`)?"
        )
        return Fault(f"{self.text}; {hint}", self.lasting)
