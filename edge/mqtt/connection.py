"""LinkThread: one connection to the broker after another.

Connects, says why it cannot, backs off, tells `inbox` what happens. Keeps nothing to send: what was not
acknowledged when a connection ends is the caller's to send again, on the next one.

Every connection has a paho client of its own, so that nothing of an old connection is sent on a new one.
The client's loop runs here; publishing from another thread only queues. paho calls back while it holds its
own locks: callbacks do nothing but enqueue.
"""

import logging
import queue
import random
import threading
from collections.abc import Collection
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.core.clock import Clock
from edge.core.errors import ToldOnce
from edge.core.metrics import Metrics
from edge.core.pacing import Backoff, TokenBucket, Uniform
from edge.mqtt.broker import Broker, Fault, Protocol, ProtocolChoice, Received, Will
from edge.mqtt.client import MAX_PACKET_BYTES, TAKEN_OVER, MqttSession, Unread, new_client, properties

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 15.0
"""Over so long a fleet comes back that has lost its broker.

Measured with 1,000 devices: 85 in the worst second; within one second, all. A door that stands alone may set
mqtt.backoff_max_s lower.
"""

STABLE_S = 10.0
"""A connection that lasted this long ends the back-off; a shorter one counts as a failure."""

MANY_BRIEF = 3
"""Brief connections in a row after which the device says what they may mean."""


class Reconnect:
    """What a connection that has ended means for the next one, and for the log.

    Decides on pauses, and says every fault once until there has been a connection.
    """

    def __init__(self, client_id: str, longest_s: float, uniform: Uniform = random.uniform) -> None:
        self._client_id = client_id
        self._backoff = Backoff(FIRST_PAUSE_S, longest_s, uniform)
        self._brief = 0
        self._told = ToldOnce()

    def connected(self) -> None:
        """Note that the broker accepted a connection."""
        self._told.forget()

    def pause_s(self, fault: Fault, lasted_s: float | None) -> float:
        """Return the pause before the next try, in seconds; `lasted_s` is None if there was no connection."""
        if lasted_s is not None and lasted_s >= STABLE_S:
            self._backoff.reset()
            self._brief = 0
        elif lasted_s is not None:
            self._brief += 1
            if self._brief >= MANY_BRIEF:
                fault = fault.too_brief(self._client_id)
        log.log(logging.WARNING if self._told.is_new(fault.text) else logging.DEBUG, "%s", fault.text)
        return self._backoff.slow_s() if fault.lasting else self._backoff.next_s()


SESSION_EXPIRY_S = 3600
"""For how long the broker keeps our subscriptions while we are away."""

DEAF_S = 600.0
"""How long nothing is subscribed to after a packet too large to be read: a retained one comes every time."""

COMPLAINTS_PER_S, COMPLAINTS_AT_ONCE = 1 / 60, 1
"""Lines about messages that were dropped unread: a flood does not fill the log."""

LOOP_S = 1.0
CONNECTING_LOOP_S = 0.05


