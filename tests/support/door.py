"""Events to deliver, and the threads of delivery put together as the daemon does it."""

import queue
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge.core.clock import Clock, SystemClock
from edge.core.ids import uuid7
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.core.types import (
    EventType,
    FaceEvent,
    Latency,
    ModelStamp,
    Quality,
    Reason,
    Refusal,
    Score,
    Shots,
    Subject,
)
from edge.mqtt.broker import Broker, Received, Will
from edge.mqtt.connection import LinkThread
from edge.mqtt.contract.encode import EventEncoder
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.courier import CourierThread
from edge.mqtt.delivery.inbox import RequestReader
from edge.mqtt.delivery.outbox import Outbox, Row, Unopened
from edge.mqtt.delivery.outbox_thread import OutboxThread
from edge.mqtt.delivery.requests import Acknowledged

TOPICS = Topics("hq", "door-03")


def now() -> datetime:
    return datetime.now(UTC)


def make_event(event_type: EventType = EventType.MATCH, **changes: Any) -> FaceEvent:
    """An event of this moment."""
    at = now()
    matched = event_type == EventType.MATCH
    left = event_type == EventType.LEFT
    event = FaceEvent(
        event_id=str(uuid7(at)),
        event_type=event_type,
        camera="front",
        visit="v-1",
        captured_at=at,
        monotonic_s=SystemClock().monotonic(),
        subject=Subject("p_8f21", "Alice Example", ("staff",)) if matched else None,
        reason=None if matched or left else Reason.BELOW_THRESHOLD,
        score=Score(0.61, 0.39, 0.44, 0.05, 0.001, 812),
        shots=Shots(3, 11, {Refusal.BLUR: 5, Refusal.SIZE: 3}),
        quality=Quality(112.0, 0.81, -8.0, 0.7, 0.9, 0.5, recognisability=0.98),
        box=(0.41, 0.22, 0.13, 0.21),
        model=ModelStamp("sface-int8", "ab" * 32, 57),
        latency=None if left else Latency(181.0, 2.1, 12.9, 0.1),
    )
    return replace(event, **changes)


def make_row(seq: int, *, vital: bool = False, topic: str = "t", payload: bytes = b'{"a":1}') -> Row:
    return Row(seq, str(uuid7(now())), topic, payload, int(now().timestamp() * 1e3), 0, vital)


@dataclass
class Door:
    """The threads of delivery, put together as the daemon does it."""

    directory: Path
    broker: Broker
    cameras: tuple[str, ...] = ("front",)
    max_rows: int = 50_000
    anonymous: bool = False
    topics: Topics = TOPICS
    metrics: Metrics = field(default_factory=Metrics)
    beats: Beats = field(default_factory=Beats)
    database: Outbox | Unopened | None = None
    subscriptions: tuple[str, ...] = ()
    consumer: bool = False
    unclaimed_s: float | None = None
    heard: list[Received] = field(default_factory=list)
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        clock, inbox = self.clock, queue.SimpleQueue[Any]()
        self.link = LinkThread(
            inbox,
            self.broker,
            client_id=self.topics.client_id,
            will=Will(self.topics.status, b"offline"),
            subscriptions=(*self.subscriptions, *((self.topics.ack,) if self.consumer else ())),
            older_subscriptions=(self.topics.canary,),
            metrics=self.metrics,
            clock=clock,
        )
        database = self.database or Outbox.open(
            self.directory / "outbox.sqlite", max_rows=self.max_rows, now=now
        )
        self.outbox = OutboxThread(database, inbox, beats=self.beats, metrics=self.metrics, clock=clock)
        encoder = EventEncoder(
            self.topics.site,
            self.topics.device,
            "boot",
            clock=lambda: "synced",
            anonymous=self.anonymous,
        )
        self.courier = CourierThread(
            inbox,
            self.link,
            self.outbox,
            encoder,
            self.topics,
            cameras=self.cameras,
            hear=self.hear,
            beats=self.beats,
            metrics=self.metrics,
            clock=clock,
            consumer=self.consumer,
            unclaimed_s=self.unclaimed_s,
        )
        self.reader = RequestReader(
            self.topics,
            lambda _: None,
            self.metrics,
            acknowledge=lambda event_ids: inbox.put(Acknowledged(event_ids)),
        )
        self.courier.start()

    def hear(self, received: Received) -> None:
        self.heard.append(received)
        if self.consumer:
            self.reader.hear(received)

    def publish(self, count: int = 1, **changes: Any) -> list[str]:
        """Publish events and return their ids."""
        events = [make_event(**changes) for _ in range(count)]
        for event in events:
            self.courier.publish_event(event)
        return [event.event_id for event in events]
