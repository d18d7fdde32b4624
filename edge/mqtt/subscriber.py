"""Listener: the other side of the contract, a subscriber such as a building system has one.

For the demo and for those who follow devices. The daemon does not use it; paho is known here and in `link`.
MQTT 5 is tried first, because only there a broker says what its access rules forbid.
"""

import queue
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.core.errors import LinkError
from edge.mqtt import broker as faults
from edge.mqtt.broker import Protocol

CONNECT_TIMEOUT_S = 5.0
GUESS_TIMEOUT_S = 1.5
"""For the first answer in MQTT 5, where 3.1.1 is tried next: some older brokers leave the question open."""

LONGEST_PAUSE_S = 30
"""Between two tries to connect again."""

FLUSH_S = 2.0
"""How long is waited for the broker's answer to what was published last."""

MAX_SENT = 1024
"""Published messages whose topic is known when the broker refuses them."""

KEEP_SESSION = 0xFFFFFFFF
"""Source: MQTT 5.0, section 3.1.2.11.2: the session does not expire, as in MQTT 3.1.1."""


@dataclass(frozen=True, slots=True)
class Message:
    """What was published; `retained` when the broker kept it from before we came."""

    topic: str
    payload: bytes
    retained: bool
    mid: int = 0
    qos: int = 0
    connection: int = 0
    correlation: bytes | None = None


class _OlderBrokerError(Exception):
    """The broker answers as one does that does not speak MQTT 5."""


class Listener:
    """A connection that collects what is published below `topics`; use as a context manager.

    With `session`, a client id, the broker keeps what comes while we are away and until it is confirmed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        topics: tuple[str, ...],
        *,
        version: Literal["auto", "5", "3.1.1"] = "auto",
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        session: str | None = None,
    ) -> None:
        self._where = (host, port)
        self._topics = topics
        self._version = version
        self._credentials = (username, password)
        self._tls = tls
        self._session = session
        self._connection = 0
        self._ready: queue.SimpleQueue[ReasonCode | list[ReasonCode] | None] = queue.SimpleQueue()
        self._published: paho.MQTTMessageInfo | None = None
        self._sent: OrderedDict[int, str] = OrderedDict()
        self._refused: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.protocol: Protocol = "3.1.1" if version == "3.1.1" else "5"
        self._client = self._new_client()

    def __enter__(self) -> "Listener":
        """Connect and subscribe.

        Raises:
            LinkError: The broker cannot be reached, or refuses.
        """
        try:
            self._open()
        except _OlderBrokerError:
            self.protocol, self._ready = "3.1.1", queue.SimpleQueue()
            self._client = self._new_client()
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait shortly for what was published last, and disconnect."""
        self.flush()
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def connected(self) -> bool:
        """Whether there is a connection; one that is lost comes back by itself."""
        return self._client.is_connected()

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, correlation: bytes | None = None
    ) -> None:
        """Queue a message at QoS 1; without a connection it waits for the next one.

        `correlation` comes back with the answer; MQTT 3.1.1 has no place for it.
        """
        properties = None
        if correlation is not None and self.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        self._published = self._client.publish(topic, payload, 1, retain, properties)
        self._sent[self._published.mid] = topic
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def flush(self) -> None:
        """Wait shortly for the broker's answer to what was published last."""
        if self._published is not None and self.connected:
            self._published.wait_for_publish(FLUSH_S)

    def refusal(self) -> str | None:
        """Return what the broker says against something that was published, once; None: nothing."""
        try:
            mid, reason = self._refused.get_nowait()
        except queue.Empty:
            return None
        return f"the broker refuses what is published to {self._sent.get(mid, '?')}: {reason}"

    def confirm(self, messages: Sequence[Message]) -> None:
        """Let the broker of a session forget these messages; those of an earlier connection come again."""
        if self._session is not None:
            for message in messages:
                if message.connection == self._connection and message.qos:
                    self._client.ack(message.mid, message.qos)

    def _open(self) -> None:
        """Connect and subscribe with the present protocol.

        Raises:
            LinkError: The broker cannot be reached, or refuses.
            _OlderBrokerError: It may speak the older protocol, which is to be tried.
        """
        host, port = self._where
        guessing = self.protocol == "5" and self._version == "auto"
        try:
            self._connect(host, port)
            self._client.loop_start()
            self._greeted(guessing)
            answer = self._ready.get(timeout=CONNECT_TIMEOUT_S)
        except (OSError, UnicodeError) as error:
            raise LinkError(f"broker at {host}:{port} cannot be reached: {error}") from None
        except queue.Empty:
            self._leave()
            raise LinkError(f"broker at {host}:{port} does not answer") from None
        except (LinkError, _OlderBrokerError):
            self._leave()
            raise
        reasons = answer if isinstance(answer, list) else []
        pairs = zip(self._topics, reasons, strict=False)
        if denied := [f"{topic} ({reason})" for topic, reason in pairs if reason.is_failure]:
            self._leave()
            raise LinkError(f"broker at {host}:{port} refuses to let us hear {', '.join(denied)}")

    def _greeted(self, guessing: bool) -> None:
        """Wait for the broker's greeting.

        Raises:
            queue.Empty: There is none.
            LinkError, _OlderBrokerError: As `_open`.
        """
        host, port = self._where
        try:
            greeting = self._ready.get(timeout=GUESS_TIMEOUT_S if guessing else CONNECT_TIMEOUT_S)
        except queue.Empty:
            if guessing:
                raise _OlderBrokerError from None
            raise
        if isinstance(greeting, ReasonCode) and not greeting.is_failure:
            return
        hung_up = not isinstance(greeting, ReasonCode)
        if guessing and (hung_up or greeting.value == faults.NO_SUCH_VERSION):  # type: ignore[union-attr]
            raise _OlderBrokerError
        raise LinkError(f"broker at {host}:{port} " + ("hangs up" if hung_up else f"refuses: {greeting}"))

    def _leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _new_client(self) -> paho.Client:
        newest = self.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._session or "",
            clean_session=None if newest else self._session is None,
            protocol=paho.MQTTv5 if newest else paho.MQTTv311,
            manual_ack=self._session is not None,
        )
        username, password = self._credentials
        if username is not None:
            client.username_pw_set(username, password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _connect(self, host: str, port: int) -> None:
        if self.protocol == "3.1.1" or self._session is None:
            self._client.connect(host, port)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = KEEP_SESSION
        self._client.connect(host, port, clean_start=False, properties=properties)

    def _on_connect(self, client: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._connection += 1
        self._ready.put(reason)
        if not reason.is_failure:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_disconnect(self, _c: paho.Client, _u: Any, _f: Any, _r: ReasonCode, _p: Any) -> None:
        if not self._connection:
            self._ready.put(None)

    def _on_subscribe(self, _c: paho.Client, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        self._ready.put(reasons)

    def _on_publish(self, _c: paho.Client, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:
            self._refused.put((mid, str(reason)))

    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        self.messages.put(
            Message(
                message.topic,
                bytes(message.payload),
                message.retain,
                message.mid,
                message.qos,
                self._connection,
                getattr(message.properties, "CorrelationData", None),
            )
        )
