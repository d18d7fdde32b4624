"""What the messages look like: one model per payload, versioned by its `schema`. Fills nothing in.

The models are strict both ways: what is sent is validated, and a consumer may parse with them; with
`extra="ignore"` it reads a newer device, whose messages may have more fields. Every time
is UTC with milliseconds; scores are cosines in [-1, 1]; a value that could not be measured is null.

Which topic carries which of them is in `edge.mqtt.contract.topics`. What a push of the configuration holds
inside its signed envelope is in `edge.device.pushes.push`.
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
from edge.mqtt.contract.problems import DoorProblem


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


SCHEMA = "Kind of this message and its version."
"""Description of the field `schema`, which every message has."""

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


class SnapshotPayload(RootModel[bytes]):
    """`camera/<c>/snapshot`: a picture as JPEG, not JSON."""

    model_config = ConfigDict(
        ser_json_bytes="base64",
        val_json_bytes="base64",
        json_schema_extra={"format": "binary", "contentMediaType": "image/jpeg"},
    )


class SubjectPart(Payload):
    """Who it is; `label` is null in anonymous mode."""

    id: str = Field(description="Identifies the subject in the gallery.")
    label: str | None = Field(description="What people call the subject; null in anonymous mode.")
    groups: tuple[str, ...] = Field(description="Groups of the subject, as in the gallery.")


class ScorePart(Payload):
    """The numbers behind a decision."""

    best: Cosine | None = Field(
        description="Score of the most alike subject, a cosine, whether it may pass here now or not; null "
        "where nobody is enrolled."
    )
    second: Cosine | None = Field(
        description="Score of the next most alike subject, whether it may pass here now or not, never above "
        "`best`; null where there is no other."
    )
    threshold: float | None = Field(description="Score from which a face counts as a subject's.")
    margin: float | None = Field(description="How far `best` has to be above `second`.")
    target_fpir: Fraction | None = Field(
        description="Share of strangers that may be taken for somebody; null where the threshold is set "
        "by hand."
    )
    gallery_size: Count = Field(
        description="Subjects that the face was compared with: those who may pass now."
    )


class ShotsPart(Payload):
    """Faces seen, embedded, and refused by reason."""

    used: Count = Field(description="Faces of the visit that were embedded as evidence.")
    seen: Count = Field(description="Faces of the visit that were detected.")
    refused: dict[Refusal, Count] = Field(
        description="Faces that were not good enough to be embedded, by reason."
    )


class QualityPart(Payload):
    """The best shot of the visit."""

    face_px: float | None = Field(description="Shorter side of the face's box in pixels of the frame.")
    sharpness: Fraction | None = Field(description="0 is blurred, 1 is sharp.")
    yaw_deg: float | None = Field(
        description="Turn of the head in degrees: 0 looks into the camera, positive towards the right of "
        "the image."
    )
    exposure: Fraction | None = Field(
        description="0 is too dark or too bright, 1 is well lit; of a dark face after it was lifted; below "
        ".5 where a dim face is before something bright."
    )
    lifted: float | None = Field(
        1.0, ge=1, description="How many times the levels of a dark face were spread; 1: not at all."
    )
    recognisability: Fraction | None = Field(
        None,
        description="0 is no face to the embedder, or one upside down or covered, 1 a plain one; null "
        "where it was not embedded.",
    )


class NoLivenessPart(Payload):
    """It was not checked whether the face is alive: a printed photo may have been recognised."""

    method: Literal["none"] = Field("none", description="none: no model for it is configured.")


class LivenessPart(Payload):
    """The models that judged whether the face is alive; `score` is null where they could not."""

    method: str = Field(description="Id of the model that judged it; of several, joined by +.")
    score: Fraction | None = Field(
        description="How surely the face is alive; the mean of the shots. Of the recommended models 0.5 is "
        "the measured threshold. Null: a face too small for them, or a failure."
    )


class ModelPart(Payload):
    """What decided."""

    embedder: str = Field(description="Id of the embedder.")
    sha256: str = Field(description="Hash of its file.")
    gallery_version: int = Field(description="Version of the gallery in the store of this device.")


class LatencyPart(Payload):
    """Milliseconds from capture of the deciding frame to the decision, and its stages."""

    capture_to_decision: Milliseconds | None = Field(
        description="From the capture of the deciding frame to the decision."
    )
    detect: Milliseconds | None = Field(description="Finding the faces of that frame.")
    embed: Milliseconds | None = Field(description="Embedding the face.")
    match: Milliseconds | None = Field(description="Comparing it with the gallery.")


class DecidedEvent(Payload):
    """What is known of an event when it is decided, and kept until it is delivered."""

    schema_: Literal["edge.event/1"] = Field("edge.event/1", alias="schema", description=SCHEMA)
    event_type: EventType = Field(
        description="match: the face is `subject`; reject: it is nobody's who may pass now, see `reason`; "
        "no_decision: the visit gave too few usable shots; spoof: it would have matched, but is not "
        "alive; left: the visit has ended."
    )
    event_id: EventId = Field(description="UUIDv7; the same in event and journal. Identity, not order.")
    seq: Annotated[int, Field(ge=1)] = Field(
        description="Counts the events of this device; a gap means that events were dropped."
    )
    boot_id: str = Field(
        description="Changes with every start of the device's system; `monotonic_ms` counts within one."
    )
    site: Slug = Field(description="Where the device is.")
    device: Slug = Field(description="Which device of the site.")
    camera: Slug = Field(description="Which camera of the device.")
    visit: str = Field(
        description="One person before one camera, from coming to leaving; the events of a visit share it."
    )
    captured_at: Timestamp = Field(
        description="When the deciding frame was captured, in UTC by the device's clock; see `clock`."
    )
    clock: Clock = Field(
        description="Whether the device's clock is synchronised; where not, `captured_at` may be wrong."
    )
    monotonic_ms: int = Field(
        description="When the deciding frame was captured, in milliseconds of a clock that never jumps."
    )
    revises: EventId | None = Field(description="The event that this one replaces.")
    subject: SubjectPart | None = Field(
        description="Who it is; also who was recognised and may not pass now; null where nobody was."
    )
    score: ScorePart | None = Field(
        description="The numbers behind the decision; null where nothing was compared."
    )
    reason: Reason | None = Field(description="Why the visit was not matched; null for match and left.")
    shots: ShotsPart = Field(description="What was seen of the visit so far.")
    quality: QualityPart | None = Field(description="The best shot of the visit; null where there was none.")
    liveness: NoLivenessPart | LivenessPart = Field(
        description="Whether it was checked that the face is alive, and the result."
    )
    bbox: tuple[Fraction, Fraction, Fraction, Fraction] | None = Field(
        description="x, y, width, height as fractions of the frame; null in anonymous mode."
    )
    model: ModelPart = Field(description="What decided.")
    latency_ms: LatencyPart | None = Field(
        description="How long the decision took; null at the end of a visit."
    )
    remote: RemoteOutcome | None = Field(
        None,
        exclude_if=lambda outcome: outcome is None,
        description="What came of asking the remote gallery; absent where none is configured.",
    )


class EventPayload(DecidedEvent):
    """`camera/<c>/event` and `camera/<c>/journal`: one decision about one visit, or its end."""

    published_at: Timestamp = Field(description="When this message was sent, in UTC by the device's clock.")
    replayed: bool = Field(
        description="Sent late: more than 10 s after capture, after a restart, or once more."
    )


class PresentPart(Payload):
    """A visit that has been decided and has not ended."""

    visit: str = Field(description="As in the event.")
    event_id: EventId = Field(description="The visit's latest decision.")
    event_type: EventType = Field(description="Kind of that decision.")
    subject: SubjectPart | None = Field(
        description="Who it is; null where nobody was recognised or the face is not alive."
    )
    since: Timestamp = Field(description="When the visit was decided first.")


class LastPart(Payload):
    """The most recent decision at a camera."""

    event_id: EventId = Field(description="The decision.")
    event_type: EventType = Field(description="Its kind.")
    reason: Reason | None = Field(description="Why it was no match; null for a match.")
    subject: SubjectPart | None = Field(
        description="Who it is; null where nobody was recognised or the face is not alive."
    )
    at: Timestamp = Field(description="When the deciding frame was captured.")


class StatePayload(Payload):
    """`camera/<c>/state`: who is present now. Cleared when visits end, at shutdown and at start."""

    schema_: Literal["edge.state/1"] = Field("edge.state/1", alias="schema", description=SCHEMA)
    present: tuple[PresentPart, ...] = Field(
        (), description="Visits that were decided and have not ended, oldest first."
    )
    last: LastPart | None = Field(None, description="The latest decision at this camera; null after a start.")
    since: Timestamp | None = Field(None, description="Since when somebody has been present.")
    until: Timestamp | None = Field(None, description="When the last one left; null before that.")


class CameraInfoPayload(Payload):
    """`camera/<c>/info`: why the camera is online or offline."""

    schema_: Literal["edge.camera/1"] = Field("edge.camera/1", alias="schema", description=SCHEMA)
    camera: Slug = Field(description="Which camera.")
    status: Literal["online", "offline"] = Field(description="Whether it delivers frames.")
    why: str = Field(description="In a few words, such as its size and rate, or what is wrong.")
    at: Timestamp = Field(description="Since when.")


class ModelInfo(Payload):
    """A model in use."""

    id: str = Field(description="The model's id in its manifest.")
    sha256: str = Field(description="Hash of its file.")


class ShiftInfo(Payload):
    """What is added to the calibrated threshold, because people look more alike here."""

    value: float = Field(description="What is added, a cosine: the largest of `site`, `gallery` and 0.")
    site: float = Field(description="decision.site_shift.")
    gallery: float | None = Field(
        description="What the enrolled themselves show; null where fewer than 20 can be compared."
    )
    low: float | None = Field(description="Lower end of its 95 % interval.")
    high: float | None = Field(description="Upper end of its 95 % interval.")
    compared: Count = Field(description="How many subjects were compared with each other.")
    strangers: Count = Field(0, description="How many kept strangers were compared with them.")
    look_alikes: Count = Field(
        0, description="How many subjects look like several others, and have a higher shift of their own."
    )
    highest: float = Field(0.0, description="The highest of these.")


class InfoPayload(Payload):
    """`info`: what runs on this device, sent at start, after every connect and when it changes."""

    schema_: Literal["edge.info/1"] = Field("edge.info/1", alias="schema", description=SCHEMA)
    site: Slug = Field(description="Where the device is.")
    device: Slug = Field(description="Which device of the site.")
    version: str = Field(description="Version of the software.")
    boot_id: str = Field(description="As in events.")
    at: Timestamp = Field(description="When this was said.")
    cameras: tuple[Slug, ...] = Field(description="The cameras in the settings.")
    models: dict[str, ModelInfo] = Field(
        description="By use: detector, embedder, and liveness, liveness-2 and so on where these are asked."
    )
    embedder_choice: str = Field("configured", description="Why it is this embedder: the settings, or auto.")
    execution_provider: str = Field(description="What the embedder runs on, as onnxruntime calls it.")
    execution_providers: dict[str, str] = Field(
        {}, description="What each of `models` really runs on, which may be less than the settings ask for."
    )
    gallery_version: Count = Field(description="Version of the gallery in the store of this device.")
    gallery_size: Count = Field(description="Subjects in it.")
    config_version: Count | None = Field(description="Version of the strongest pushed layer; null: none.")
    threshold: float | None = Field(
        description="Score from which a face counts as a subject's, for those who may pass when this was "
        "said."
    )
    shift: ShiftInfo | None = Field(
        None, description="Why it is higher than for the faces of the calibration; null for a raw threshold."
    )
    target_fpir: Fraction | None = Field(description="As in the score of an event.")
    liveness: Literal["off", "report", "require"] = Field(
        "off", description="What a face that is not alive means; the model is in `models`."
    )
    live_from: Fraction | None = Field(None, description="Liveness below which a match is a spoof.")
    anonymous: bool = Field(description="Whether labels and boxes are left out of events.")
    schemas: tuple[str, ...] = Field(SCHEMAS, description="Versions of the messages that this device sends.")


class Percentiles(Payload):
    """Milliseconds over the recent runs of a stage."""

    p50: Milliseconds = Field(description="Half of the runs took no longer, in milliseconds.")
    p95: Milliseconds = Field(description="95 of 100 runs took no longer, in milliseconds.")


class OutboxHealth(Payload):
    """Decisions that wait for the broker."""

    depth: Count = Field(description="Decisions that wait.")
    oldest_s: Annotated[float, Field(ge=0)] = Field(description="Age of the oldest of them in seconds.")
    dropped: Count = Field(
        description="Decisions dropped since the outbox was begun, because it was full, or because nobody "
        "keeps the journal (outbox.unclaimed_hours)."
    )
    undeliverable: Count = Field(
        description="Decisions that no broker takes as they are, such as one that is too large; "
        "`edge journal undeliverable` lists them."
    )
    quarantined: Count = Field(
        0, description="The same as `undeliverable`, under its name in the last release; goes with the next."
    )
    refused: bool = Field(
        False, description="Whether the broker has been refusing the journal for more than a minute."
    )
    unclaimed: bool = Field(
        False,
        description="Whether nobody keeps the journal: the broker had no subscriber for it when it was sent "
        "last. What waits then is not undelivered. Only MQTT 5 tells.",
    )
    durable: bool = Field(description="Whether what waits is on the disk; false while the disk refuses it.")

    @model_validator(mode="before")
    @classmethod
    def _under_both_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        undeliverable = values.get("undeliverable", values.get("quarantined"))
        return {**values, "undeliverable": undeliverable, "quarantined": undeliverable}


class LinkHealth(Payload):
    """The connection to the broker; `protocol` is null while there is none."""

    connected: bool = Field(description="Whether there is a connection.")
    protocol: Literal["5", "3.1.1"] | None = Field(
        description="Version of MQTT; null while there is no connection."
    )
    connects: Count = Field(description="Connections since the start.")


HealthProblem = Annotated[str, Field(pattern="^[a-z_]{1,32}$")]
"""A word for a machine; newer doors may know more of them."""


class DeviceHealth(Payload):
    """How the board does."""

    throttled: bool | None = Field(
        None, description="Whether the board makes itself slower now; null where it does not say."
    )
    throttled_by: tuple[Annotated[str, Field(pattern="^[a-z_]{1,32}$")], ...] = Field(
        (),
        description="Why: under_voltage (the power supply is too weak), frequency_capped, temperature, or "
        "frequency (the processor runs slower than it should while it has much to do).",
    )


class CameraHealth(Payload):
    """How one camera does."""

    looked_at_hz: Annotated[float, Field(ge=0)] = Field(
        description="How often a frame of it was looked at since the last of these messages, a second. Where "
        "the processor cannot look at all frames, each camera gets an equal share."
    )
    delivered_hz: Annotated[float, Field(ge=0)] = Field(description="How many frames it gave, a second.")
    problems: tuple[HealthProblem, ...] = Field((), description="Those of `problems` that are this camera's.")


class HealthPayload(Payload):
    """`health`: how the device runs, every minute, and at once when problems come or go."""

    schema_: Literal["edge.health/1"] = Field("edge.health/1", alias="schema", description=SCHEMA)
    at: Timestamp = Field(description="When this was said.")
    clock: Clock = Field(description="Whether the device's clock is synchronised.")
    uptime_s: Annotated[float, Field(ge=0)] = Field(description="Seconds since the daemon started.")
    rss_mb: Annotated[float, Field(ge=0)] = Field(description="Memory that the daemon takes up, in MB.")
    temperature_c: float | None = Field(
        description="Temperature of the board in degrees Celsius; null where it has no sensor."
    )
    late: tuple[str, ...] = Field(description="Parts that make no progress; empty when all is well.")
    problems: tuple[HealthProblem, ...] = Field(
        (),
        description="What may keep this door shut or silent until an operator acts; empty when all is well. "
        + "; ".join(f"{each}: {each.when}" for each in DoorProblem)
        + ".",
    )
    remedies: dict[HealthProblem, str] = Field(
        default_factory=dict, description="What to do about each of `problems`, in a line for people."
    )
    device: DeviceHealth = Field(default_factory=DeviceHealth, description="How the board does.")
    cameras: dict[Slug, CameraHealth] = Field(default_factory=dict, description="How each camera does.")
    fps: dict[Slug, float] = Field(description="Frames a second since the last of these messages, by camera.")
    frame_age_s: dict[Slug, float | None] = Field(
        description="Age of the newest frame in seconds, by camera; null before the first."
    )
    stages_ms: dict[str, Percentiles] = Field(
        description="How long the latest runs of each stage took, such as detect and embed."
    )
    counters: dict[str, int] = Field(
        description="What has happened how often since the start, such as events.match or config.refused; "
        "read by people."
    )
    outbox: OutboxHealth = Field(description="Decisions that wait for the broker.")
    mqtt: LinkHealth = Field(description="The connection to the broker.")


MAX_ACK_IDS = 500
MAX_ACK_BYTES = 64 * 1024
"""500 ids of 36 characters are 20 KB; what is larger is no acknowledgement."""


class AckPayload(Payload):
    """`ack`: a consumer has these events and will not lose them; the device may forget them."""

    schema_: Literal["edge.ack/1"] = Field("edge.ack/1", alias="schema", description=SCHEMA)
    event_ids: Annotated[tuple[EventId, ...], Field(max_length=MAX_ACK_IDS)] = Field(
        description="Ids of the journal's events, at most 500."
    )


class LooseAck(Payload):
    """An acknowledgement as it is read: an id that is none does not spoil those beside it."""

    schema_: Literal["edge.ack/1"] = Field("edge.ack/1", alias="schema", description=SCHEMA)
    event_ids: Annotated[tuple[Any, ...], Field(max_length=MAX_ACK_IDS)] = Field(
        description="As they came, whatever they are."
    )


class OutboxDroppedPayload(Payload):
    """`outbox_dropped`: decisions were dropped before they could be delivered; their seq is missing."""

    schema_: Literal["edge.outbox-dropped/1"] = Field(
        "edge.outbox-dropped/1", alias="schema", description=SCHEMA
    )
    at: Timestamp = Field(description="When this was said.")
    dropped: Count = Field(description="How many, since the outbox was begun.")


class CanaryPayload(RootModel[str]):
    """`canary`: what the device sends to itself through a broker that does not say when it refuses."""


Version = Annotated[int, Field(ge=0, lt=2**53)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class RefusedPushPayload(Payload):
    """The last message on one of the device's config/desired that is no push for it. Anybody may send one."""

    at: Timestamp = Field(description="When it came.")
    layer: str = Field(description="Whose config/desired it came on: fleet, group:<name> or device.")
    reason: Annotated[str, Field(pattern="^[a-z_]{1,32}$")] = Field(
        description="no_envelope, purpose, no_trusted_key, untrusted_key, signature, content, addressee, "
        "version, too_large, empty or memory; health counts them as config.refused.<reason>."
    )
    error: str = Field(description="The same in a line.")
    sha256: Sha256 = Field(
        description="Of the message, for whoever sent it; of its first 65537 bytes where it is longer."
    )
    count: Version = Field(description="All pushes refused since the daemon started, for whatever reason.")


