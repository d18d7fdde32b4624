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


@dataclass(frozen=True, slots=True)
class SyncGallery:
    """Somebody with a newer gallery asks to fetch it; it has at least this version."""

    at_least: int


class Incoming:
    """Hands what is asked for to `ask`, which only enqueues."""

    def __init__(self, topics: Topics, ask: Callable[[SyncGallery], None], metrics: Metrics) -> None:
        self._topics = topics
        self._ask = ask
        self._metrics = metrics

    def hear(self, received: Received) -> None:
        """Take a message of our subscriptions."""
        if received.topic == self._topics.gallery_desired:
            self._gallery_desired(received.payload)

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


def subscriptions(topics: Topics) -> tuple[str, ...]:
    """Return the topics that a device listens to."""
    return (topics.gallery_desired,)
