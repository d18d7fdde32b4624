"""The client library paho, one client per connection, and what it calls back. Decides nothing.

Callbacks only enqueue: paho holds its own locks while it calls. What others publish is bounded in three
ways: a packet too large is not read, a message too large is not kept, and a flood is dropped before it
fills the memory.
"""

import errno
import logging
import queue
import ssl
import threading
import weakref
from collections.abc import Callable
from functools import partial
from socket import socket
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.mqtt.broker import (
    CONNECT_TIMEOUT_S,
    Connected,
    Disconnected,
    Protocol,
    Published,
    Received,
    Refused,
    Unheard,
)

log = logging.getLogger(__name__)

DEFAULT_RECEIVE_MAXIMUM = 65535
"""Source: MQTT 5.0, section 3.2.2.3.3: the value in force when the broker names none."""

TAKEN_OVER = 142
"""DISCONNECT reason "Session taken over". Source: MQTT 5.0, section 3.14.2.1."""

MAX_RECEIVED_BYTES = 512 * 1024
"""A command with a photo of 256 KiB in base64 is 350 KiB; nothing honest is larger."""

MAX_PACKET_BYTES = MAX_RECEIVED_BYTES + 64 * 1024
"""A message with its topic, which MQTT bounds to 64 KiB: what the broker is told, and what is read at all."""

MAX_UNREAD_BYTES = 4 * 1024 * 1024
"""A few of the largest commands, or more acknowledgements than a consumer sends in a minute."""

MESSAGE_BYTES = 1024
"""What an empty message takes up in memory, with its topic."""


def new_client(
    client_id: str,
    protocol: Protocol,
    *,
    clean: bool,
    username: str | None,
    password: str | None,
    tls: ssl.SSLContext | None,
    manual_ack: bool = False,
    reconnect_on_failure: bool = True,
) -> paho.Client:
    """Return a client that is not connected; `clean`: with MQTT 3.1.1 the broker keeps no session of it."""
    newest = protocol == "5"
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if newest else clean,
        protocol=paho.MQTTv5 if newest else paho.MQTTv311,
        manual_ack=manual_ack,
        reconnect_on_failure=reconnect_on_failure,
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    if username is not None:
        client.username_pw_set(username, password)
    if tls is not None:
        client.tls_set_context(tls)
    return client


def properties(packet_type: int, **values: int | bytes) -> Properties:
    """Return what goes with a packet of MQTT 5."""
    made = Properties(packet_type)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made


def let_go(client: paho.Client) -> None:
    """Take its callbacks from a client that has left.

    It holds sockets of its own, and closes them once nobody refers to it. Whoever hears its callbacks does.
    """
    client.on_connect = client.on_disconnect = client.on_publish = client.on_socket_register_write = None
    client.on_message = client.on_subscribe = client.on_socket_open = None


class Unread:
    """How much of what others publish waits to be looked at, over all connections. Thread-safe.

    As many lines as `complaints` lets through are logged.
    """

    def __init__(self, metrics: Metrics, complaints: TokenBucket) -> None:
        self._metrics = metrics
        self._complaints = complaints
        self._lock = threading.Lock()
        self._bytes = 0
        self._dropped = 0

    def add(self, size: int) -> bool:
        """Return whether there is room for a message with a payload of `size` bytes, and take it."""
        with self._lock:
            if self._bytes + size + MESSAGE_BYTES > MAX_UNREAD_BYTES:
                self._dropped += 1
                self._metrics.count("received.dropped")
                return False
            self._bytes += size + MESSAGE_BYTES
            return True

    def remove(self, size: int) -> None:
        """Give the room of a message back."""
        with self._lock:
            self._bytes -= size + MESSAGE_BYTES
            told = self._bytes == 0 and self._dropped and self._complaints.take()
            dropped, self._dropped = (self._dropped, 0) if told else (0, self._dropped)
        if dropped:
            log.warning("%d messages were dropped: more came than can be looked at", dropped)


