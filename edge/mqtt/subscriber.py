"""Listener: the other side of the contract, a subscriber such as a building system has one.

For the demo and for those who follow devices; the daemon does not use it. MQTT 5 is tried first, because only
there a broker says what its access rules forbid.
"""

import queue
import secrets
import ssl
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge.core.errors import LinkError
from edge.mqtt.broker import CONNECT_TIMEOUT_S, REFUSALS, Fault, Protocol, ProtocolChoice, Version
from edge.mqtt.client import TAKEN_OVER, let_go, new_client, properties

AHEAD = 1000
"""Messages of a session that the broker sends before the first of them is confirmed; mosquitto's own is 20.

Source: MQTT 5.0, section 3.1.2.11.3, Receive Maximum.
"""

MOST_WAITING = 50_000
FULL_PAUSE_S = 0.5
"""From so many messages that wait to be taken, one is read after each pause: the others stay at the broker.

Measured: mosquitto 2.0.11 keeps to the Receive Maximum only until the first message is confirmed.
"""

LONGEST_PAUSE_S = 30
"""Between two tries to connect again."""

FLUSH_S = 2.0
"""How long is waited for the broker's answer to what was published last."""

MAX_SENT = 1024
"""Published messages whose topic is known when the broker refuses them."""

KEEP_SESSION = 0xFFFFFFFF
"""Source: MQTT 5.0, section 3.1.2.11.2: the session does not expire, as in MQTT 3.1.1."""


SHARED = "$share/"
"""What a subscription begins with whose messages are shared. Source: MQTT 5.0, section 4.8.2."""


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
    """A connection that collects what is published below `topics`, if any; use as a context manager.

    With `session`, a client id, the broker keeps what comes while we are away and until it is confirmed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        topics: tuple[str, ...],
        *,
        version: Version = "auto",
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        session: str | None = None,
    ) -> None:
        self._where = (host, port)
        self._topics = topics
        self._choice = ProtocolChoice(version)
        self._credentials = (username, password)
        self._tls = tls
        self._session = session
        # Some brokers take no connection without a name, or none that comes back without one.
        self._name = f"edge{secrets.token_hex(8)}"
        self._shares = any(topic.startswith(SHARED) for topic in topics)
        self._may_share = False
        self._connection = 0
        self._ready: queue.SimpleQueue[ReasonCode | list[ReasonCode] | None] = queue.SimpleQueue()
        self._published: paho.MQTTMessageInfo | None = None
        self._sent: OrderedDict[int, str] = OrderedDict()
        self._given = self._answered = 0  # messages that were published, and answers to them
        self._refused: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._answers: dict[int, int] = {}  # by packet id, of which there are 65,535
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.protocol: Protocol = self._choice.first
        self.taken_over = False
        """Another client took the session; there will be no connection any more. Only MQTT 5 tells."""
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
        self._leave()

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
        given = None
        if correlation is not None and self.protocol == "5":
            given = properties(PacketTypes.PUBLISH, CorrelationData=correlation)
        self._given += 1
        self._published = self._client.publish(topic, payload, 1, retain, given)
        self._sent[self._published.mid] = topic
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    @property
    def unanswered(self) -> int:
        """How many messages were published that the broker has not answered yet."""
        return self._given - self._answered

    def ask(self, topic: str, payload: bytes) -> int | None:
        """Publish at QoS 1 and return the broker's reason code; None: it gave no answer in time.

        With MQTT 3.1.1 it is 0 whatever the broker does. 16: nobody subscribes. Source: MQTT 5.0, 3.4.2.1.
        """
        self._given += 1
        sent = self._client.publish(topic, payload, 1)
        _wait_for_answer(sent)
        return self._answers.get(sent.mid)

    @property
    def certificate_until(self) -> datetime | None:
        """The last moment of the broker's certificate; None without TLS."""
        sock = self._client.socket()
        until = (sock.getpeercert() or {}).get("notAfter") if isinstance(sock, ssl.SSLSocket) else None
        if not isinstance(until, str):
            return None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC)

    def flush(self) -> None:
        """Wait shortly for the broker's answer to what was published last."""
        if self._published is not None and self.connected:
            _wait_for_answer(self._published)

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
        try:
            self._connect(host, port)
            self._client.loop_start()
            self._greeted()
            if self._shares and not self._may_share:
                raise LinkError(f"broker at {host}:{port} has no shared subscriptions; use one that has")
            answer = self._ready.get(timeout=CONNECT_TIMEOUT_S)
        except (OSError, UnicodeError) as error:
            self._leave()
            why = str(error)
            if isinstance(error, OSError):
                why = Fault.unreachable(f"{host}:{port}", error, tls=self._tls is not None).text
            raise LinkError(f"broker at {host}:{port} cannot be reached: {why}") from None
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

    def _greeted(self) -> None:
        """Wait for the broker's greeting.

        Raises:
            queue.Empty: There is none.
            LinkError, _OlderBrokerError: As `_open`.
        """
        try:
            greeting = self._ready.get(timeout=self._choice.patience_s(self.protocol))
        except queue.Empty:
            if self._choice.wants_older(self.protocol, None, silent=True):
                raise _OlderBrokerError from None
            raise
        refusal = greeting if isinstance(greeting, ReasonCode) else None
        if refusal is not None and not refusal.is_failure:
            return
        code = None if refusal is None else refusal.value
        if self._choice.wants_older(self.protocol, code, silent=refusal is None):
            raise _OlderBrokerError
        host, port = self._where
        if refusal is None:
            raise LinkError(f"broker at {host}:{port} hangs up")
        hint = f"; it {REFUSALS[refusal.value]}" if refusal.value in REFUSALS else ""
        raise LinkError(f"broker at {host}:{port} refuses: {refusal}{hint}")

    def _leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        let_go(self._client)

    def _new_client(self) -> paho.Client:
        username, password = self._credentials
        client = new_client(
            self._session or self._name,
            self.protocol,
            clean=self._session is None,
            username=username,
            password=password,
            tls=self._tls,
            manual_ack=self._session is not None,
        )
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
        given = properties(PacketTypes.CONNECT, SessionExpiryInterval=KEEP_SESSION, ReceiveMaximum=AHEAD)
        self._client.connect(host, port, clean_start=False, properties=given)

    def _on_connect(self, client: paho.Client, _u: Any, _f: Any, reason: ReasonCode, given: Any) -> None:
        self._connection += 1
        # Left out it means that there are such. Source: MQTT 5.0, section 3.2.2.3.13.
        told = getattr(given, "SharedSubscriptionAvailable", 1)
        self._may_share = self.protocol == "5" and bool(told)
        self._ready.put(reason)
        if reason.is_failure:
            return
        if not self._topics:
            self._ready.put([])
        elif self._may_share or not self._shares:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_disconnect(self, client: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        if reason == TAKEN_OVER:
            self.taken_over = True
            client.disconnect()  # or they would take it from each other for ever
        if not self._connection:
            self._ready.put(None)

    def _on_subscribe(self, _c: paho.Client, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        self._ready.put(reasons)

    def _on_publish(self, _c: paho.Client, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        self._answered += 1
        self._answers[mid] = reason.value
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
        if self.messages.qsize() > MOST_WAITING:
            time.sleep(FULL_PAUSE_S)


def _wait_for_answer(sent: paho.MQTTMessageInfo) -> None:
    """Wait shortly, but not for what was published without a connection: paho would raise RuntimeError."""
    if sent.rc == paho.MQTT_ERR_SUCCESS:
        sent.wait_for_publish(FLUSH_S)
