"""Documents that a device shows, as samples."""

from datetime import UTC, datetime
from typing import Any

from edge.mqtt.contract.messages import (
    CameraHealth,
    CameraInfoPayload,
    DeviceHealth,
    HealthPayload,
    InfoPayload,
    LinkHealth,
    ModelInfo,
    OutboxHealth,
    Percentiles,
)
from edge.mqtt.contract.problems import DoorProblem

AT = datetime(2026, 8, 1, 7, 31, 22, 481999, tzinfo=UTC)


def documents() -> dict[str, Any]:
    return {
        "info": InfoPayload(
            site="hq",
            device="door-03",
            version="0.1.0",
            boot_id="b7c1",
            at=AT,
            cameras=("front",),
            models={"embedder": ModelInfo(id="sface-int8", sha256="ab" * 32)},
            execution_provider="CPUExecutionProvider",
            gallery_version=57,
            gallery_size=812,
            config_version=None,
            threshold=0.44,
            target_fpir=0.001,
            anonymous=False,
        ),
        "health": HealthPayload(
            at=AT,
            clock="unsynced",
            uptime_s=12.5,
            rss_mb=101.5,
            temperature_c=None,
            late=(),
            problems=("journal_refused",),
            remedies={"journal_refused": DoorProblem.JOURNAL_REFUSED.remedy},
            device=DeviceHealth(throttled=False),
            cameras={"front": CameraHealth(looked_at_hz=14.9, delivered_hz=15.0)},
            fps={"front": 14.9},
            frame_age_s={"front": None},
            stages_ms={"detect": Percentiles(p50=2.0, p95=2.4)},
            counters={"events.match": 3},
            outbox=OutboxHealth(depth=0, oldest_s=0, dropped=0, undeliverable=0, durable=True),
            mqtt=LinkHealth(connected=True, protocol="5", connects=1),
        ),
        "camera_info": CameraInfoPayload(camera="front", status="online", why="", at=AT),
    }
