"""A fleet of doors without cameras, one thread for all of them.

Courier, connection, contract and pushes are the daemon's own. The outbox is in memory, the loops of the
connections are run by `Fleet`, and a synchronisation fetches nothing.
"""

import heapq
import itertools
import json
import queue
import random
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import paho.mqtt.client as paho

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.core.threads import Beats
from edge.core.types import EventType, FaceEvent
from edge.device.assembly.delivery import ACK_BYTES_AT_ONCE, ACK_BYTES_PER_S
from edge.device.pushes.memory import PushMemory
from edge.device.pushes.push import Patch
from edge.device.pushes.trial import SETTLE, PushTrial, Seen
from edge.device.settings import load as config
from edge.device.settings.load import Settings
from edge.mqtt.broker import Broker, Fault, Will
from edge.mqtt.client import MqttSession
from edge.mqtt.connection import LinkThread
from edge.mqtt.contract.encode import EventEncoder, encode, to_millisecond
from edge.mqtt.contract.examples import EXAMPLES
from edge.mqtt.contract.messages import (
    ConfigReportedPayload,
    GalleryReportedPayload,
    HealthPayload,
    InfoPayload,
)
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.courier import CourierThread
from edge.mqtt.delivery.inbox import Mailbox, ReceivedPush, RequestReader, SyncGallery, subscriptions
from edge.mqtt.delivery.outbox import Counts, Pending, Row, Stored
from edge.mqtt.delivery.requests import Acknowledged
from tests.support.clock import SteppedClock
from tests.support.door import make_event

SITE, CAMERA = "test", "front"

LOOK_S = 4.0
"""Between two looks at a connection on which nothing happens; less than half of a keep-alive."""

HEALTH_S = 60.0
"""As `edge.device.daemon` has it."""

TURN_S = 0.2
"""How long `Fleet` reads, or does what is due, before it does the other: pushes may come to all at once."""

OPENERS = 16
"""Connections that are opened at once: each waits for the broker, with TLS several times."""

STAYS_S = 4.0
"""From a decision to the end of its visit."""


@contextmanager
def memory_directory() -> Iterator[Path]:
    """A directory that is no disk, where the machine has one: doors do not share a disk as these would."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(prefix="doors-", dir=shared if shared.is_dir() else None) as directory:
        yield Path(directory)


class MemoryOutbox:
    """What the courier asks of `OutboxThread`, answered at once and without a disk."""

    last_seq = 0

    def __init__(self, answers: "queue.SimpleQueue[Any]") -> None:
        self._answers = answers
        self._rows: dict[int, Row] = {}

    @property
    def counts(self) -> Counts:
        oldest_ms = next((row.created_ms for row in self._rows.values()), None)
        return Counts(len(self._rows), 0, oldest_ms, 0, durable=True)

    def put(self, row: Row) -> None:
        self._rows[row.seq] = row
        self._answers.put(Stored((row.seq,), durable=True))

    def done(self, *seqs: int) -> None:
        for seq in seqs:
            self._rows.pop(seq, None)

    def acknowledge(self, event_ids: tuple[str, ...]) -> None:
        self.done(*[seq for seq, row in self._rows.items() if row.event_id in event_ids])

    def look_up(self, event_ids: tuple[str, ...]) -> bool:
        self.acknowledge(event_ids)
        return True

    def undeliverable(self, seq: int, why: str) -> None:
        raise AssertionError(f"row {seq}: {why}")

    def request(self, token: int, limit: int, *, after: int = 0, without: tuple[str, ...] = ()) -> None:
        waiting = [row for row in self._rows.values() if row.seq > after and row.topic not in without]
        self._answers.put(Pending(token, tuple(waiting[:limit])))


class ServedLink(LinkThread):
    """The daemon's connection without its thread: `Fleet` opens it, reads, writes and looks after it."""

    def open(self, wants_to_write: Callable[..., None], closes: Callable[..., None]) -> MqttSession | None:
        """Open the network connection; None: refused. `closes` hears when the other side ends it."""
        session = self._new_session("5")
        session.client.on_socket_register_write = wants_to_write
        session.client.on_socket_close = closes
        try:
            self._connect(session)
        except OSError:
            session.close()
            return None
        self._session = session
        return session

    def take(self, session: MqttSession) -> bool:
        """Read what has come; returns whether the connection still stands."""
        read = session.client.loop_read()
        while isinstance(sock := session.client.socket(), ssl.SSLSocket) and sock.pending():
            read = session.client.loop_read()
        if session.accepted and session.greeted_s is None:
            self._greet(session)
        return read == paho.MQTT_ERR_SUCCESS and session.refusal is None

    def end(self, session: MqttSession | None) -> float:
        """Close what has ended, or was never open (None); returns the daemon's pause before the next try."""
        lasted_s = None
        if session is not None:
            self._session = None
            session.close()
            if session.greeted_s is not None:
                lasted_s = self._clock.monotonic() - session.greeted_s
        return self._reconnect.pause_s(Fault("connection lost"), lasted_s)