class LinkThread(threading.Thread):
    """Connects, and connects again, until `stop`. Reports to `inbox` in the order of what happened.

    What `subscriptions` bring is reported as `Received`; `older_subscriptions` are only for MQTT 3.1.1. Of
    those in `for_now` it is told whether they were published to be retained, also when that is done while we
    listen; a broker of MQTT 3.1.1 does not tell.
    """

    def __init__(
        self,
        inbox: "queue.SimpleQueue[Any]",
        broker: Broker,
        *,
        client_id: str,
        will: Will,
        subscriptions: tuple[str, ...] = (),
        older_subscriptions: tuple[str, ...] = (),
        for_now: Collection[str] = (),
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
        self._older_subscriptions = older_subscriptions
        self._subscriptions = {"5": subscriptions, "3.1.1": (*subscriptions, *older_subscriptions)}
        self._for_now = for_now
        self._metrics = metrics
        self._clock = clock
        self._reconnect = Reconnect(client_id, broker.backoff_max_s, uniform)
        self._stopping = threading.Event()
        self._session: MqttSession | None = None
        self._stale = 0
        self._numbers = 0
        self._choice = ProtocolChoice(broker.version)
        self._told_older = False
        self._deaf_until_s = 0.0
        self._unread = Unread(metrics, TokenBucket(COMPLAINTS_PER_S, COMPLAINTS_AT_ONCE, clock.monotonic))

    def publish(
        self,
        connection: int,
        topic: str,
        payload: bytes,
        *,
        qos: Literal[0, 1],
        retain: bool = False,
        expiry_s: int | None = None,
        correlation: bytes | None = None,
    ) -> int | None:
        """Queue a message on connection number `connection`; returns its mid for `Published`.

        `expiry_s` bounds how long the broker keeps it for a subscriber, `correlation` tells who asked what it
        answers (both MQTT 5 only). None is returned when that connection has ended.
        """
        session = self._session
        if session is None or session.number != connection or not session.accepted:
            return None
        given: Properties | None = None
        if session.protocol == "5":
            wanted = {"MessageExpiryInterval": expiry_s, "CorrelationData": correlation}
            values = {name: value for name, value in wanted.items() if value is not None}
            given = properties(PacketTypes.PUBLISH, **values) if values else None
        info = session.client.publish(topic, payload, qos, retain, given)
        return info.mid if info.rc == paho.MQTT_ERR_SUCCESS else None

    def read(self, received: Received) -> None:
        """Note that a message was looked at: there is room for another one."""
        self._unread.remove(len(received.payload))

    def renew(self, connection: int) -> None:
        """End connection number `connection`, which no longer answers, and make another one."""
        self._stale = connection

    def stop(self, timeout_s: float) -> bool:
        """Take leave of the broker, and say whether that was done in time.

        What the broker has not answered yet may be lost: paho closes the socket at once, and TCP then
        throws away what the other side has not read.
        """
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
                pause_s = self._broker.backoff_max_s
            self._stopping.wait(pause_s)

    def _connect_and_stay(self) -> float:
        """Hold one connection until it ends; returns the pause before the next one, in seconds."""
        session = self._new_session(self._choice.first)
        fault = self._hold(session)
        refusal = None if session.refusal is None else session.refusal.value
        older = self._choice.wants_older(session.protocol, refusal, silent=session.silent)
        if older and not self._stopping.is_set():
            session = self._new_session("3.1.1")
            fault = self._hold(session)
        if self._stopping.is_set():
            return 0.0
        self._metrics.count("mqtt.faults")
        now_s = self._clock.monotonic()
        return self._reconnect.pause_s(
            fault, None if session.greeted_s is None else now_s - session.greeted_s
        )

    def _hold(self, session: MqttSession) -> Fault:
        """Run a connection until it ends; returns why."""
        try:
            self._connect(session)
            self._session = session
            return self._stay(session)
        except UnicodeError:
            return Fault(f"{self._broker.host!r} is not a host name; correct mqtt.host", lasting=True)
        except OSError as error:
            return Fault.unreachable(self._where, error, tls=self._broker.tls is not None)
        finally:
            self._session = None
            session.close()

    def _stay(self, session: MqttSession) -> Fault:
        """Run paho's loop until the connection ends; returns why."""
        deadline_s = self._clock.monotonic() + self._choice.patience_s(session.protocol)
        greeted = False
        while session.client.loop(LOOP_S if greeted else CONNECTING_LOOP_S) == paho.MQTT_ERR_SUCCESS:
            if session.accepted and not greeted:
                greeted = True
                self._greet(session)
            if not greeted and self._clock.monotonic() > deadline_s:
                session.silent = True
                return Fault(f"broker at {self._where} does not answer; check mqtt.host and mqtt.port")
            if self._stopping.is_set():
                session.client.disconnect()
            if self._stale == session.number:
                return Fault(f"broker at {self._where} leaves messages unanswered; connecting anew")
            if session.deaf and self._clock.monotonic() >= self._deaf_until_s:
                return Fault(f"connecting to the broker at {self._where} anew, to listen again")
        if session.oversize is not None:
            self._metrics.count("mqtt.oversize")
            self._deaf_until_s = self._clock.monotonic() + DEAF_S
            return Fault.oversize(self._where, session.oversize, MAX_PACKET_BYTES, DEAF_S)
        if session.refusal is not None:
            return Fault.refused(self._where, session.refusal.value, str(session.refusal))
        if not greeted:
            session.silent = True
            return Fault.hung_up(self._where, tls=self._broker.tls is not None, known=self._choice.speaks_5)
        if session.ended is not None and session.ended.value == TAKEN_OVER:
            return Fault.taken_over(self._where, self._client_id)
        return Fault(f"connection to the broker at {self._where} lost: {session.ended}")

    def _greet(self, session: MqttSession) -> None:
        session.greeted_s = self._clock.monotonic()
        self._reconnect.connected()
        self._choice.accepted(session.protocol)
        self._metrics.count("mqtt.connects")
        topics = self._subscriptions[session.protocol]
        if session.deaf:
            topics = tuple(topic for topic in topics if topic in self._older_subscriptions)
        if topics:
            session.client.subscribe([(topic, self._options(session, topic)) for topic in topics])
        log.info("connected to the broker at %s with MQTT %s", self._where, session.protocol)
        if session.protocol == "3.1.1" and self._broker.version == "auto" and not self._told_older:
            self._told_older = True
            log.warning(
                "broker at %s does not speak MQTT 5: it cannot tell when nobody subscribes", self._where
            )

    def _options(self, session: MqttSession, topic: str) -> Any:
        if session.protocol == "3.1.1":
            return 1
        return SubscribeOptions(qos=1, retainAsPublished=topic in self._for_now)

    def _new_session(self, protocol: Protocol) -> MqttSession:
        broker = self._broker
        deaf = self._clock.monotonic() < self._deaf_until_s
        client = new_client(
            self._client_id,
            protocol,
            clean=deaf,
            username=broker.username,
            password=broker.password,
            tls=broker.tls,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages = 0  # no limit here: the caller counts, by the broker's own limit
        client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        self._numbers += 1
        return MqttSession(self._numbers, client, protocol, self._inbox, self._unread, deaf=deaf)

    def _connect(self, session: MqttSession) -> None:
        """Open the network connection and queue CONNECT; the session outlives short absences."""
        broker = self._broker
        if session.protocol == "5":
            given = properties(
                PacketTypes.CONNECT,
                SessionExpiryInterval=SESSION_EXPIRY_S,
                MaximumPacketSize=MAX_PACKET_BYTES,
            )
            session.client.connect(
                broker.host,
                broker.port,
                broker.keepalive_s,
                clean_start=session.deaf,
                properties=given,
            )
        else:
            session.client.connect(broker.host, broker.port, broker.keepalive_s)
