"""Sender: what is sent on the present connection, in which order, and how much at once.

Live events first, then retained documents, then the journal. Knows the link, but decides nothing about
events; keeps nothing across connections but the latest of every retained document.
"""

import logging
from collections import deque
from dataclasses import dataclass
from typing import Literal

from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.mqtt.broker import Connected, Disconnected, Protocol, Published
from edge.mqtt.connection import LinkThread
from edge.mqtt.contract.encode import stamp
from edge.mqtt.contract.topics import LIVE_S, SNAPSHOT
from edge.mqtt.delivery.journal import HOPELESS, Journal
from edge.mqtt.delivery.outbox import Row
from edge.mqtt.delivery.requests import Answer, Picture

log = logging.getLogger(__name__)

SILENT_S = 1.0
"""A broker that answers nothing for so long is not sent live events: what lies in a socket cannot be taken
back, and would arrive late."""

FAILURE = 0x80
"""PUBACK reasons from here on mean that the message was refused. Source: MQTT 5.0, section 2.4."""

ANSWER_S = 30.0
"""A message unanswered for so long was lost inside the broker: only a new connection sends it again."""

MAX_ANSWERS = 64
"""More than the rate of commands ever leaves waiting."""

HEADER_BYTES = 24
"""Upper bound of a PUBLISH packet without topic and payload: fixed header 5, lengths 2, packet id 2,
properties with message expiry 6, and spare. Source: MQTT 5.0, section 3.3."""

LIVE_MISSED = "live.missed"
"""Counter of live events that were not sent: there was no connection, or they were too late."""

LIVE_LATE = "live.late"
"""Counter of those that were too late for a connection that stood."""


@dataclass(frozen=True, slots=True)
class _Live:
    topic: str
    decided: bytes
    at_s: float


@dataclass(frozen=True, slots=True)
class _Document:
    payload: bytes
    qos: Literal[0, 1]