@cache
def _loaded(overrides: str) -> Settings:
    """Return the settings with these overrides, as JSON: validated once, not for each door."""
    return config.load(overrides=json.loads(overrides))


class SimulatedDevice:
    """A door that decides when it is told to. Every push proves itself, every nudge is followed.

    `patient`: a push is looked at after half of `push.probation_s` to all of it, as a door needs to try one.
    """

    def __init__(
        self,
        directory: Path,
        number: int,
        broker: Broker,
        trusted: str,
        groups: tuple[str, ...] = (),
        *,
        scope: str = "front",
        consumer: bool = False,
        patient: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self.name = f"door-{number:04}"
        self.topics = Topics(SITE, self.name)
        self.scope, self.published = scope, 0
        self._patient = patient
        self._pushes: list[tuple[float, ReceivedPush]] = []
        self.metrics = metrics or Metrics()
        self._state_dir = directory / self.name
        self._push = {"trusted_keys": [trusted], "groups": list(groups)}
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._mailbox = Mailbox(lambda: None, self.metrics)
        layers = ("fleet", *(f"group:{group}" for group in groups), "device")
        if broker.password is not None:
            broker = replace(broker, username=f"{SITE}/{self.name}")
        clock = SystemClock()
        self.link = ServedLink(
            self._inbox,
            broker,
            client_id=self.topics.client_id,
            will=Will(self.topics.status, b"offline"),
            subscriptions=subscriptions(self.topics, None, layers, acks=consumer),
            metrics=self.metrics,
            clock=clock,
        )
        self.outbox = MemoryOutbox(self._inbox)
        self.courier = CourierThread(
            self._inbox,
            self.link,
            self.outbox,  # type: ignore[arg-type]
            EventEncoder(SITE, self.name, "boot", clock=lambda: "synced"),
            self.topics,
            cameras=(CAMERA,),
            hear=RequestReader(
                self.topics,
                self._mailbox.put,
                self.metrics,
                None,
                lambda event_ids: self._inbox.put(Acknowledged(event_ids)),
                layers=layers,
                acks=TokenBucket(ACK_BYTES_PER_S, ACK_BYTES_AT_ONCE, clock.monotonic),
            ).hear,
            beats=Beats(),
            metrics=self.metrics,
            clock=clock,
            consumer=consumer,
        )
        self.clock = SteppedClock()
        self.in_force = self.read({})
        self.memory = PushMemory(self.read)
        self.trial = PushTrial(self.memory, self, self.metrics, self.clock)
        info = EXAMPLES[InfoPayload][0].model_copy(update={"site": SITE, "device": self.name})
        assert isinstance(info, InfoPayload)
        self.courier.publish_info(info)
        self.courier.publish_camera_status(CAMERA, True, "1280x720 at 15.0 frames/s")
        self._tell_gallery()
        self.trial.tell()

    def read(self, patch: Patch) -> Settings:
        loaded = _loaded(json.dumps({"site": SITE, "push": self._push} | patch))
        return loaded.model_copy(update={"device": self.name, "state_dir": self._state_dir})

    def settings(self) -> Settings:
        return self.in_force

    def apply(self, settings: Settings) -> None:
        self.in_force = settings

    def seen(self) -> Seen:
        return Seen({}, {}, True)

    def self_test(self) -> None:
        pass

    def tell(self, told: Mapping[str, Any]) -> None:
        report = ConfigReportedPayload(at=to_millisecond(datetime.now(UTC)), **told)
        self.courier.publish_documents({self.topics.config_reported: encode(report)})

    def decide(self) -> FaceEvent:
        """Recognise somebody; returns the decision."""
        event = make_event(visit=f"v-{random.getrandbits(48):012x}")
        self.courier.publish_event(event)
        return event

    def leave(self, decided: FaceEvent) -> FaceEvent:
        """End the visit of a decision; returns the event that says so."""
        event = make_event(EventType.LEFT, visit=decided.visit, subject=decided.subject)
        self.courier.publish_event(event)
        return event

    def tell_health(self) -> None:
        health = EXAMPLES[HealthPayload][0].model_copy(
            update={
                "at": to_millisecond(datetime.now(UTC)),
                "problems": (),
                "outbox": self.courier.outbox_health(),
                "mqtt": self.courier.link_health(),
            }
        )
        assert isinstance(health, HealthPayload)
        self.courier.publish_health(health)

    def work(self) -> None:
        """Do what has come in, and what follows from it; never waits."""
        while not self._inbox.empty():
            self.courier.turn()
            while (asked := self._mailbox.take()) is not None:
                match asked:
                    case ReceivedPush() if self._patient:
                        wait_s = self.in_force.push.probation_s * random.uniform(SETTLE, 1)
                        self._pushes.append((time.monotonic() + wait_s, asked))
                    case ReceivedPush():
                        self._try(asked)
                    case SyncGallery() if asked.at_least > self.published:
                        self.published = asked.at_least
                        self._tell_gallery()

    def look(self) -> None:
        """Let time pass."""
        while self._pushes and self._pushes[0][0] <= time.monotonic():
            self._try(self._pushes.pop(0)[1])
        self._inbox.put(Acknowledged(()))
        self.work()

    def _try(self, push: ReceivedPush) -> None:
        self.trial.take(push.layer, push.data)
        self.clock.now_s += self.in_force.push.probation_s
        self.trial.tick()

    def _tell_gallery(self) -> None:
        now = to_millisecond(datetime.now(UTC))
        example = EXAMPLES[GalleryReportedPayload][0].model_copy(
            update={
                "at": now,
                "synchronised_at": now,
                "scope": self.scope,
                "published": self.published,
                "version": self.published,
            }
        )
        assert isinstance(example, GalleryReportedPayload)
        self.courier.publish_gallery(example)


class Fleet:
    """Connects devices and serves them; each comes back after an outage when the daemon would."""

    def __init__(self, devices: list[SimulatedDevice]) -> None:
        self.devices = devices
        self.pauses_s: list[float] = []
        """How long each device that lost its connection chose to wait."""
        self._selector = selectors.DefaultSelector()
        self._sessions: dict[SimulatedDevice, MqttSession] = {}
        self._writing: set[SimulatedDevice] = set()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._openers = ThreadPoolExecutor(OPENERS)
        self._opened: queue.SimpleQueue[tuple[SimulatedDevice, MqttSession | None]] = queue.SimpleQueue()
        for device in devices:
            self.at(time.monotonic() + random.uniform(0, HEALTH_S), partial(self._health, device))

    @property
    def connected(self) -> int:
        """How many devices have a connection that the broker has accepted."""
        return sum(session.accepted for session in self._sessions.values())

    def at(self, due_s: float, action: Callable[[], None]) -> None:
        """Do something at a moment (monotonic)."""
        heapq.heappush(self._agenda, (due_s, next(self._numbers), action))

    def connect(self, device: SimulatedDevice) -> None:
        """Begin to connect a device: `serve` goes on with it."""
        wants, closes = partial(self._wants_to_write, device), self._closes
        self._openers.submit(lambda: self._opened.put((device, device.link.open(wants, closes))))

    def serve(self, timeout_s: float) -> None:
        """Do what is due and what has come in; waits for something as long at the most."""
        now_s = time.monotonic()
        while self._agenda and self._agenda[0][0] <= now_s and time.monotonic() < now_s + TURN_S:
            heapq.heappop(self._agenda)[2]()
        while not self._opened.empty():
            self._begin(*self._opened.get())
        if self._writing:
            timeout_s = 0.0
        elif self._agenda:
            timeout_s = min(timeout_s, max(0.0, self._agenda[0][0] - now_s))
        ready = self._selector.select(timeout_s)
        until_s = time.monotonic() + TURN_S
        for key, _ in ready:
            device, session = key.data
            if self._sessions.get(device) is session and not device.link.take(session):
                self._lost(device, session)
            device.work()
            if time.monotonic() > until_s:
                break
        writing, self._writing = self._writing, set()
        for device in writing:
            session = self._sessions.get(device)
            if session is None:
                continue
            if session.client.loop_write() != paho.MQTT_ERR_SUCCESS:
                self._lost(device, session)
            elif session.client.want_write():
                self._writing.add(device)

    def decide(self, device: SimulatedDevice, told: Callable[[FaceEvent], None]) -> None:
        """Let somebody come to a door, and go again; `told` hears of both events."""
        event = device.decide()
        told(event)
        device.work()

        def leave() -> None:
            told(device.leave(event))
            device.work()

        self.at(time.monotonic() + STAYS_S, leave)

    def close(self) -> None:
        self._openers.shutdown(cancel_futures=True)
        while not self._opened.empty():
            self._begin(*self._opened.get())
        for device, session in self._sessions.items():
            session.client.disconnect()
            session.client.loop_write()
            device.link.end(session)
        self._sessions.clear()
        self._selector.close()

    def _begin(self, device: SimulatedDevice, session: MqttSession | None) -> None:
        if session is None:
            self.at(time.monotonic() + device.link.end(None), partial(self.connect, device))
            return
        self._sessions[device] = session
        self._writing.add(device)
        self._selector.register(session.client.socket(), selectors.EVENT_READ, (device, session))
        self.at(time.monotonic() + LOOK_S, partial(self._look, device, session))

    def _wants_to_write(self, device: SimulatedDevice, *_: Any) -> None:
        self._writing.add(device)

    def _closes(self, _c: paho.Client, _u: Any, sock: socket.socket) -> None:
        if sock in self._selector.get_map():
            self._selector.unregister(sock)

    def _lost(self, device: SimulatedDevice, session: MqttSession) -> None:
        del self._sessions[device]
        if (sock := session.client.socket()) is not None:
            self._selector.unregister(sock)
        self.pauses_s.append(device.link.end(session))
        self.at(time.monotonic() + self.pauses_s[-1], partial(self.connect, device))

    def _look(self, device: SimulatedDevice, session: MqttSession) -> None:
        if self._sessions.get(device) is not session:
            return
        if session.client.loop_misc() != paho.MQTT_ERR_SUCCESS:
            self._lost(device, session)
            return
        device.look()
        self.at(time.monotonic() + LOOK_S, partial(self._look, device, session))

    def _health(self, device: SimulatedDevice) -> None:
        device.tell_health()
        device.work()
        self.at(time.monotonic() + HEALTH_S, partial(self._health, device))
