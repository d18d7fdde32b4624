"""What the messages look like: one model per payload, versioned by its `schema`. Fills nothing in.

The models are strict both ways: what is sent is validated, and a consumer may parse with them. Every time
is UTC with milliseconds; scores are cosines in [-1, 1]; a value that could not be measured is null.

What is said about the journal besides its events: `ack`, `outbox_dropped`, and the canary.

What `config/reported` looks like. `config/desired` is a signed envelope, see `edge.device.pushes.push`.

What the messages about a pushed gallery look like: `gallery/desired` and `gallery/reported`.

What commands and responses look like, and what each verb takes. Executes nothing.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from edge.core.ids import Slug
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

    `refused`: the broker has been refusing them for more than a minute.
    """

    depth: Count
    oldest_s: Annotated[float, Field(ge=0)]
    dropped: Count
    undeliverable: Count = Field(
        description="Decisions that no broker takes as they are, such as one that is too large; "
        "`edge journal undeliverable` lists them."
    )
    quarantined: Count = Field(
        description="The same as `undeliverable`, under its old name; it goes with the next release.",
        json_schema_extra={"deprecated": True},
    )
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


Version = Annotated[int, Field(ge=0, lt=2**53)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class UnbelievedPushPayload(Payload):
    """The last message on one of the device's config/desired that is no push for it. Anybody may send one."""

    at: Timestamp
    layer: str
    reason: Annotated[str, Field(pattern="^[a-z_]{1,32}$")] = Field(
        description="no_envelope, purpose, no_trusted_key, untrusted_key, signature, content, addressee, "
        "version, too_large, empty or memory; health counts them as config.refused.<reason>."
    )
    error: str
    sha256: Sha256 = Field(
        description="Of the message, for whoever sent it; of its first 65537 bytes where it is longer."
    )
    count: Version = Field(description="All pushes refused since the daemon started, for whatever reason.")


class ConfigReportedPayload(Payload):
    """`config/reported`: what became of the last push that was believed, and what is in force."""

    schema_: Literal["edge.config-reported/1"] = Field("edge.config-reported/1", alias="schema")
    at: Timestamp
    status: Literal["none", "applied", "rejected", "rolled_back", "pending"] = Field(
        description="none: nothing was pushed; pending: it is being tried; rolled_back: the door did not "
        "work under it."
    )
    layer: str | None = Field(description="The layer of that push: fleet, group:<name> or device.")
    version: Version | None = Field(description="Its version; null where nothing was pushed.")
    keys: dict[str, str] = Field(
        description="By setting: applied, needs_restart, overridden by a stronger layer or the "
        "environment, or why not."
    )
    error: str | None
    versions: dict[str, Version] = Field(description="The layers in force and their versions.")
    groups: tuple[Slug, ...] = Field((), description="The groups that the device listens to.")
    effective: Sha256 = Field(description="Hash of all settings that may be pushed, as they are in force.")
    refused: UnbelievedPushPayload | None = Field(
        None, description="The last one that was not believed; shown at most once a second."
    )


class ConfigDesiredPayload(Payload):
    """`config/desired`: a DSSE envelope (ed25519) around the pushed configuration."""

    payloadType: Literal["application/vnd.edge.config+json"]
    payload: str = Field(description="Base64 of JSON: {schema, scope, site, name, version, patch}.")
    signatures: list[dict[str, str]] = Field(description="keyid and sig, base64, of each signature.")


class GalleryDesiredPayload(Payload):
    """`gallery/desired`: synchronise now; the gallery of this scope has at least this version."""

    schema_: Literal["edge.gallery-desired/1"] = Field("edge.gallery-desired/1", alias="schema")
    version: Annotated[int, Field(ge=0, lt=2**63)] = 0


class CandidatePayload(Payload):
    """The gallery of another embedder that may be switched to, and how it does on a share of the visits."""

    published: Count | None = Field(
        None, description="Its version as the fleet published it; null: it came from elsewhere."
    )
    version: Count = Field(description="Its version in the store of this device.")
    count: Count = Field(description="Subjects in it.")
    model_id: str
    agreed: Count = Field(description="Visits since the start about which both embedders said the same.")
    differed: Count = Field(description="Visits about which they did not.")


class GalleryReportedPayload(Payload):
    """`gallery/reported`: what the last synchronisation came to, and the gallery that serves now."""

    schema_: Literal["edge.gallery-reported/1"] = Field("edge.gallery-reported/1", alias="schema")
    at: Timestamp
    scope: str | None = Field(None, description="Scope whose gallery this door serves; null: no fleet's.")
    status: Literal["updated", "current", "refused"] = Field(
        description="updated: a new version serves; current: there was none; refused: see error."
    )
    published: Count | None = Field(
        None,
        description="Version of the gallery in force as the fleet published it: to be compared with "
        "gallery/desired and `edge fleet status`. null: it is not the fleet's, or was changed at the door.",
    )
    version: Count = Field(
        description="Version of the gallery in force in the store of this device, as in info and events."
    )
    count: Count = Field(description="Subjects in it.")
    model_id: str | None
    not_after: Timestamp | None = Field(
        None, description="When this gallery is trusted no more, see sync.stale; null: never."
    )
    revoked_applied_at: Timestamp | None = Field(
        None, description="When the last subject left the gallery in force; null: none since the start."
    )
    candidate: CandidatePayload | None = Field(
        None, description="What this door may be switched to; null: nothing, or it is not tried."
    )
    beside: CandidatePayload | None = Field(
        None, description="The same as `candidate`, under its name in the last release; goes with the next."
    )
    synchronised_at: Timestamp | None = Field(
        None, description="When the last synchronisation ended, whoever started it; null: there was none."
    )
    reason: str | None = Field(
        None,
        description="Why it was refused, in a word: rollback, clock, signature, expired, server, integrity, "
        "model, config, disk, gallery, failed.",
    )
    error: str | None = Field(description="The same in a line; it stays until a synchronisation succeeds.")

    @model_validator(mode="before")
    @classmethod
    def _under_both_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        candidate = values.get("candidate", values.get("beside"))
        return {**values, "candidate": candidate, "beside": candidate}


MAX_PHOTO_CHARS = 350_000
"""Base64 of 256 KiB."""

Transaction = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
SubjectId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Photo = Annotated[str, StringConstraints(min_length=16, max_length=MAX_PHOTO_CHARS)]


class Args(BaseModel):
    """What a verb takes: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NoArgs(Args):
    """A verb that takes nothing."""


class EnrollArgs(Args):
    """`enroll`: a subject, from a photo (JPEG or PNG in base64) or from a past visit.

    `force`: although another subject looks the same; `replace`: although it is enrolled with another face.
    """

    subject: SubjectId
    photo: Photo | None = None
    visit: Annotated[str, StringConstraints(pattern=r"^v-[0-9a-f]{1,32}$")] | None = None
    label: Annotated[str, StringConstraints(max_length=64)] | None = None
    groups: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=32)]], Field(max_length=16)
    ] = []
    force: bool = False
    replace: bool = False


class SubjectArgs(Args):
    """`revoke`: who."""

    subject: SubjectId


class SuspendArgs(Args):
    """`suspend`: who; with `lift` it may pass again."""

    subject: SubjectId
    lift: bool = False


class PhotoArgs(Args):
    """`identify`: a photo in base64."""

    photo: Photo


class CameraArgs(Args):
    """`snapshot`: of which camera."""

    camera: Slug


class PurgeArgs(Args):
    """`purge`: erase everybody who is enrolled here; `confirm` is the device's name."""

    confirm: Slug


VERBS: dict[str, type[Args]] = {
    "enroll": EnrollArgs,
    "revoke": SubjectArgs,
    "suspend": SuspendArgs,
    "subjects": NoArgs,
    "identify": PhotoArgs,
    "snapshot": CameraArgs,
    "gallery.sync": NoArgs,
    "selftest": NoArgs,
    "reload": NoArgs,
    "restart": NoArgs,
    "purge": PurgeArgs,
    "diagnostics": NoArgs,
}

READS = frozenset({"subjects", "identify", "snapshot", "selftest", "diagnostics"})
"""Verbs that change nothing."""


class CommandPayload(Payload):
    """`command/<verb>`: what is asked for; signed, with `site`, `device` and `verb`, inside an envelope."""

    schema_: Literal["edge.command/1"] = Field("edge.command/1", alias="schema")
    transaction: Transaction = Field(description="Chosen by the sender; the same one gets the same answer.")
    args: dict[str, Any] = Field(default_factory=dict)
    expires_at: AwareDatetime | None = Field(
        None, description="Needed in a signed command, at most 1 h ahead."
    )
    site: Slug | None = None
    device: Slug | None = None
    verb: str | None = Field(None, max_length=32)


class SignedCommandPayload(Payload):
    """`command/<verb>`: a DSSE envelope (ed25519) around a command."""

    payloadType: Literal["application/vnd.edge.command+json"]
    payload: str = Field(description="Base64 of the command, with expires_at, site, device and verb.")
    signatures: list[dict[str, str]] = Field(description="keyid and sig, base64, of each signature.")


class ResponsePayload(Payload):
    """`response/<verb>`, or the response topic of the command: what came of it, refusals included."""

    schema_: Literal["edge.response/1"] = Field("edge.response/1", alias="schema")
    transaction: str | None = Field(description="That of the command; null where it could not be read.")
    verb: str
    status: Literal["ok", "error"]
    error: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
