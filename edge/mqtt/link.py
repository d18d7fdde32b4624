"""LinkThread: one connection to the broker after another. The only user of paho.

Connects, says why it cannot, backs off, tells `inbox` what happens. Keeps nothing to send: what was not
acknowledged when a connection ends is the caller's to send again, on the next one.

Every connection has a paho client of its own, so that nothing of an old connection is sent on a new one.
The client's loop runs here; publishing from another thread only queues. paho calls back while it holds its
own locks: callbacks do nothing but enqueue.
"""

import logging
import queue
import random
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.clock import Clock
from edge.errors import ConfigError
from edge.metrics import Metrics
from edge.mqtt.backoff import Backoff, Uniform
from edge.mqtt.faults import NO_SUCH_VERSION, TAKEN_OVER, Fault, hung_up, refused, unreachable

log = logging.getLogger(__name__)

Protocol = Literal["5", "3.1.1"]

CONNECT_TIMEOUT_S = 5.0
"""For the network connection and TLS, and again for the broker's answer."""

FIRST_PAUSE_S = 1.0
STABLE_S = 10.0
"""A connection that lasted this long ends the back-off; a shorter one counts as a failure."""

SESSION_EXPIRY_S = 3600
"""For how long the broker keeps our subscriptions while we are away."""

LOOP_S = 1.0
DEFAULT_RECEIVE_MAXIMUM = 65535
"""Source: MQTT 5.0, section 3.2.2.3.3: the value in force when the broker names none."""


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
    if cert_file is not None:
        try:
            context.load_cert_chain(cert_file, key_file, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"mqtt.cert_file, mqtt.key_file: cannot use {cert_file} with {key_file}: "
                f"{error.strerror or error}; they must be a PEM certificate and its key without a passphrase"
            ) from None
    return context


