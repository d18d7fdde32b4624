"""What the device tells about itself: `info` (what runs here), `gallery/reported`, `health` (how it runs).

Only reads; the daemon decides when it is told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from edge import __version__
from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.process import boot_id, clock_synced, rss_mb, temperature_c
from edge.core.threads import Beats
from edge.device.assembly.recognizer import liveness_policy, visit_rule
from edge.device.settings.load import Settings
from edge.device.sync.outcome import MAX_ERROR_CHARS, SyncOutcome
from edge.face.liveness import Liveness
from edge.gallery.decision import ThresholdShift
from edge.gallery.gallery import Gallery
from edge.mqtt.contract.encode import to_millisecond
from edge.mqtt.contract.messages import (
    CandidatePayload,
    GalleryReportedPayload,
    HealthPayload,
    InfoPayload,
    LinkHealth,
    ModelInfo,
    OutboxHealth,
    Percentiles,
    ShiftInfo,
)
from edge.mqtt.delivery.sender import LIVE_LATE
from edge.recognition.candidate import AGREED, DIFFERED
from edge.recognition.pipeline import FAR_BEHIND
from edge.recognition.recognizer import Recognizer


def info(
    settings: Settings, recognizer: Recognizer, clock: Clock, config_version: int | None = None
) -> InfoPayload:
    """Return what runs here: models, gallery, threshold in force now for those who may pass."""
    now = clock.now()
    _, comparisons = recognizer.admission.scope(now)
    rule = recognizer.rule
    liveness = recognizer.liveness
    return InfoPayload(
        site=settings.site,
        device=settings.device,
        version=__version__,
        boot_id=boot_id(),
        at=to_millisecond(now),
        cameras=tuple(settings.cameras),
        models={
            "detector": ModelInfo(id=recognizer.detector.model_id, sha256=recognizer.detector.sha256),
            "embedder": ModelInfo(id=recognizer.embedder.model_id, sha256=recognizer.embedder.sha256),
        }
        | _liveness_models(liveness),
        embedder_choice=recognizer.embedder_choice,
        execution_provider=recognizer.embedder.provider,
        gallery_version=recognizer.stamp.gallery_version,
        gallery_size=recognizer.matcher.gallery.size,
        config_version=config_version,
        threshold=round(rule.threshold_for(comparisons), 4),
        shift=_shift(rule.shift_for(comparisons)),
        target_fpir=rule.target_fpir,
        liveness=liveness_policy(settings) if liveness else "off",
        live_from=visit_rule(settings).live_from,
        anonymous=settings.privacy.anonymous,
    )


def _shift(shift: ThresholdShift | None) -> ShiftInfo | None:
    if shift is None:
        return None
    rounded = {name: None if value is None else round(value, 4) for name, value in asdict(shift).items()}
    return ShiftInfo.model_validate(rounded)


def _liveness_models(liveness: Liveness | None) -> dict[str, ModelInfo]:
    """Return the networks that are asked for it: liveness, liveness-2 and so on."""
    networks = liveness.networks if liveness else ()
    return {
        f"liveness-{place}" if place > 1 else "liveness": ModelInfo(id=each.model_id, sha256=each.sha256)
        for place, each in enumerate(networks, start=1)
    }


def gallery_report(
    outcome: SyncOutcome,
    gallery: Gallery,
    at: datetime,
    *,
    scope: str | None = None,
    published: int | None = None,
    revoked_applied_at: datetime | None = None,
    candidate: CandidatePayload | None = None,
    embedders: Iterable[str] | None = None,
) -> GalleryReportedPayload:
    """Return what is published about a synchronisation, with the gallery that serves after it."""
    return GalleryReportedPayload(
        at=to_millisecond(at),
        scope=scope,
        status=outcome.status,
        published=published,
        version=gallery.version,
        count=gallery.size,
        model_id=gallery.model_id,
        not_after=None if gallery.not_after is None else to_millisecond(gallery.not_after),
        revoked_applied_at=None if revoked_applied_at is None else to_millisecond(revoked_applied_at),
        candidate=candidate,
        rights=outcome.rights,
        embedders=None if embedders is None else tuple(sorted(embedders)),
        synchronised_at=None if outcome.at is None else to_millisecond(outcome.at),
        reason=outcome.reason,
        error=outcome.error[:MAX_ERROR_CHARS] if outcome.error else None,
    )


def candidate_report(
    candidate: Recognizer, counters: Mapping[str, int], published: int | None = None
) -> CandidatePayload:
    """Return what is published about the candidate, `published` as which version by the fleet."""
    return CandidatePayload(
        published=published,
        version=candidate.matcher.gallery.version,
        count=candidate.matcher.gallery.size,
        model_id=candidate.embedder.model_id,
        agreed=counters.get(AGREED, 0),
        differed=counters.get(DIFFERED, 0),
    )


class Vitals:
    """Reads the process's figures; frame rates are those since the last reading."""

    def __init__(self, metrics: Metrics, beats: Beats, clock: Clock) -> None:
        self._metrics, self._beats, self._clock = metrics, beats, clock
        self._started_s = clock.monotonic()
        self._read_s = self._started_s
        self._frames: dict[str, int] = {}
        self._grew = {"far_search_behind": FAR_BEHIND, "live_late": LIVE_LATE}
        self._counted = dict.fromkeys(self._grew, 0)

    def health(
        self,
        last_frame_s: Mapping[str, float | None],
        replaced: Mapping[str, int],
        outbox: OutboxHealth,
        mqtt: LinkHealth,
        problems: Sequence[str] = (),
    ) -> HealthPayload:
        """Return how the daemon runs; `problems` are words for what an operator has to mend.

        Added are `far_search_behind` and `live_late` where the search has fallen behind, or live events were
        too late to be sent, since the last reading; `disk_refused` and `journal_refused` while that is so.
        `last_frame_s` is when each camera delivered last (monotonic), `replaced` how many of its frames
        were overtaken by a newer one before inference took them.
        """
        now_s = self._clock.monotonic()
        counters = self._metrics.counts()
        frames = {camera: counters.get(f"frames.{camera}", 0) for camera in last_frame_s}
        elapsed_s = max(1e-3, now_s - self._read_s)
        fps = {
            camera: round((number - self._frames.get(camera, 0)) / elapsed_s, 1)
            for camera, number in frames.items()
        }
        self._read_s, self._frames = now_s, frames
        problems = [*problems, *self._have_grown(counters)]
        problems += [] if outbox.durable else ["disk_refused"]
        problems += ["journal_refused"] if outbox.refused else []
        return HealthPayload(
            at=to_millisecond(self._clock.now()),
            clock="synced" if clock_synced() and "clock_behind" not in problems else "unsynced",
            uptime_s=round(now_s - self._started_s, 1),
            rss_mb=round(rss_mb(), 1),
            temperature_c=temperature_c(),
            late=tuple(self._beats.late()),
            problems=tuple(problems),
            fps=fps,
            frame_age_s={
                camera: None if at_s is None else round(max(0.0, now_s - at_s), 3)
                for camera, at_s in last_frame_s.items()
            },
            stages_ms={name: Percentiles(**those) for name, those in self._metrics.percentiles_ms().items()},
            counters=counters | {f"frames.replaced.{name}": number for name, number in replaced.items()},
            outbox=outbox,
            mqtt=mqtt,
        )

    def _have_grown(self, counters: Mapping[str, int]) -> list[str]:
        """Return the problems whose counters are higher than at the last reading."""
        grown = []
        for problem, prefix in self._grew.items():
            count = sum(number for name, number in counters.items() if name.startswith(prefix))
            grown += [problem] if count > self._counted[problem] else []
            self._counted[problem] = count
        return grown