class ConfigReportedPayload(Payload):
    """`config/reported`: what became of the last push that was checked, and what is in force."""

    schema_: Literal["edge.config-reported/1"] = Field(
        "edge.config-reported/1", alias="schema", description=SCHEMA
    )
    at: Timestamp = Field(description="When this was said.")
    status: Literal["none", "applied", "rejected", "rolled_back", "pending"] = Field(
        description="none: nothing was pushed; pending: it is on trial; applied: it is kept; "
        "rolled_back: the door did not work under it."
    )
    layer: str | None = Field(description="The layer of that push: fleet, group:<name> or device.")
    version: Version | None = Field(description="Its version; null where nothing was pushed.")
    keys: dict[str, str] = Field(
        description="By setting: applied, needs_restart, overridden by a stronger layer or the "
        "environment, or why not."
    )
    error: str | None = Field(
        description="Why it was rejected or rolled back, in a line; null where it was not."
    )
    versions: dict[str, Version] = Field(description="The layers in force and their versions.")
    groups: tuple[Slug, ...] = Field((), description="The groups that the device listens to.")
    effective: Sha256 = Field(description="Hash of all settings that may be pushed, as they are in force.")
    refused: RefusedPushPayload | None = Field(
        None, description="The last one that was refused; shown at most once a second."
    )


