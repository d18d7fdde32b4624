"""What the messages look like: one model per payload, versioned by its `schema`. Fills nothing in.

The models are strict both ways: what is sent is validated, and a consumer may parse with them. Every time
is UTC with milliseconds; scores are cosines in [-1, 1]; a value that could not be measured is null.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    StringConstraints,
    WithJsonSchema,
)

from edge.core.slug import Slug
from edge.core.types import EventType, Reason, Refusal, RemoteOutcome


def timestamp(at: datetime) -> str:
    """Return `at` (with time zone) as RFC 3339 in UTC with milliseconds, such as 2026-08-01T07:31:22.481Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Timestamp = Annotated[
    AwareDatetime,
    PlainSerializer(timestamp, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
EventId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Clock = Literal["synced", "unsynced"]
Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0)]


SCHEMAS = (
    *("edge.event/1", "edge.state/1", "edge.camera/1", "edge.info/1", "edge.health/1"),
    *(
        "edge.response/1",
        "edge.outbox-dropped/1",
        "edge.config-reported/1",
        "edge.gallery-reported/1",
    ),
)
"""The versions of the payloads that this device sends."""


class Payload(BaseModel):
    """A message or a part of one: unknown keys, NaN and infinity are refused; values never change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )


class StatusPayload(RootModel[Literal["online", "offline"]]):
    """`status` and `camera/<c>/status`: one plain word, not JSON."""


class SubjectPart(Payload):
    """Who it is; `label` is null in anonymous mode."""

    id: str
    label: str | None
    groups: tuple[str, ...]


class ScorePart(Payload):
    """The numbers behind a decision."""

    best: Cosine | None
    second: Cosine | None
    threshold: float | None
    margin: float | None
    target_fpir: Fraction | None
    gallery_size: Count


class ShotsPart(Payload):
    """Faces seen, embedded, and refused by reason."""

    used: Count
    seen: Count
    refused: dict[Refusal, Count]


class QualityPart(Payload):
    """The best shot of the visit."""

    face_px: float | None
    sharpness: Fraction | None
    yaw_deg: float | None
    exposure: Fraction | None


class NoLivenessPart(Payload):
    """It was not checked whether the face is alive: a printed photo may have been recognised."""

    method: Literal["none"] = "none"


class LivenessPart(Payload):
    """The model that judged whether the face is alive; `score` is null where it could not."""

    method: str
    score: Fraction | None = Field(description="How likely the face is alive; the mean of the shots.")


class ModelPart(Payload):
    """What decided."""

    embedder: str
    sha256: str
    gallery_version: int


class LatencyPart(Payload):
    """Milliseconds from capture of the deciding frame to the decision, and its stages."""

    capture_to_decision: Milliseconds | None
    detect: Milliseconds | None
    embed: Milliseconds | None
    match: Milliseconds | None


class DecidedEvent(Payload):
    """What is known of an event when it is decided, and kept until it is delivered."""

    schema_: Literal["edge.event/1"] = Field("edge.event/1", alias="schema")
    event_type: EventType
    event_id: EventId = Field(description="UUIDv7; the same in event and journal. Identity, not order.")
    seq: Annotated[int, Field(ge=1)] = Field(
        description="Counts the events of this device; a gap means that events were dropped."
    )
    boot_id: str
    site: Slug
    device: Slug
    camera: Slug
    visit: str
    captured_at: Timestamp
    clock: Clock
    monotonic_ms: int
    revises: EventId | None = Field(description="The event that this one replaces.")
    subject: SubjectPart | None
    score: ScorePart | None
    reason: Reason | None
    shots: ShotsPart
    quality: QualityPart | None
    liveness: NoLivenessPart | LivenessPart
    bbox: tuple[Fraction, Fraction, Fraction, Fraction] | None = Field(
        description="x, y, width, height as fractions of the frame; null in anonymous mode."
    )
    model: ModelPart
    latency_ms: LatencyPart | None
    remote: RemoteOutcome | None = Field(
        None,
        exclude_if=lambda outcome: outcome is None,
        description="What came of asking the remote gallery; absent where none is configured.",
    )


class EventPayload(DecidedEvent):
    """`camera/<c>/event` and `camera/<c>/journal`: one decision about one visit, or its end."""

    published_at: Timestamp
    replayed: bool = Field(
        description="Sent late: more than 10 s after capture, after a restart, or once more."
    )


class PresentPart(Payload):
    """A visit that has been decided and has not ended."""

    visit: str
    event_id: EventId
    event_type: EventType
    subject: SubjectPart | None
    since: Timestamp


class LastPart(Payload):
    """The most recent decision at a camera."""

    event_id: EventId
    event_type: EventType
    reason: Reason | None
    subject: SubjectPart | None
    at: Timestamp


class StatePayload(Payload):
    """`camera/<c>/state`: who is present now. Cleared when visits end, at shutdown and at start."""

    schema_: Literal["edge.state/1"] = Field("edge.state/1", alias="schema")
    present: tuple[PresentPart, ...] = ()
    last: LastPart | None = None
    since: Timestamp | None = Field(None, description="Since when somebody has been present.")
    until: Timestamp | None = Field(None, description="When the last one left; null before that.")


class CameraInfoPayload(Payload):
    """`camera/<c>/info`: why the camera is online or offline."""

    schema_: Literal["edge.camera/1"] = Field("edge.camera/1", alias="schema")
    camera: Slug
    status: Literal["online", "offline"]
    why: str
    at: Timestamp


class ModelInfo(Payload):
    """A model in use."""

    id: str
    sha256: str


class InfoPayload(Payload):
    """`info`: what runs on this device, sent at start, after every connect and when it changes."""

    schema_: Literal["edge.info/1"] = Field("edge.info/1", alias="schema")
    site: Slug
    device: Slug
    version: str
    boot_id: str
    at: Timestamp
    cameras: tuple[Slug, ...]
    models: dict[str, ModelInfo]
    embedder_choice: str = Field("configured", description="Why it is this embedder: the settings, or auto.")
    execution_provider: str
    gallery_version: Count
    gallery_size: Count
    config_version: Count | None = Field(description="Version of the strongest pushed layer; null: none.")
    threshold: float | None
    target_fpir: Fraction | None
    liveness: Literal["off", "report", "require"] = Field(
        "off", description="What a face that is not alive means; the model is in `models`."
    )
    live_from: Fraction | None = Field(None, description="Liveness below which a match is a spoof.")
    anonymous: bool
    schemas: tuple[str, ...] = SCHEMAS


class Percentiles(Payload):
    """Milliseconds over the recent runs of a stage."""

    p50: Milliseconds
    p95: Milliseconds


class OutboxHealth(Payload):
    """Decisions that wait for the broker; `durable` is false while the disk refuses them.

    `quarantined` are set aside for good; `refused`: the broker has been refusing them for more than a minute.
    """

    depth: Count
    oldest_s: Annotated[float, Field(ge=0)]
    dropped: Count
    quarantined: Count
    refused: bool = False
    durable: bool


class LinkHealth(Payload):
    """The connection to the broker; `protocol` is null while there is none."""

    connected: bool
    protocol: Literal["5", "3.1.1"] | None
    connects: Count


class HealthPayload(Payload):
    """`health`: how the device runs, every minute."""

    schema_: Literal["edge.health/1"] = Field("edge.health/1", alias="schema")
    at: Timestamp
    clock: Clock
    uptime_s: Annotated[float, Field(ge=0)]
    rss_mb: Annotated[float, Field(ge=0)]
    temperature_c: float | None
    late: tuple[str, ...] = Field(description="Parts that make no progress; empty when all is well.")
    fps: dict[Slug, float]
    frame_age_s: dict[Slug, float | None]
    stages_ms: dict[str, Percentiles]
    counters: dict[str, int]
    outbox: OutboxHealth
    mqtt: LinkHealth
