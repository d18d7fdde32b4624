"""From a FaceEvent to the bytes of a message. Sends nothing.

An event is encoded once, when it is decided. What is only known when it is sent (`published_at`,
`replayed`) is stamped onto the encoded bytes, so that a row of the outbox never has to be parsed.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime

from edge.core.types import FaceEvent, Latency, LivenessCheck, Quality, Score, Subject
from edge.mqtt.contract.messages import (
    Clock,
    DecidedEvent,
    LatencyPart,
    LivenessPart,
    ModelPart,
    NoLivenessPart,
    Payload,
    QualityPart,
    ScorePart,
    ShotsPart,
    SubjectPart,
    timestamp,
)


class EventEncoder:
    """Encodes the events of one device.

    `clock` says whether the system clock can be trusted now; `anonymous` drops label and box.
    """

    def __init__(
        self, site: str, device: str, boot_id: str, *, clock: Callable[[], Clock], anonymous: bool = False
    ) -> None:
        self._site = site
        self._device = device
        self._boot_id = boot_id
        self._clock = clock
        self._anonymous = anonymous

    def encode(self, event: FaceEvent, seq: int) -> bytes:
        """Return the event as JSON without the two fields that `stamp` adds.

        Values that are not finite become null: a decision is never lost to a NaN.

        Raises:
            ValueError: The event is not what `edge.core.types` says, such as a camera that is no slug.
        """
        decided = DecidedEvent(
            event_type=event.event_type,
            event_id=event.event_id,
            seq=seq,
            boot_id=self._boot_id,
            site=self._site,
            device=self._device,
            camera=event.camera,
            visit=event.visit,
            captured_at=to_millisecond(event.captured_at),
            clock=self._clock(),
            monotonic_ms=int(event.monotonic_s * 1e3),
            revises=event.revises,
            subject=self.subject(event.subject),
            score=_score(event.score),
            reason=event.reason,
            shots=ShotsPart(used=event.shots.used, seen=event.shots.seen, refused=dict(event.shots.refused)),
            quality=_quality(event.quality),
            liveness=_liveness(event.liveness),
            bbox=None if self._anonymous else _box(event.box),
            model=ModelPart(
                embedder=event.model.embedder,
                sha256=event.model.sha256,
                gallery_version=event.model.gallery_version,
            ),
            latency_ms=_latency(event.latency),
            remote=event.remote,
        )
        return encode(decided)

    def subject(self, subject: Subject | None) -> SubjectPart | None:
        """Return what may be published about a subject."""
        if subject is None:
            return None
        label = None if self._anonymous else subject.label
        return SubjectPart(id=subject.subject_id, label=label, groups=subject.groups)


def encode(payload: Payload) -> bytes:
    """Return a payload as UTF-8 JSON."""
    return payload.model_dump_json().encode()


def stamp(decided: bytes, published_at: datetime, *, replayed: bool) -> bytes:
    """Complete an encoded event for sending now: the bytes of an `EventPayload`."""
    late = b"true" if replayed else b"false"
    return b'%b,"published_at":"%b","replayed":%b}' % (decided[:-1], timestamp(published_at).encode(), late)


def to_millisecond(at: datetime) -> datetime:
    """Return `at` in UTC, cut to the millisecond that a payload can hold."""
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _rounded(
    value: float | None, digits: int, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """Return `value` within [low, high], rounded; None where it is not a number."""
    if value is None or not math.isfinite(value):
        return None
    return round(min(max(float(value), low), high), digits)


def _score(score: Score | None) -> ScorePart | None:
    if score is None:
        return None
    return ScorePart(
        best=_rounded(score.best, 4, -1, 1),
        second=_rounded(score.second, 4, -1, 1),
        threshold=_rounded(score.threshold, 4),
        margin=_rounded(score.margin, 4),
        target_fpir=_rounded(score.target_fpir, 9, 0, 1),
        gallery_size=score.gallery_size,
    )


def _quality(quality: Quality | None) -> QualityPart | None:
    if quality is None:
        return None
    return QualityPart(
        face_px=_rounded(quality.face_px, 0),
        sharpness=_rounded(quality.sharpness, 3, 0, 1),
        yaw_deg=_rounded(quality.yaw_deg, 1),
        exposure=_rounded(quality.exposure, 3, 0, 1),
        lifted=_rounded(quality.lifted, 1, 1),
        recognisability=_rounded(quality.recognisability, 3, 0, 1),
    )


def _liveness(check: LivenessCheck) -> LivenessPart | NoLivenessPart:
    if check.method == "none":
        return NoLivenessPart()
    return LivenessPart(method=check.method, score=_rounded(check.score, 4, 0, 1))


def _box(box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
    if box is None or not all(math.isfinite(value) for value in box):
        return None
    x, y, width, height = (round(min(max(float(value), 0.0), 1.0), 4) for value in box)
    return x, y, width, height


def _latency(latency: Latency | None) -> LatencyPart | None:
    if latency is None:
        return None
    return LatencyPart(
        capture_to_decision=_rounded(latency.capture_to_decision_ms, 1, 0),
        detect=_rounded(latency.detect_ms, 2, 0),
        embed=_rounded(latency.embed_ms, 2, 0),
        match=_rounded(latency.match_ms, 3, 0),
    )