class ConfigDesiredPayload(Payload):
    """`config/desired`: a DSSE envelope (ed25519) around a configuration push."""

    payloadType: Literal["application/vnd.edge.config+json"] = Field(description="What the signature is for.")
    payload: str = Field(description="Base64 of JSON: {schema, scope, site, name, version, patch}.")
    signatures: list[dict[str, str]] = Field(description="keyid and sig, base64, of each signature.")


class GalleryDesiredPayload(Payload):
    """`gallery/desired`: synchronise now; the gallery of this scope has at least this version."""

    schema_: Literal["edge.gallery-desired/1"] = Field(
        "edge.gallery-desired/1", alias="schema", description=SCHEMA
    )
    version: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Version as the fleet published it; 0 asks in any case."
    )


class CandidatePayload(Payload):
    """The gallery of another embedder that may be switched to, and how it does on a share of the visits."""

    published: Count | None = Field(
        None, description="Its version as the fleet published it; null: it came from elsewhere."
    )
    version: Count = Field(description="Its version in the store of this device.")
    count: Count = Field(description="Subjects in it.")
    model_id: str = Field(description="Its embedder.")
    agreed: Count = Field(description="Visits since the start about which both embedders said the same.")
    differed: Count = Field(description="Visits about which they did not.")


class GalleryReportedPayload(Payload):
    """`gallery/reported`: what the last synchronisation came to, and the gallery that serves now."""

    schema_: Literal["edge.gallery-reported/1"] = Field(
        "edge.gallery-reported/1", alias="schema", description=SCHEMA
    )
    at: Timestamp = Field(description="When this was said.")
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
    model_id: str | None = Field(description="Embedder of the gallery in force; null where there is none.")
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
    rights: Count | None = Field(
        None,
        description="Published version whose gallery is refused because its embedder cannot be used here, "
        "and by which subjects were removed and restricted all the same; null: none.",
    )
    embedders: tuple[str, ...] | None = Field(
        None,
        description="Model ids of the embedders that a gallery for this door may be of: the one that is "
        "configured, or all that are installed; null: nobody knows.",
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

    subject: SubjectId = Field(description="Id of the subject in the gallery.")
    photo: Photo | None = Field(
        None, description="JPEG or PNG in base64, at most 256 KiB and 12 megapixels; this or `visit`."
    )
    visit: Annotated[str, StringConstraints(pattern=r"^v-[0-9a-f]{1,32}$")] | None = Field(
        None, description="A kept visit to take the face from; this or `photo`."
    )
    label: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="What people call the subject."
    )
    groups: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=32)]], Field(max_length=16)
    ] = Field([], description="Groups of the subject.")
    force: bool = Field(False, description="Enroll although another subject looks the same.")
    replace: bool = Field(False, description="Enroll although the subject is enrolled with another face.")


