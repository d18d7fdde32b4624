"""An example of every message, as one door of a made-up site sends or takes it. Sends nothing.

They stand in the JSON Schemas and in the AsyncAPI document.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from edge.core.types import EventType, Refusal
from edge.mqtt.contract import messages

AT = datetime(2026, 8, 1, 7, 31, 22, 481000, tzinfo=UTC)
SHA256 = "6eee84e4f2b59d4a3b5d1a53c3b44ff2ab5f2fd5ba1a2e4f6f3a1b5a9c0d7e21"
SUBJECT = messages.SubjectPart(id="p-8f21", label="A. Example", groups=("staff",))
SIGNATURE = {"keyid": "c2l0ZS1oaGhoaGg", "sig": "aGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGg="}

MATCH = messages.EventPayload(
    event_type=EventType.MATCH,
    event_id="01a20a8c-c50a-7f44-ac3d-341801e0ea76",
    seq=1842,
    boot_id="4292816f-df81-4f85-9884-a8d19bd712f2",
    site="hq",
    device="door-03",
    camera="front",
    visit="v-8d1c5ba00d5e",
    captured_at=AT,
    clock="synced",
    monotonic_ms=88123991,
    revises=None,
    subject=SUBJECT,
    score=messages.ScorePart(
        best=0.61, second=0.39, threshold=0.44, margin=0.05, target_fpir=0.001, gallery_size=812
    ),
    reason=None,
    shots=messages.ShotsPart(used=3, seen=9, refused={Refusal.BLUR: 2}),
    quality=messages.QualityPart(
        face_px=112, sharpness=0.81, yaw_deg=-8, exposure=0.7, lifted=1, recognisability=0.98
    ),
    liveness=messages.LivenessPart(method="minifasnet-v2+facenox", score=0.93),
    bbox=(0.41, 0.22, 0.13, 0.21),
    model=messages.ModelPart(embedder="sface-int8", sha256=SHA256, gallery_version=57),
    latency_ms=messages.LatencyPart(capture_to_decision=22.1, detect=2.71, embed=6.9, match=0.104),
    published_at=AT + timedelta(milliseconds=23),
    replayed=False,
)
LEFT = MATCH.model_copy(
    update={
        "event_type": EventType.LEFT,
        "event_id": "01a20a8c-dc7a-7c02-8a51-9be0b7a3f6d4",
        "seq": 1843,
        "captured_at": AT + timedelta(seconds=6),
        "monotonic_ms": 88129991,
        "latency_ms": None,
        "published_at": AT + timedelta(seconds=6, milliseconds=9),
    }
)

EXAMPLES: Mapping[type[BaseModel], tuple[BaseModel, ...]] = {
    messages.StatusPayload: (messages.StatusPayload("online"),),
    messages.SnapshotPayload: (messages.SnapshotPayload(bytes.fromhex("ffd8ffd9")),),
    messages.InfoPayload: (
        messages.InfoPayload(
            site="hq",
            device="door-03",
            version="1.0.0",
            boot_id=MATCH.boot_id,
            at=AT,
            cameras=("front",),
            models={
                "detector": messages.ModelInfo(id="yunet", sha256=SHA256),
                "embedder": messages.ModelInfo(id="sface-int8", sha256=SHA256),
            },
            execution_provider="CPUExecutionProvider",
            execution_providers={"detector": "CPUExecutionProvider", "embedder": "CPUExecutionProvider"},
            gallery_version=57,
            gallery_size=812,
            config_version=3,
            threshold=0.44,
            shift=messages.ShiftInfo(value=0.01, site=0.0, gallery=0.01, low=0.0, high=0.02, compared=812),
            target_fpir=0.001,
            liveness="require",
            live_from=0.5,
            anonymous=False,
        ),
    ),
    messages.HealthPayload: (
        messages.HealthPayload(
            at=AT,
            clock="synced",
            uptime_s=86400.5,
            rss_mb=148.2,
            temperature_c=51.5,
            late=(),
            problems=("journal_refused",),
            fps={"front": 14.9},
            frame_age_s={"front": 0.06},
            stages_ms={
                "detect": messages.Percentiles(p50=2.7, p95=3.4),
                "embed": messages.Percentiles(p50=6.9, p95=8.1),
            },
            counters={"events.match": 214, "events.reject": 3},
            outbox=messages.OutboxHealth(
                depth=2, oldest_s=75.0, dropped=0, undeliverable=0, refused=True, durable=True
            ),
            mqtt=messages.LinkHealth(connected=True, protocol="5", connects=1),
        ),
    ),
    messages.CameraInfoPayload: (
        messages.CameraInfoPayload(camera="front", status="online", why="1280x720 at 15.0 frames/s", at=AT),
    ),
    messages.EventPayload: (MATCH, LEFT),
    messages.StatePayload: (
        messages.StatePayload(
            present=(
                messages.PresentPart(
                    visit=MATCH.visit,
                    event_id=MATCH.event_id,
                    event_type=EventType.MATCH,
                    subject=SUBJECT,
                    since=AT,
                ),
            ),
            last=messages.LastPart(
                event_id=MATCH.event_id, event_type=EventType.MATCH, reason=None, subject=SUBJECT, at=AT
            ),
            since=AT,
        ),
    ),
    messages.AckPayload: (
        messages.AckPayload(schema_="edge.ack/1", event_ids=(MATCH.event_id, LEFT.event_id)),
    ),
    messages.OutboxDroppedPayload: (messages.OutboxDroppedPayload(at=AT, dropped=12),),
    messages.CanaryPayload: (messages.CanaryPayload("5f0c9f7a"),),
    messages.CommandPayload: (
        messages.CommandPayload(schema_="edge.command/1", transaction="t-1", args={"camera": "front"}),
    ),
    messages.SignedCommandPayload: (
        messages.SignedCommandPayload(
            payloadType="application/vnd.edge.command+json",
            payload="eyJzY2hlbWEiOiAiZWRnZS5jb21tYW5kLzEifQ==",
            signatures=[SIGNATURE],
        ),
    ),
    messages.ResponsePayload: (
        messages.ResponsePayload(transaction="t-1", verb="selftest", status="ok", data={"passed": True}),
    ),
    messages.ConfigDesiredPayload: (
        messages.ConfigDesiredPayload(
            payloadType="application/vnd.edge.config+json",
            payload="eyJzY2hlbWEiOiAiZWRnZS5jb25maWctZGVzaXJlZC8xIn0=",
            signatures=[SIGNATURE],
        ),
    ),
    messages.ConfigReportedPayload: (
        messages.ConfigReportedPayload(
            at=AT,
            status="applied",
            layer="fleet",
            version=3,
            keys={"decision.target_fpir": "applied"},
            error=None,
            versions={"fleet": 3},
            effective=SHA256,
        ),
    ),
    messages.GalleryDesiredPayload: (
        messages.GalleryDesiredPayload(schema_="edge.gallery-desired/1", version=57),
    ),
    messages.GalleryReportedPayload: (
        messages.GalleryReportedPayload(
            at=AT,
            scope="hq",
            status="updated",
            published=41,
            version=57,
            count=812,
            model_id="sface-int8",
            synchronised_at=AT,
            error=None,
        ),
    ),
}
"""Examples by what the message is."""
