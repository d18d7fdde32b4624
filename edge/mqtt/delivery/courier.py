"""CourierThread: carries events and retained documents to the broker.

Everything arrives in one queue: events from inference, answers from the outbox, reports from the link. An
event becomes visible when it is on the disk, or when the disk has kept it waiting for too long: a door does
not wait for a disk. This thread never waits for the disk or the network.
"""

import logging
import math
import queue
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.threads import Beats, WorkerThread
from edge.core.types import EventType, FaceEvent
from edge.mqtt.broker import Connected, Disconnected, Published, Received, Refused, Unheard
from edge.mqtt.connection import LinkThread
from edge.mqtt.contract.encode import EventEncoder, encode, to_millisecond
from edge.mqtt.contract.messages import (
    GalleryReportedPayload,
    HealthPayload,
    InfoPayload,
    LinkHealth,
    OutboxDroppedPayload,
    OutboxHealth,
)
from edge.mqtt.contract.topics import HEALTH, Topics
from edge.mqtt.delivery.canary import Canary
from edge.mqtt.delivery.journal import Journal
from edge.mqtt.delivery.occupancy import CameraDocuments
from edge.mqtt.delivery.outbox import Pending, Row, Stored
from edge.mqtt.delivery.outbox_thread import OutboxThread
from edge.mqtt.delivery.requests import (
    Acknowledged,
    Again,
    Answer,
    CameraGone,
    CameraStatus,
    Decided,
    Documents,
    Picture,
    Stop,
)
from edge.mqtt.delivery.sender import Sender

log = logging.getLogger(__name__)

BEAT = "courier"
BEAT_LIMIT_S = 10.0
IDLE_S = 1.0
MAX_BURST = 64
"""Items taken from the queue before what they call for is sent."""

DISK_PATIENCE_S = 0.1
"""How long a live event waits for its row to be on the disk."""

REFUSED_S = 60.0
"""How long the broker must have refused the journal before health says so."""

DRAIN_SHARE = 0.5
"""Share of the time to stop that may be spent on delivering what waits."""

NOTICE_PAUSE_S = 1.0
"""Between two notices: a full outbox drops one decision for every new one."""

ONLINE, OFFLINE = b"online", b"offline"


@dataclass(frozen=True, slots=True)
class _Unstored:
    """An event that the outbox has not answered for: true at `at_s`, shown at `due_s` at the latest."""

    event: FaceEvent
    payload: bytes
    at_s: float
    due_s: float
    visible: bool = False


class _DropNotice:
    """Tells subscribers how many decisions were dropped before they could be delivered.

    A retained document with the count so far; there is none on a device that never dropped anything.
    """

    def __init__(self, topics: Topics, retain: Callable[[str, bytes], None]) -> None:
        self._topic = topics.outbox_dropped
        self._retain = retain
        self._told = 0
        self._not_before_s = 0.0

    def look(self, dropped: int, now_s: float, at: datetime) -> None:
        """Tell how many were dropped, if that has changed since it was told last."""
        if dropped != self._told and now_s >= self._not_before_s:
            self._told, self._not_before_s = dropped, now_s + NOTICE_PAUSE_S
            self._retain(self._topic, encode(OutboxDroppedPayload(at=to_millisecond(at), dropped=dropped)))


