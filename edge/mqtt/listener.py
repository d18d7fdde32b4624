"""Listener: the other side of the contract, a subscriber such as a building system has one.

For the demo and for tools that follow a device. The daemon does not use it; paho is known here and in `link`.
"""

import queue
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.errors import LinkError

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Message:
    """What was published; `retained` when the broker kept it from before we came."""

    topic: str
    payload: bytes
    retained: bool


class Listener:
    """A connection that collects what is published below `topics`; use as a context manager."""

    def __init__(self, host: str, port: int, topics: tuple[str, ...]) -> None:
        self._where = (host, port)
        self._topics = topics
        self._ready: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
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
        except OSError as error:
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
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._ready.put(str(reason))
        else:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(self, _c: paho.Client, _u: Any, _mid: int, reasons: Any, _p: Any) -> None:
        failures = [str(reason) for reason in reasons if reason.is_failure]
        self._ready.put(", ".join(failures))

    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        self.messages.put(Message(message.topic, bytes(message.payload), message.retain))