class SubjectArgs(Args):
    """`revoke`: who."""

    subject: SubjectId = Field(description="Id of the subject in the gallery.")


class SuspendArgs(Args):
    """`suspend`: who; with `lift` it may pass again."""

    subject: SubjectId = Field(description="Id of the subject in the gallery.")
    lift: bool = Field(False, description="Let the subject pass again.")


class PhotoArgs(Args):
    """`identify`: a photo in base64."""

    photo: Photo = Field(description="JPEG or PNG in base64, at most 256 KiB and 12 megapixels.")


class CameraArgs(Args):
    """`snapshot`: of which camera."""

    camera: Slug = Field(description="Which camera of the device.")


class PurgeArgs(Args):
    """`purge`: erase everybody who is enrolled here; `confirm` is the device's name."""

    confirm: Slug = Field(description="Name of the device, so that nobody purges another by mistake.")


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

    schema_: Literal["edge.command/1"] = Field("edge.command/1", alias="schema", description=SCHEMA)
    transaction: Transaction = Field(description="Chosen by the sender; the same one gets the same answer.")
    args: dict[str, Any] = Field(default_factory=dict, description="What the verb takes.")
    expires_at: AwareDatetime | None = Field(
        None, description="Needed in a signed command, at most 1 h ahead."
    )
    site: Slug | None = Field(None, description="Needed in a signed command: the site it is for.")
    device: Slug | None = Field(None, description="Needed in a signed command: the device it is for.")
    verb: str | None = Field(
        None, max_length=32, description="Needed in a signed command: the verb, as in the topic."
    )


class SignedCommandPayload(Payload):
    """`command/<verb>`: a DSSE envelope (ed25519) around a command."""

    payloadType: Literal["application/vnd.edge.command+json"] = Field(
        description="What the signature is for."
    )
    payload: str = Field(description="Base64 of the command, with expires_at, site, device and verb.")
    signatures: list[dict[str, str]] = Field(description="keyid and sig, base64, of each signature.")


class ResponsePayload(Payload):
    """`response/<verb>`, or the response topic of the command: what came of it, refusals included."""

    schema_: Literal["edge.response/1"] = Field("edge.response/1", alias="schema", description=SCHEMA)
    transaction: str | None = Field(description="That of the command; null where it could not be read.")
    verb: str = Field(description="That of the command, or refused where it is not known.")
    status: Literal["ok", "error"] = Field(description="Whether it was done.")
    error: str | None = Field(None, description="Why it was not done, in a line; null where it was.")
    data: dict[str, Any] = Field(default_factory=dict, description="What the verb answers with.")