class MqttSession:
    """What paho calls back for one connection."""

    def __init__(
        self,
        number: int,
        client: paho.Client,
        protocol: Protocol,
        inbox: queue.SimpleQueue[Any],
        unread: Unread,
        *,
        deaf: bool = False,
    ) -> None:
        self.number = number
        self.client = client
        self.protocol: Protocol = protocol
        self.accepted = False
        self.refusal: ReasonCode | None = None
        self.ended: ReasonCode | None = None
        self.silent = False
        """Whether the broker gave no answer, or hung up without one."""
        self.deaf = deaf
        """Whether nothing of what others publish is listened to."""
        self.greeted_s: float | None = None
        self.oversize: int | None = None
        """How large a packet was, in bytes, that was not read: it ended the connection."""
        self._inbox = inbox
        self._unread = unread
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = self._on_socket_open
        # With this callback set, publish() never writes to the socket from the caller's thread.
        client.on_socket_register_write = self._on_socket_register_write

    def close(self) -> None:
        """Close the network connection, and let go of paho's client, which holds sockets of its own."""
        if self.accepted:
            self.accepted = False
            self._inbox.put(Disconnected(self.number, "closed"))
        sock = self.client.socket()
        if sock is not None:
            sock.close()
        let_go(self.client)

    def _on_socket_open(self, _c: paho.Client, _u: Any, sock: Any) -> None:
        # The socket's class is collected late. This session, and its sockets, must not wait for that.
        _bound(sock, MAX_PACKET_BYTES, partial(setattr, weakref.proxy(self), "oversize"))

    def _on_connect(
        self,
        _c: paho.Client,
        _u: Any,
        _f: paho.ConnectFlags,
        reason: ReasonCode,
        given: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.refusal = reason
            return
        self.accepted = True
        receive_maximum = getattr(given, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
        maximum_packet_size = getattr(given, "MaximumPacketSize", None)
        self._inbox.put(Connected(self.number, self.protocol, receive_maximum, maximum_packet_size))

    def _on_disconnect(
        self, _c: paho.Client, _u: Any, _f: paho.DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        if self.ended is None:  # paho calls a second time, without the broker's own reason
            self.ended = reason
        if self.accepted:
            self.accepted = False
            self._inbox.put(Disconnected(self.number, str(reason)))

    def _on_publish(
        self, _c: paho.Client, _u: Any, mid: int, reason: ReasonCode, _p: Properties | None
    ) -> None:
        self._inbox.put(Published(self.number, mid, reason.value))

    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        if len(message.payload) > MAX_RECEIVED_BYTES:
            self._inbox.put(Refused(self.number, message.topic, len(message.payload)))
            return
        if not self._unread.add(len(message.payload)):
            return
        given = message.properties
        self._inbox.put(
            Received(
                self.number,
                message.topic,
                bytes(message.payload),
                retained=message.retain,
                response_topic=getattr(given, "ResponseTopic", None),
                correlation=getattr(given, "CorrelationData", None),
            )
        )

    def _on_subscribe(
        self, _c: paho.Client, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Properties | None
    ) -> None:
        refused = sorted({str(reason) for reason in reasons if reason.is_failure})
        if refused:
            self._inbox.put(Unheard(self.number, ", ".join(refused)))

    def _on_socket_register_write(self, _c: paho.Client, _u: Any, _s: Any) -> None:
        """Nothing to do: paho wakes its own loop."""


def _bound(sock: socket, limit: int, tell: Callable[[int], None]) -> None:
    """Let `sock`, in the clear or with TLS, refuse to read more than `limit` bytes at once.

    paho reads a packet into memory whole before it calls anybody, and asks the socket for all that is left
    of it at once: what it asks for is how large the packet is. MQTT 5 lets a client name its limit, which
    most brokers keep to; MQTT 3.1.1 has no such limit. `tell` gets the size that was refused; reading then
    fails as on a broken connection.
    """
    kind = type(sock)

    def recv(self: socket, size: int, flags: int = 0, /) -> bytes:
        if size > limit:
            tell(size)
            raise OSError(errno.EMSGSIZE, f"{size} bytes are more than {limit}")
        return kind.recv(self, size, flags)

    sock.__class__ = type(f"Bounded{kind.__name__}", (kind,), {"__slots__": (), "recv": recv})