class Sender:
    """Used by one thread. Rows up to `old_seq` are from an earlier run of the daemon."""

    def __init__(
        self, link: LinkThread, journal: Journal, *, old_seq: int, metrics: Metrics, clock: Clock
    ) -> None:
        self._link = link
        self._journal = journal
        self._old_seq = old_seq
        self._metrics = metrics
        self._clock = clock
        self._connected: Connected | None = None
        self._live: deque[_Live] = deque()
        self._answers: deque[Answer] = deque()
        self._documents: dict[str, _Document] = {}
        self._unsent: dict[str, None] = {}
        self._unanswered: dict[int, str] = {}
        self._asked_s: dict[int, float] = {}
        self._answered_s = 0.0
        self._answers_come = False
        self._complained: set[str] = set()
        self.connects = 0

    @property
    def protocol(self) -> Protocol | None:
        """The protocol of the present connection, or None without one."""
        connected = self._connected  # another thread may ask while it changes
        return None if connected is None else connected.protocol

    @property
    def idle(self) -> bool:
        """Whether every live event and every document was sent and answered; True without a connection."""
        return self._connected is None or not (
            self._live or self._answers or self._unsent or self._unanswered
        )

    def begin(self, connected: Connected) -> None:
        """Use a new connection: every document is sent again, in the order in which they first came."""
        self._connected = connected
        self.connects += 1
        self._answers_come = False
        self._unanswered.clear()
        self._asked_s.clear()
        self._unsent = dict.fromkeys(self._documents)
        self._complained.clear()
        self._journal.begin(connected.receive_maximum)

    def end(self, disconnected: Disconnected) -> None:
        """Forget a connection, and live events with it: they are for now or never."""
        if self._connected is not None and disconnected.connection == self._connected.connection:
            self._connected = None
            self._metrics.count(LIVE_MISSED, len(self._live))
            self._live.clear()
            self._answers.clear()
            self._unanswered.clear()
            self._asked_s.clear()
            self._journal.end()

    def live(self, topic: str, decided: bytes, at_s: float) -> None:
        """Send an encoded event of the moment `at_s` (monotonic) now, if there is a connection."""
        if self._connected is None:
            self._metrics.count(LIVE_MISSED)
        else:
            self._live.append(_Live(topic, decided, at_s))

    def answer(self, answer: Answer) -> None:
        """Send what came of a command, if there is a connection: who asked may ask again."""
        if self._connected is None or len(self._answers) >= MAX_ANSWERS:
            self._metrics.count("commands.unanswered")
        else:
            self._answers.append(answer)

    def picture(self, picture: Picture) -> None:
        """Send a picture now, if there is a connection that takes it."""
        connected = self._connected
        if connected is None:
            return
        if self._fits(connected, picture.topic, picture.jpeg):
            self._link.publish(
                connected.connection,
                picture.topic,
                picture.jpeg,
                qos=SNAPSHOT.qos,
                expiry_s=SNAPSHOT.expiry_s,
            )
        else:
            self._complain(picture.topic, HOPELESS[0x95])

    def retain(self, topic: str, payload: bytes, *, qos: Literal[0, 1] = 1) -> None:
        """Send a retained document, now and after every connect; it replaces the one before it."""
        self._documents[topic] = _Document(payload, qos)
        self._unsent[topic] = None

    def repeat(self) -> None:
        """Send every retained document once more, in the order in which they first came."""
        self._unsent = dict.fromkeys(self._documents)

    def answered(self, published: Published, now_s: float) -> None:
        """Take the broker's answer to a message."""
        if self._connected is None or published.connection != self._connected.connection:
            return
        self._asked_s.pop(published.mid, None)
        self._answered_s = now_s
        self._answers_come = True
        topic = self._unanswered.pop(published.mid, None)
        if topic is None:
            self._journal.answered(published.mid, published.reason, now_s)
        elif published.reason >= FAILURE:
            self._complain(topic, f"broker refuses a message with reason {published.reason:#04x}")

    def pump(self, now_s: float, *, journal: bool = True) -> None:
        """Send what may be sent now; with `journal` False nothing of the journal."""
        connected = self._connected
        if connected is None:
            return
        if now_s - next(iter(self._asked_s.values()), now_s) >= ANSWER_S:
            self._metrics.count("mqtt.unanswered")
            self._asked_s.clear()
            self._link.renew(connected.connection)
            return
        while self._live and now_s - self._live[0].at_s >= LIVE_S:
            self._live.popleft()
            self._too_late()
        while len(self._unanswered) + self._journal.in_flight < connected.receive_maximum:
            if self._live and not self._silent(now_s):
                self._send_live(connected, self._live.popleft(), now_s)
            elif self._answers:
                self._send_answer(connected, self._answers.popleft(), now_s)
            elif self._unsent:
                topic = next(iter(self._unsent))
                del self._unsent[topic]
                self._send_document(connected, topic, self._documents[topic], now_s)
            elif journal and (row := self._journal.next(now_s)) is not None:
                self._send_row(connected, row, now_s)
            else:
                return

    def _silent(self, now_s: float) -> bool:
        """Whether the broker has answered nothing of what was sent since its last answer, and is overdue.

        What was sent before that answer is lost, not late. A broker to which a whole fleet comes back may
        read on long after its greeting: until it has answered something on this connection it is silent, too.
        """
        if not self._answers_come and self._asked_s:
            return True
        since_s = next((at_s for at_s in self._asked_s.values() if at_s > self._answered_s), now_s)
        return now_s - since_s >= SILENT_S

    def _send_live(self, connected: Connected, live: _Live, now_s: float) -> None:
        """Send an event if there is a second left of its time: the broker counts whole ones."""
        left_s = int(LIVE_S - (now_s - live.at_s))
        if left_s < 1:
            self._too_late()
            return
        payload = stamp(live.decided, self._clock.now(), replayed=False)
        if not self._fits(connected, live.topic, payload):
            self._complain(live.topic, HOPELESS[0x95])
            return
        mid = self._link.publish(connected.connection, live.topic, payload, qos=1, expiry_s=left_s)
        if mid is None:  # the connection has ended, and its end is still in the courier's queue
            self._metrics.count(LIVE_MISSED)
        else:
            self._unanswered[mid] = live.topic
            self._asked_s[mid] = now_s

    def _too_late(self) -> None:
        self._metrics.count(LIVE_MISSED)
        self._metrics.count(LIVE_LATE)

    def _send_answer(self, connected: Connected, answer: Answer, now_s: float) -> None:
        if not self._fits(connected, answer.topic, answer.payload + (answer.correlation or b"")):
            self._complain(answer.topic, HOPELESS[0x95])
            return
        mid = self._link.publish(
            connected.connection, answer.topic, answer.payload, qos=1, correlation=answer.correlation
        )
        if mid is not None:
            self._unanswered[mid] = answer.topic
            self._asked_s[mid] = now_s

    def _send_document(self, connected: Connected, topic: str, document: _Document, now_s: float) -> None:
        if not self._fits(connected, topic, document.payload):
            self._complain(topic, HOPELESS[0x95])
            return
        mid = self._link.publish(connected.connection, topic, document.payload, qos=document.qos, retain=True)
        if mid is not None and document.qos == 1:
            self._unanswered[mid] = topic
            self._asked_s[mid] = now_s

    def _send_row(self, connected: Connected, row: Row, now_s: float) -> None:
        late = row.seq <= self._old_seq or now_s * 1e3 - row.monotonic_ms >= LIVE_S * 1e3
        replayed = late or self._journal.again(row)
        payload = stamp(row.payload, self._clock.now(), replayed=replayed)
        if not self._fits(connected, row.topic, payload):
            self._journal.undeliverable(row, HOPELESS[0x95])
            return
        mid = self._link.publish(connected.connection, row.topic, payload, qos=1)
        if mid is not None:
            self._journal.sent(mid, row)
            self._asked_s[mid] = now_s

    def _fits(self, connected: Connected, topic: str, payload: bytes) -> bool:
        limit = connected.maximum_packet_size
        return limit is None or HEADER_BYTES + len(topic.encode()) + len(payload) <= limit

    def _complain(self, topic: str, why: str) -> None:
        """Say once per connection and topic that messages do not arrive."""
        self._metrics.count("mqtt.refused")
        if topic not in self._complained:
            self._complained.add(topic)
            log.error("not delivered: %s", why, extra={"topic": topic})
