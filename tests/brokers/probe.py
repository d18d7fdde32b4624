"""One connection of MQTT to try a broker with, and everything that it answers."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.mqtt.broker import Protocol
from edge.mqtt.client import let_go, properties
from tests.brokers.kinds import RunningBroker
from tests.support.waits import wait_until

ANSWER_S = 10.0
"""How long a broker may take to answer; what it does not do within it counts as not done."""

QUIET_S = 1.0
"""A broker that has sent nothing for so long has no more to send."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as a subscriber gets it."""

    topic: str
    payload: bytes
    retained: bool
    expiry_s: int | None
    correlation: bytes | None


class Probe:
    """Made by `probe`; `refusal` is the reason code of a connection that was not accepted."""

    def __init__(self, client: paho.Client, newest: bool) -> None:
        self.client = client
        self.newest = newest
        self.greeting: Any = None
        self.session_present = False
        self.refusal: int | None = None
        self.lost = False
        self._granted: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        self._answers: dict[int, int] = {}
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._granted.put([each.value for each in codes])
        client.on_publish = lambda _c, _u, mid, code, _p: self._answers.update({mid: code.value})
        client.on_message = self._on_message

    def _on_connect(self, _c: paho.Client, _u: Any, flags: Any, reason: Any, given: Any) -> None:
        self.greeting = given
        self.session_present = flags.session_present
        if reason.is_failure:
            self.refusal = reason.value

    def _on_disconnect(self, *_: Any) -> None:
        self.lost = True

    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        given = message.properties
        self._heard.put(
            Heard(
                message.topic,
                bytes(message.payload),
                message.retain,
                getattr(given, "MessageExpiryInterval", None),
                getattr(given, "CorrelationData", None),
            )
        )

    def subscribe(self, *topics: str, keep_flag: bool = False) -> list[int]:
        """Subscribe at QoS 1; returns the broker's codes. None of them: it gave no answer."""
        if self.newest:
            wanted: Any = [(each, SubscribeOptions(qos=1, retainAsPublished=keep_flag)) for each in topics]
        else:
            wanted = [(each, 1) for each in topics]
        self.client.subscribe(wanted)
        try:
            return self._granted.get(timeout=ANSWER_S)
        except queue.Empty:
            return []

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False, **given: Any) -> int | None:
        """Publish at QoS 1; returns the broker's code. None: it gave no answer, or hung up."""
        extra = properties(PacketTypes.PUBLISH, **given) if given and self.newest else None
        sent = self.client.publish(topic, payload, 1, retain, extra)
        try:
            wait_until(lambda: sent.mid in self._answers or self.lost, limit_s=ANSWER_S)
        except AssertionError:
            return None
        return self._answers.get(sent.mid)

    def hear(self, limit_s: float = ANSWER_S) -> Heard | None:
        """Return the next message; None: there is none within `limit_s`."""
        try:
            return self._heard.get(timeout=limit_s)
        except queue.Empty:
            return None

    def hear_all(self, first_s: float = ANSWER_S) -> list[Heard]:
        """Return what comes until nothing does."""
        heard, limit_s = [], first_s
        while (each := self.hear(limit_s)) is not None:
            heard.append(each)
            limit_s = QUIET_S
        return heard

    def vanish(self) -> None:
        """End the connection without a word, as a device without power does."""
        sock = self.client.socket()
        self.client.loop_stop()
        if sock is not None:
            sock.close()


@contextmanager
def probe(
    broker: RunningBroker,
    protocol: Protocol = "5",
    *,
    name: str = "",
    session_s: int | None = None,
    will: tuple[str, int] | None = None,
    user: str | None = None,
    websockets: bool = False,
) -> Iterator[Probe]:
    """A connection that the broker has answered, accepted or not.

    `session_s`: the broker keeps the session of `name` for so long (with 3.1.1: it keeps it). `will`: the
    topic at which `offline` is published, retained, and after how many seconds.

    Raises:
        AssertionError: It gives no answer.
    """
    newest = protocol == "5"
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=name,
        clean_session=None if newest else session_s is None,
        protocol=paho.MQTTv5 if newest else paho.MQTTv311,
        transport="websockets" if websockets else "tcp",
        reconnect_on_failure=False,
    )
    if websockets:
        client.ws_set_options("/mqtt")
    if user is not None:
        client.username_pw_set(user, broker.users[user])
    if will is not None:
        topic, delay_s = will
        # RabbitMQ does not keep a will that names a delay, be it 0; the product names none.
        delayed = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=delay_s) if delay_s else None
        client.will_set(topic, b"offline", 1, True, delayed)
    probing = Probe(client, newest)
    port = broker.ports.websockets if websockets else broker.port if newest else broker.older
    try:
        if newest:
            given = properties(PacketTypes.CONNECT, SessionExpiryInterval=session_s or 0)
            client.connect("127.0.0.1", port, clean_start=session_s is None, properties=given)
        else:
            client.connect("127.0.0.1", port)
        client.loop_start()
        wait_until(
            lambda: client.is_connected() or probing.refusal is not None or probing.lost,
            "the broker answers",
            limit_s=ANSWER_S,
        )
        yield probing
    finally:
        client.disconnect()
        client.loop_stop()
        let_go(client)
