"""What others may ask of a device over MQTT, checked before anybody acts on it. Acts on nothing itself.

Messages come from anybody whom the broker lets publish: they are bounded, parsed strictly, counted and
dropped with one line when they are not what they should be.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from edge.metrics import Metrics
from edge.mqtt.broker import Received
from edge.mqtt.payloads_sync import GalleryDesiredPayload
from edge.mqtt.topics import Topics

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4096
"""Larger than any honest request; it bounds how deep JSON can be nested before it is parsed."""


BORN = b"online"
"""What Home Assistant publishes when it has started."""


@dataclass(frozen=True, slots=True)
class SyncGallery:
    """Somebody with a newer gallery asks to fetch it; it has at least this version."""

    at_least: int


@dataclass(frozen=True, slots=True)
class TellAgain:
    """A building system has started and knows nothing: it wants every retained document once more."""


Request = SyncGallery | TellAgain


class Incoming:
    """Hands what is asked for to `ask`, which only enqueues.

    `birth` is where a building system says `online`.
    """

    def __init__(
        self, topics: Topics, ask: Callable[[Request], None], metrics: Metrics, birth: str | None = None
    ) -> None:
        self._topics = topics
        self._ask = ask
        self._metrics = metrics
        self._birth = birth

    def hear(self, received: Received) -> None:
        """Take a message of our subscriptions."""
        if received.topic == self._topics.gallery_desired:
            self._gallery_desired(received.payload)
        elif received.topic == self._birth and received.payload == BORN and not received.retained:
            self._ask(TellAgain())

    def _gallery_desired(self, payload: bytes) -> None:
        if not payload:
            return  # a retained request was taken back
        if len(payload) > MAX_REQUEST_BYTES:
            self._refuse("gallery/desired", f"{len(payload)} bytes are more than {MAX_REQUEST_BYTES}")
            return
        try:
            desired = GalleryDesiredPayload.model_validate_json(payload, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            self._refuse("gallery/desired", f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg'][:120]}")
        else:
            self._ask(SyncGallery(desired.version))

    def _refuse(self, what: str, why: str) -> None:
        self._metrics.count("received.refused")
        log.warning("%s refused: %s", what, why)


def subscriptions(topics: Topics, birth: str | None = None) -> tuple[str, ...]:
    """Return the topics that a device listens to."""
    return (topics.gallery_desired, *((birth,) if birth else ()))