class _Session:
    """What paho calls back for one connection."""

    def __init__(
        self, number: int, client: paho.Client, protocol: Protocol, inbox: queue.SimpleQueue[Any]
    ) -> None:
        self.number = number
        self.client = client
        self.protocol: Protocol = protocol
        self.accepted = False
        self.refusal: ReasonCode | None = None
        self.ended: ReasonCode | None = None
        self._inbox = inbox
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        # With this callback set, publish() never writes to the socket from the caller's thread.
        client.on_socket_register_write = self._on_socket_register_write

    def _on_connect(
        self,
        _c: paho.Client,
        _u: Any,
        _f: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.refusal = reason
            return
        self.accepted = True
        receive_maximum = getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
        maximum_packet_size = getattr(properties, "MaximumPacketSize", None)
        self._inbox.put(Connected(self.number, self.protocol, receive_maximum, maximum_packet_size))

    def _on_disconnect(
        self, _c: paho.Client, _u: Any, _f: paho.DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        self.ended = reason
        if self.accepted:
            self.accepted = False
            self._inbox.put(Disconnected(self.number, str(reason)))

    def _on_publish(
        self, _c: paho.Client, _u: Any, mid: int, reason: ReasonCode, _p: Properties | None
    ) -> None:
        self._inbox.put(Published(self.number, mid, reason.value))

    def _on_socket_register_write(self, _c: paho.Client, _u: Any, _s: Any) -> None:
        """Nothing to do: paho wakes its own loop."""


class LinkThread(threading.Thread):
    """Connects, and connects again, until `stop`. Reports to `inbox` in the order of what happened."""

    def __init__(
        self,
        inbox: "queue.SimpleQueue[Any]",
        broker: Broker,
        *,
        client_id: str,
        will: Will,
        metrics: Metrics,
        clock: Clock,
        uniform: Uniform = random.uniform,
    ) -> None:
        super().__init__(name="mqtt-link", daemon=True)
        self._inbox = inbox
        self._broker = broker
        self._where = f"{broker.host}:{broker.port}"
        self._client_id = client_id
        self._will = will
        self._metrics = metrics
        self._clock = clock
        self._backoff = Backoff(FIRST_PAUSE_S, broker.backoff_max_s, uniform)
        self._stopping = threading.Event()
        self._session: _Session | None = None
        self._numbers = 0
        self._told: str | None = None
        self._told_fallback = False

    def publish(
        self,
        connection: int,
        topic: str,
        payload: bytes,
        *,
        qos: Literal[0, 1],
        retain: bool = False,
        expiry_s: int | None = None,
    ) -> int | None:
        """Queue a message on connection number `connection`; returns its mid for `Published`.

        `expiry_s` bounds how long the broker keeps it for a subscriber (MQTT 5 only). None is returned when
        that connection has ended.
        """
        session = self._session
        if session is None or session.number != connection or not session.accepted:
            return None
        properties: Properties | None = None
        if expiry_s is not None and session.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        info = session.client.publish(topic, payload, qos, retain, properties)
        return info.mid if info.rc == paho.MQTT_ERR_SUCCESS else None

    def stop(self, timeout_s: float) -> bool:
        """Send what is queued, take leave of the broker, and say whether that was done in time."""
        self._stopping.set()
        session = self._session
        if session is not None:
            session.client.disconnect()
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        """Hold a connection until stopped."""
        while not self._stopping.is_set():
            try:
                pause_s = self._connect_and_stay()
            except Exception:
                self._metrics.count("mqtt.errors")
                log.exception("connection ended by an error")
                pause_s = self._backoff.slow_s()
            self._stopping.wait(pause_s)

    def _connect_and_stay(self) -> float:
        """Hold one connection until it ends; returns the pause before the next one, in seconds."""
        protocols: tuple[Protocol, ...]
        protocols = ("5", "3.1.1") if self._broker.version == "auto" else (self._broker.version,)
        for protocol in protocols:
            started_s = self._clock.monotonic()
            session = self._new_session(protocol)
            fault = self._hold(session)
            if self._stopping.is_set():
                return 0.0
            if session.refusal is None or session.refusal.value != NO_SUCH_VERSION:
                break
            if protocol != protocols[-1] and not self._told_fallback:
                self._told_fallback = True
                log.info("broker at %s does not speak MQTT 5; using 3.1.1", self._where)
        if self._clock.monotonic() - started_s >= STABLE_S:
            self._backoff.reset()
        self._metrics.count("mqtt.faults")
        log.log(logging.DEBUG if fault.text == self._told else logging.WARNING, "%s", fault.text)
        self._told = fault.text
        return self._backoff.slow_s() if fault.lasting else self._backoff.next_s()

    def _hold(self, session: _Session) -> Fault:
        """Run a connection until it ends; returns why."""
        try:
            self._connect(session)
        except OSError as error:
            return unreachable(self._where, error)
        self._session = session
        greeted = False
        deadline_s = self._clock.monotonic() + CONNECT_TIMEOUT_S
        while session.client.loop(LOOP_S if session.accepted else 0.05) == paho.MQTT_ERR_SUCCESS:
            if session.accepted and not greeted:
                greeted = True
                self._told = None
                self._metrics.count("mqtt.connects")
                log.info("connected to the broker at %s with MQTT %s", self._where, session.protocol)
            if not greeted and self._clock.monotonic() > deadline_s:
                return Fault(f"broker at {self._where} does not answer; check mqtt.host and mqtt.port")
            if self._stopping.is_set() and not greeted:
                session.client.disconnect()
        self._session = None
        return self._farewell(session, greeted)

    def _farewell(self, session: _Session, greeted: bool) -> Fault:
        if session.refusal is not None:
            return refused(self._where, session.refusal.value, str(session.refusal))
        if not greeted:
            return hung_up(self._where, tls=self._broker.tls is not None)
        if session.ended is not None and session.ended.value == TAKEN_OVER:
            hint = "two devices have the same site and device; rename one"
            return Fault(
                f"another client connected to {self._where} as {self._client_id}: {hint}", lasting=True
            )
        return Fault(f"connection to the broker at {self._where} lost: {session.ended}")

    def _new_session(self, protocol: Protocol) -> _Session:
        broker = self._broker
        newest = protocol == "5"
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if newest else False,
            protocol=paho.MQTTv5 if newest else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages = 0  # no limit here: the caller counts, by the broker's own limit
        client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        self._numbers += 1
        return _Session(self._numbers, client, protocol, self._inbox)

    def _connect(self, session: _Session) -> None:
        """Open the network connection and queue CONNECT; the session outlives short absences."""
        broker = self._broker
        if session.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            session.client.connect(
                broker.host, broker.port, broker.keepalive_s, clean_start=False, properties=properties
            )
        else:
            session.client.connect(broker.host, broker.port, broker.keepalive_s)
