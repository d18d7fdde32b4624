"""Listener: the other side of the contract, a subscriber such as a building system has one.

For the demo and for those who follow devices. The daemon does not use it; paho is known here and in `link`.
"""

import queue
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.errors import LinkError

CONNECT_TIMEOUT_S = 5.0
LONGEST_PAUSE_S = 30
"""Between two tries to connect again."""

FLUSH_S = 2.0
"""How long leaving waits for the broker's answer to what was published last."""


@dataclass(frozen=True, slots=True)
class Message:
    """What was published; `retained` when the broker kept it from before we came."""

    topic: str
    payload: bytes
    retained: bool
    mid: int = 0
    qos: int = 0
    connection: int = 0


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
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        session: str | None = None,
    ) -> None:
        self._where = (host, port)
        self._topics = topics
        self._ready: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._connection = 0
        self._session = session
        self._published: paho.MQTTMessageInfo | None = None
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=session or "",
            clean_session=session is None,
            protocol=paho.MQTTv311,
            manual_ack=session is not None,
        )
        if username is not None:
            self._client.username_pw_set(username, password)
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> "Listener":
        """Connect and subscribe.

        Raises:
            LinkError: The broker cannot be reached, or refuses.
        """
        host, port = self._where
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        try:
            self._client.connect(host, port)
            self._client.loop_start()
            refusal = self._ready.get(timeout=CONNECT_TIMEOUT_S)
        except (OSError, UnicodeError) as error:
            raise LinkError(f"broker at {host}:{port} cannot be reached: {error}") from None
        except queue.Empty:
            self._client.loop_stop()
            raise LinkError(f"broker at {host}:{port} does not answer") from None
        if refusal:
            self._client.loop_stop()
            raise LinkError(f"broker at {host}:{port} refuses: {refusal}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait shortly for what was published last, and disconnect."""
        if self._published is not None and self.connected:
            self._published.wait_for_publish(FLUSH_S)
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def connected(self) -> bool:
        """Whether there is a connection; one that is lost comes back by itself."""
        return self._client.is_connected()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Queue a message at QoS 1; without a connection it waits for the next one."""
        self._published = self._client.publish(topic, payload, qos=1, retain=retain)

    def confirm(self, messages: Sequence[Message]) -> None:
        """Let the broker of a session forget these messages; those of an earlier connection come again."""
        if self._session is not None:
            for message in messages:
                if message.connection == self._connection and message.qos:
                    self._client.ack(message.mid, message.qos)

    def _on_connect(self, client: paho.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._connection += 1
        if reason.is_failure:
            self._ready.put(str(reason))
        else:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(self, _c: paho.Client, _u: Any, _mid: int, reasons: Any, _p: Any) -> None:
        failures = [str(reason) for reason in reasons if reason.is_failure]
        self._ready.put(", ".join(failures))

    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        self.messages.put(
            Message(
                message.topic,
                bytes(message.payload),
                message.retain,
                message.mid,
                message.qos,
                self._connection,
            )
        )