class CourierThread(WorkerThread):
    """Starts and stops `link` and `outbox` with itself; both report to `inbox`.

    `cameras` are shown as offline and empty until something is heard of them. `hear` gets what others
    publish to us, on this thread: it may only look and enqueue. `consumer`: an event leaves the outbox when a
    consumer has acknowledged it, not when the broker has. `unclaimed_s`: to which age events are kept while
    nobody subscribes to them; None: for ever.
    """

    def __init__(
        self,
        inbox: "queue.SimpleQueue[Any]",
        link: LinkThread,
        outbox: OutboxThread,
        encoder: EventEncoder,
        topics: Topics,
        *,
        cameras: Iterable[str],
        hear: Callable[[Received], None],
        beats: Beats,
        metrics: Metrics,
        clock: Clock,
        consumer: bool = False,
        unclaimed_s: float | None = None,
    ) -> None:
        super().__init__(BEAT, beat_limit_s=BEAT_LIMIT_S, beats=beats, metrics=metrics)
        self._inbox = inbox
        self._link = link
        self._outbox = outbox
        self._encoder = encoder
        self._topics = topics
        self._clock = clock
        self._hear = hear
        self._seq = outbox.last_seq
        self._journal = Journal(outbox, metrics, consumer=consumer, unclaimed_s=unclaimed_s)
        self._sender = Sender(link, self._journal, old_seq=self._seq, metrics=metrics, clock=clock)
        self._notice = _DropNotice(topics, self._sender.retain)
        self._canary = Canary(topics.canary, partial(link.publish, qos=1), metrics)
        self._waiting: dict[int, _Unstored] = {}
        self._cameras = CameraDocuments(topics, encoder.subject, self._sender.retain)
        self._stopping: Stop | None = None
        self._farewell_said = self._refused = self._unclaimed = False
        self._sender.retain(topics.status, ONLINE)
        for camera in cameras:
            self._cameras.status(camera, False, "starting", clock.now())

    def publish_event(self, event: FaceEvent) -> None:
        """Deliver an event: live at once, and in the journal for certain. Returns at once."""
        self._inbox.put(Decided(event, self._clock.monotonic()))

    def publish_camera_status(self, camera: str, online: bool, why: str) -> None:
        """Show whether a camera delivers, and why."""
        self._inbox.put(CameraStatus(camera, online, why, self._clock.now()))

    def forget_camera(self, camera: str) -> None:
        """Take back what was shown of a camera that was taken out."""
        self._inbox.put(CameraGone(camera))

    def publish_info(self, payload: InfoPayload) -> None:
        """Show what runs here."""
        self._inbox.put(payload)

    def publish_health(self, payload: HealthPayload) -> None:
        """Show how it runs."""
        self._inbox.put(payload)

    def publish_gallery(self, payload: GalleryReportedPayload) -> None:
        """Show what the last synchronisation of the gallery came to."""
        self._inbox.put(payload)

    def publish_documents(self, documents: Mapping[str, bytes]) -> None:
        """Show retained documents by topic; an empty one takes back what was shown."""
        self._inbox.put(Documents(documents))

    def publish_answer(self, topic: str, payload: bytes, correlation: bytes | None) -> None:
        """Tell whoever asked what came of a command."""
        self._inbox.put(Answer(topic, payload, correlation))

    def publish_picture(self, topic: str, jpeg: bytes) -> None:
        """Show a picture to whoever is there now; without a connection it is lost."""
        self._inbox.put(Picture(topic, jpeg))

    def tell_again(self) -> None:
        """Send every retained document once more."""
        self._inbox.put(Again())

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the broker."""
        return self._sender.protocol is not None

    def link_health(self) -> LinkHealth:
        """Return what `health` says about the connection."""
        protocol = self._sender.protocol
        return LinkHealth(connected=protocol is not None, protocol=protocol, connects=self._sender.connects)

    def outbox_health(self) -> OutboxHealth:
        """Return what `health` says about the events that wait."""
        counts = self._outbox.counts
        now_ms = self._clock.now().timestamp() * 1e3
        age_s = 0.0 if counts.oldest_ms is None else max(0.0, (now_ms - counts.oldest_ms) / 1e3)
        return OutboxHealth(
            depth=counts.depth,
            oldest_s=round(age_s, 1),
            dropped=counts.dropped,
            undeliverable=counts.undeliverable,
            refused=self._refused,
            unclaimed=self._unclaimed,
            durable=counts.durable,
        )

    def start(self) -> None:
        """Start carrying."""
        self._outbox.start()
        self._link.start()
        super().start()

    def stop(self, deadline_s: float) -> bool:
        """Deliver what can be delivered, take leave, and say whether all ended in `deadline_s` seconds.

        What could not be delivered is in the outbox for the next start.
        """
        now_s = self._clock.monotonic()
        until_s = now_s + deadline_s
        self._inbox.put(Stop(now_s + DRAIN_SHARE * deadline_s, until_s))
        self.join(deadline_s)
        left_s = max(0.2, until_s - self._clock.monotonic())
        ended = [self._link.stop(left_s), self._outbox.stop(left_s), not self.is_alive()]
        return all(ended)

    def turn(self) -> bool:
        """Take what has arrived, send what may be sent; returns whether to go on."""
        try:
            item = self._inbox.get(timeout=self._pause_s())
            for _ in range(MAX_BURST):
                self._handle(item)
                item = self._inbox.get_nowait()
            self._handle(item)
        except queue.Empty:
            pass
        now_s = self._clock.monotonic()
        for seq in [seq for seq, decided in self._waiting.items() if decided.due_s <= now_s]:
            self._show(seq)
        self._journal.tick(now_s)
        self._refused = self._journal.refused_s(now_s) >= REFUSED_S
        self._unclaimed = self._journal.unclaimed
        self._canary.tick(now_s)
        self._notice.look(self._outbox.counts.dropped, now_s, self._clock.now())
        self._sender.pump(now_s, journal=self._canary.clear and not self._farewell_said)
        return self._stopping is None or not self._finish(self._stopping, now_s)

    def _pause_s(self) -> float:
        now_s = self._clock.monotonic()
        due_s = [decided.due_s for decided in self._waiting.values() if not decided.visible]
        due_s += [at_s for at_s in (self._journal.due_s, self._canary.due_s) if at_s is not None]
        idle_s = IDLE_S if self._stopping is None else 0.02
        return max(0.0, min([idle_s, *(due - now_s for due in due_s)]))

    def _handle(self, item: object) -> None:
        match item:
            case Decided():
                self._keep(item)
            case Stored():
                self._stored(item)
            case Pending():
                self._journal.take(item)
            case Published():
                self._sender.answered(item, self._clock.monotonic())
            case Connected():
                self._sender.begin(item)
                self._canary.begin(item, self._clock.monotonic())
            case Disconnected():
                self._sender.end(item)
                if self._sender.protocol is None:
                    self._canary.end()
            case Received():
                self._link.read(item)
                if not self._canary.heard(item):
                    self._hear(item)
            case Acknowledged():
                self._journal.acknowledged(item.event_ids, self._clock.monotonic())
            case Refused():
                self._metrics.count("received.too_large")
                log.warning("a message of %d bytes is too large and was dropped", item.size)
            case Unheard():
                log.error("the broker refuses our subscriptions: %s; check its access rules", item.reason)
            case CameraStatus():
                self._cameras.status(item.camera, item.online, item.why, item.at)
            case CameraGone():
                self._cameras.forget(item.camera)
            case InfoPayload():
                self._sender.retain(self._topics.info, encode(item))
            case GalleryReportedPayload():
                self._sender.retain(self._topics.gallery_reported, encode(item))
            case HealthPayload():
                self._sender.retain(self._topics.health, encode(item), qos=HEALTH.qos)
            case Documents():
                for topic, document in item.documents.items():
                    self._sender.retain(topic, document)
            case Answer():
                self._sender.answer(item)
            case Picture():
                self._sender.picture(item)
            case Again():
                self._sender.repeat()
            case Stop():
                self._stopping = item
            case _:
                raise TypeError(f"nobody sends {type(item).__name__} here")

    def _keep(self, item: Decided) -> None:
        """Give an event its number and hand it to the outbox."""
        event = item.event
        payload = self._encoder.encode(event, self._seq + 1)
        topic = self._topics.journal(event.camera)
        self._seq += 1
        # The end of a visit has no frame of its own: it is as old as its decision.
        at_s = item.decided_s if event.event_type == EventType.LEFT else event.monotonic_s
        created_ms = int(self._clock.now().timestamp() * 1e3)
        vital = event.event_type in (EventType.MATCH, EventType.SPOOF)
        self._waiting[self._seq] = _Unstored(event, payload, at_s, item.decided_s + DISK_PATIENCE_S)
        self._outbox.put(Row(self._seq, event.event_id, topic, payload, created_ms, int(at_s * 1e3), vital))

    def _stored(self, stored: Stored) -> None:
        """Show events that are on the disk, and say in the log that they are."""
        for seq in stored.seqs:
            self._show(seq)
            event = self._waiting.pop(seq).event
            log.info(
                "decision",
                extra={
                    "event_id": event.event_id,
                    "event_type": event.event_type.value,
                    "camera": event.camera,
                    "reason": event.reason.value if event.reason else None,
                    "durable": stored.durable,
                },
            )
        self._journal.stored()

    def _show(self, seq: int) -> None:
        """Make an event visible, once: live, and in the state of its camera."""
        decided = self._waiting[seq]
        if decided.visible:
            return
        self._waiting[seq] = replace(decided, visible=True)
        event = decided.event
        self._sender.live(self._topics.event(event.camera), decided.payload, decided.at_s)
        self._cameras.event(event)

    def _finish(self, stop: Stop, now_s: float) -> bool:
        """Bring delivery to its end, step by step; returns whether it has ended."""
        if self._farewell_said:
            return self._sender.idle or now_s >= stop.deadline_s
        quiet = not self._waiting and self._journal.idle and self._sender.idle
        if quiet or now_s >= stop.drain_until_s:
            self._farewell_said = True
            self._journal.settle(math.inf)
            self._cameras.close(self._clock.now())
            self._sender.retain(self._topics.status, OFFLINE)
        return False
