"""What is said about the journal besides its events: `ack`, `outbox_dropped`, and the canary."""

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from edge.mqtt.contract.messages import Count, EventId, Payload, Timestamp

MAX_ACK_IDS = 500
MAX_ACK_BYTES = 64 * 1024
"""500 ids of 36 characters are 20 KB; what is larger is no acknowledgement."""


class AckPayload(Payload):
    """`ack`: a consumer has these events and will not lose them; the device may forget them."""

    schema_: Literal["edge.ack/1"] = Field("edge.ack/1", alias="schema")
    event_ids: Annotated[tuple[EventId, ...], Field(max_length=MAX_ACK_IDS)]


class LooseAck(Payload):
    """An acknowledgement as it is read: an id that is none does not spoil those beside it."""

    schema_: Literal["edge.ack/1"] = Field("edge.ack/1", alias="schema")
    event_ids: Annotated[tuple[Any, ...], Field(max_length=MAX_ACK_IDS)]


class OutboxDroppedPayload(Payload):
    """`outbox_dropped`: decisions were dropped before they could be delivered; their seq is missing."""

    schema_: Literal["edge.outbox-dropped/1"] = Field("edge.outbox-dropped/1", alias="schema")
    at: Timestamp = Field(description="When this was said.")
    dropped: Count = Field(description="How many, since the outbox was begun.")


class CanaryPayload(RootModel[str]):
    """`canary`: what the device sends to itself through a broker that does not say when it refuses."""
