"""What others may ask of a device over MQTT, checked before anybody acts on it. Acts on nothing itself.

Messages come from anybody whom the broker lets publish: they are bounded, parsed strictly, counted and
dropped with one line when they are not what they should be.
"""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from pydantic import ValidationError

from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.core.text import first_problem
from edge.mqtt.broker import Received
from edge.mqtt.contract.messages import MAX_ACK_BYTES, GalleryDesiredPayload, LooseAck
from edge.mqtt.contract.topics import Topics

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4096
"""Larger than any honest request; it bounds how deep JSON can be nested before it is parsed."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

MAX_PUSH_BYTES = 64 * 1024
"""As `MAX_ENVELOPE_BYTES` of `device.pushes.push`."""

MAX_COMMANDS = 20
"""Commands that wait to be looked at; what comes beyond is dropped and counted."""

BORN = b"online"
"""What Home Assistant publishes when it has started."""


@dataclass(frozen=True, slots=True)
class SyncGallery:
    """Somebody with a newer gallery asks to fetch it; it has at least this version."""

    at_least: int


@dataclass(frozen=True, slots=True)
class TellAgain:
    """A building system has started and knows nothing: it wants every retained document once more."""


@dataclass(frozen=True, slots=True)
class ReceivedPush:
    """A configuration push for a layer."""

    layer: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Commanded:
    """Somebody commands; nothing of it is checked yet."""

    verb: str
    received: Received


Request = SyncGallery | TellAgain | ReceivedPush | Commanded


class Mailbox:
    """What is asked and nobody has taken yet: a flood fills one place of each kind. Thread-safe.

    Of pushes the newest of each layer stays (an empty one replaces none), of commands the first few. `wake`
    is called for every place that is filled, and only enqueues.
    """

    def __init__(self, wake: Callable[[], None], metrics: Metrics) -> None:
        self._wake = wake
        self._metrics = metrics
        self._lock = threading.Lock()
        self._requests: OrderedDict[Hashable, Request] = OrderedDict()
        self._numbers = 0

    def put(self, request: Request) -> None:
        """Keep a request."""
        with self._lock:
            place: tuple[type, Hashable] = (type(request), None)
            match request:
                case ReceivedPush():
                    place = (ReceivedPush, request.layer)
                case SyncGallery():
                    request = _stronger(request, self._requests.get(place))
                case Commanded():
                    self._numbers += 1
                    place = (Commanded, self._numbers)
                    waiting = sum(isinstance(each, Commanded) for each in self._requests.values())
                    if waiting >= MAX_COMMANDS:
                        self._metrics.count("commands.dropped")
                        return
            new = place not in self._requests
            if not new and isinstance(request, ReceivedPush):
                self._metrics.count("config.refused")
                self._metrics.count("config.refused.superseded")
            if new or not isinstance(request, ReceivedPush) or request.data:
                self._requests[place] = request
        if new:
            self._wake()

    def take(self) -> Request | None:
        """Return what has waited longest, None where nothing waits."""
        with self._lock:
            return self._requests.popitem(last=False)[1] if self._requests else None


def _stronger(new: SyncGallery, waiting: Request | None) -> SyncGallery:
    """Return what asks for both: 0 asks in any case."""
    if not isinstance(waiting, SyncGallery) or new.at_least == 0:
        return new
    return waiting if waiting.at_least == 0 else SyncGallery(max(new.at_least, waiting.at_least))


class RequestReader:
    """Checks what is asked for and hands it to `ask`, which only enqueues.

    `birth` is where a building system says `online`. `acknowledge` gets the ids of events that a consumer
    has; without it acknowledgements mean nothing. Configuration pushes are heard for `layers`.
    As many commands as `commands` lets through are handed on; None: there are none. As many lines as
    `complaints` lets through are logged. `acks` bounds the bytes of acknowledgements; None: it does not.
    """

    def __init__(
        self,
        topics: Topics,
        ask: Callable[[Request], None],
        metrics: Metrics,
        birth: str | None = None,
        acknowledge: Callable[[tuple[str, ...]], None] | None = None,
        *,
        layers: Iterable[str] = (),
        commands: TokenBucket | None = None,
        acks: TokenBucket | None = None,
        complaints: TokenBucket | None = None,
    ) -> None:
        self._commands = commands
        self._acks = acks
        self._command_root = topics.command("")
        self._dropped = 0
        self._complaints = complaints
        self._layers = {topics.config_desired(layer): layer for layer in layers}
        self._topics = topics
        self._ask = ask
        self._metrics = metrics
        self._birth = birth
        self._acknowledge = acknowledge

    def hear(self, received: Received) -> None:
        """Take a message of our subscriptions."""
        if received.topic == self._topics.gallery_desired:
            self._gallery_desired(received.payload)
        elif (layer := self._layers.get(received.topic)) is not None:
            self._config_desired(layer, received.payload)
        elif received.topic.startswith(self._command_root) and self._commands is not None:
            self._command(received, self._commands)
        elif received.topic == self._birth and received.payload == BORN and not received.retained:
            self._ask(TellAgain())
        elif received.topic == self._topics.ack and self._acknowledge is not None:
            self._ack(received, self._acknowledge)

    def _ack(self, received: Received, acknowledge: Callable[[tuple[str, ...]], None]) -> None:
        payload = received.payload
        if received.retained:
            self._refuse("ack", "it was retained; publish it without the retain flag")
            return
        if len(payload) > MAX_ACK_BYTES:
            self._refuse("ack", f"{len(payload)} bytes are more than {MAX_ACK_BYTES}")
            return
        if self._acks is not None and not self._acks.take(len(payload)):
            self._metrics.count("ack.dropped")
            return
        try:
            named = LooseAck.model_validate_json(payload, strict=True).event_ids
        except ValidationError as error:
            self._refuse("ack", first_problem(error))
            return
        texts = [name.lower() for name in named if isinstance(name, str)]
        good = tuple(dict.fromkeys(text for text in texts if UUID.fullmatch(text)))
        bad = len(named) - sum(UUID.fullmatch(text) is not None for text in texts)
        if bad:
            self._metrics.count("ack.bad", bad)
            self._complain(f"ack: {bad} of {len(named)} event ids are no UUIDs and were ignored")
        if good:
            acknowledge(good)

    def _gallery_desired(self, payload: bytes) -> None:
        if not payload:
            return  # a retained request was taken back
        if len(payload) > MAX_REQUEST_BYTES:
            self._refuse("gallery/desired", f"{len(payload)} bytes are more than {MAX_REQUEST_BYTES}")
            return
        try:
            desired = GalleryDesiredPayload.model_validate_json(payload, strict=True)
        except ValidationError as error:
            self._refuse("gallery/desired", first_problem(error))
        else:
            self._ask(SyncGallery(desired.version))

    def _config_desired(self, layer: str, payload: bytes) -> None:
        # One byte more than is allowed is enough to be refused, and reported, for its size.
        self._ask(ReceivedPush(layer, payload[: MAX_PUSH_BYTES + 1]))

    def _command(self, received: Received, bucket: TokenBucket) -> None:
        if bucket.take():
            if self._dropped:
                self._complain(f"{self._dropped} commands were dropped: more came than are taken")
                self._dropped = 0
            self._ask(Commanded(received.topic.removeprefix(self._command_root)[:32], received))
        else:
            self._dropped += 1
            self._metrics.count("commands.dropped")

    def _refuse(self, what: str, why: str) -> None:
        self._metrics.count("received.refused")
        self._complain(f"{what} refused: {why}")

    def _complain(self, what: str) -> None:
        if self._complaints is None or self._complaints.take():
            log.warning("%s", what)


def subscriptions(
    topics: Topics, birth: str | None = None, layers: Iterable[str] = (), *, acks: bool = False
) -> tuple[str, ...]:
    """Return the topics that a device listens to; `acks`: to acknowledgements too."""
    return (
        topics.gallery_desired,
        *((birth,) if birth else ()),
        topics.commands,
        *map(topics.config_desired, layers),
        *((topics.ack,) if acks else ()),
    )
