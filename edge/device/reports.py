"""What the device tells about itself: `info` (what runs here), `gallery/reported`, `health` (how it runs).

Only reads; the daemon decides when it is told.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from edge import __version__
from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.process import boot_id, clock_synced, rss_mb, temperature_c, throttled_by
from edge.core.threads import Beats
from edge.device.assembly.recognizer import liveness_policy, visit_rule
from edge.device.settings.load import Settings
from edge.device.sync.outcome import MAX_ERROR_CHARS, SyncOutcome
from edge.face.detector import Detector
from edge.face.embedder import Embedder
from edge.face.liveness import LivenessNetwork
from edge.gallery.decision import ThresholdShift
from edge.gallery.gallery import Gallery
from edge.mqtt.contract.encode import to_millisecond
from edge.mqtt.contract.messages import (
    CameraHealth,
    CandidatePayload,
    DeviceHealth,
    GalleryReportedPayload,
    HealthPayload,
    InfoPayload,
    LinkHealth,
    ModelInfo,
    OutboxHealth,
    Percentiles,
    ShiftInfo,
)
from edge.mqtt.contract.problems import REMEDIES, DoorProblem
from edge.mqtt.contract.topics import LIVE_S
from edge.mqtt.delivery.sender import LIVE_LATE, LIVE_MISSED
from edge.recognition.candidate import AGREED, DIFFERED
from edge.recognition.inference import FRAMES_LATE, PASSED_OVER
from edge.recognition.pipeline import CAPTURE_TO_DECISION, FAR_BEHIND, LIVENESS_FAILED
from edge.recognition.recognizer import Recognizer

RECENT_S = 120.0
"""How long a problem stands that is seen by what happens: seconds since it happened last."""

RECENT_PROBLEMS = {
    DoorProblem.LIVE_LATE: LIVE_LATE,
    DoorProblem.LIVE_MISSED: LIVE_MISSED,
    DoorProblem.FRAMES_LATE: FRAMES_LATE,
    DoorProblem.FAR_SEARCH_BEHIND: FAR_BEHIND,
    DoorProblem.LIVENESS_FAILING: LIVENESS_FAILED,
}
"""The counter, or the beginning of the names of the counters, that each of these problems is seen by."""

SELDOM_HZ, WINDOW_S = 4.0, 10.0
"""Looks a second below which people who walk by are not followed (edge/README.md), and over how many seconds
they are counted."""

CLOCK_GRACE_S = 600.0
"""How long after the start a time source may take to set the clock."""

BOARD_EVERY_S = 10.0
"""Between two looks at whether the board makes itself slower: a Raspberry Pi is asked by a program."""


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
            use: ModelInfo(id=each.model_id, sha256=each.sha256)
            for use, each in models_in_use(recognizer).items()
        },
        embedder_choice=recognizer.embedder_choice,
        execution_provider=recognizer.embedder.provider,
        execution_providers=execution_providers(recognizer),
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


def models_in_use(recognizer: Recognizer) -> dict[str, Detector | Embedder | LivenessNetwork]:
    """Return what is asked, by use: detector, embedder, and liveness, liveness-2 and so on."""
    networks = recognizer.liveness.networks if recognizer.liveness else ()
    return {
        "detector": recognizer.detector,
        "embedder": recognizer.embedder,
        **{f"liveness-{place}" if place > 1 else "liveness": each for place, each in enumerate(networks, 1)},
    }


def execution_providers(recognizer: Recognizer) -> dict[str, str]:
    """Return what each of `models_in_use` runs on now, as onnxruntime calls it."""
    return {use: each.provider for use, each in models_in_use(recognizer).items()}


def runs_elsewhere(settings: Settings, recognizer: Recognizer) -> list[DoorProblem]:
    """Return the problem that a model does not run on what the settings name first, if one does not."""
    wanted = settings.recognition.runs_on[0].execution_provider
    used = set(execution_providers(recognizer).values())
    return [DoorProblem.PROVIDER_REFUSED] if used != {wanted} else []


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
    """Reads the process's figures, and finds what an operator has to mend.

    Rates are those since the last message. `board` says why the board makes itself slower, `synced` whether
    a time source sets the clock.
    """

    def __init__(
        self,
        metrics: Metrics,
        beats: Beats,
        clock: Clock,
        *,
        board: Callable[[], tuple[str, ...] | None] = throttled_by,
        synced: Callable[[], bool | None] = clock_synced,
    ) -> None:
        self._metrics, self._beats, self._clock = metrics, beats, clock
        self._board, self._synced = board, synced
        self._started_s = clock.monotonic()
        self._read_s = self._started_s
        self._frames: dict[str, int] = {}
        self._delivered: dict[str, int] = {}
        self._counted = dict.fromkeys(RECENT_PROBLEMS, 0)
        self._grew_s: dict[DoorProblem, float] = {}
        self._window = (self._started_s, self._frames, self._delivered)
        self._seldom_since_s: dict[str, float] = {}
        self._board_read_s, self._throttled_by = -float("inf"), board()

    def problems(
        self,
        replaced: Mapping[str, int],
        outbox: OutboxHealth,
        problems: Sequence[str] = (),
        faults: Mapping[str, Sequence[str]] | None = None,
    ) -> list[str]:
        """Return what an operator has to mend: `problems`, `faults` of cameras, and what is found here."""
        now_s, counters = self._clock.monotonic(), self._metrics.counts()
        found: list[str] = [*problems, *(each for those in (faults or {}).values() for each in those)]
        found += self._of_late(now_s, counters)
        slow_ms = self._metrics.p95_ms(CAPTURE_TO_DECISION, RECENT_S)
        found += [DoorProblem.DECISIONS_SLOW] if slow_ms is not None and slow_ms > LIVE_S * 1e3 else []
        found += [DoorProblem.LOOKS_SELDOM] if self._looks_seldom(now_s, counters, replaced) else []
        found += [] if outbox.durable else [DoorProblem.DISK_REFUSED]
        found += [DoorProblem.JOURNAL_REFUSED] if outbox.refused else []
        if now_s - self._started_s >= CLOCK_GRACE_S and self._synced() is False:
            found.append(DoorProblem.CLOCK_UNSYNCED)
        if now_s - self._board_read_s >= BOARD_EVERY_S:
            self._board_read_s, self._throttled_by = now_s, self._board()
        found += [DoorProblem.THROTTLED] if self._throttled_by else []
        return list(dict.fromkeys(found))

    def health(
        self,
        last_frame_s: Mapping[str, float | None],
        replaced: Mapping[str, int],
        outbox: OutboxHealth,
        mqtt: LinkHealth,
        problems: Sequence[str] = (),
        faults: Mapping[str, Sequence[str]] | None = None,
    ) -> HealthPayload:
        """Return how the daemon runs; `problems` and `faults` (by camera) are words for what is to be mended.

        `last_frame_s` is when each camera delivered last (monotonic), `replaced` how many of its frames
        were overtaken by a newer one before inference took them.
        """
        now_s, counters = self._clock.monotonic(), self._metrics.counts()
        frames, delivered = _looked_at_and_delivered(counters, last_frame_s, replaced)
        elapsed_s = max(1e-3, now_s - self._read_s)
        fps = _rates(frames, self._frames, elapsed_s)
        given = _rates(delivered, self._delivered, elapsed_s)
        self._read_s, self._frames, self._delivered = now_s, frames, delivered
        found = self.problems(replaced, outbox, problems, faults)
        return HealthPayload(
            at=to_millisecond(self._clock.now()),
            clock="synced" if self._synced() and DoorProblem.CLOCK_BEHIND not in found else "unsynced",
            uptime_s=round(now_s - self._started_s, 1),
            rss_mb=round(rss_mb(), 1),
            temperature_c=temperature_c(),
            late=tuple(self._beats.late()),
            problems=tuple(found),
            remedies={each: REMEDIES[each] for each in found},
            device=DeviceHealth(
                throttled=None if self._throttled_by is None else bool(self._throttled_by),
                throttled_by=self._throttled_by or (),
            ),
            cameras={
                camera: CameraHealth(
                    looked_at_hz=fps[camera],
                    delivered_hz=given[camera],
                    problems=tuple((faults or {}).get(camera, ())),
                )
                for camera in last_frame_s
            },
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

    def _of_late(self, now_s: float, counters: Mapping[str, int]) -> list[DoorProblem]:
        """Return the problems whose counters have grown in the last `RECENT_S`."""
        counted = {
            problem: sum(number for name, number in counters.items() if name.startswith(prefix))
            for problem, prefix in RECENT_PROBLEMS.items()
        }
        counted[DoorProblem.LIVE_MISSED] -= counted[DoorProblem.LIVE_LATE]  # which are counted as both
        for problem, count in counted.items():
            if count > self._counted[problem]:
                self._grew_s[problem] = now_s
        self._counted = counted
        return [problem for problem, grew_s in self._grew_s.items() if now_s - grew_s < RECENT_S]

    def _looks_seldom(self, now_s: float, counters: Mapping[str, int], replaced: Mapping[str, int]) -> bool:
        """Return whether a camera that gives more is looked at less than `SELDOM_HZ`, for `RECENT_S` now."""
        since_s, looked_before, given_before = self._window
        if now_s - since_s >= WINDOW_S:
            looked, given = _looked_at_and_delivered(counters, replaced, replaced)
            for camera in replaced:
                looks = looked[camera] - looked_before.get(camera, 0)
                most = min(SELDOM_HZ * (now_s - since_s), given[camera] - given_before.get(camera, 0))
                if looks >= 0.9 * most:
                    self._seldom_since_s.pop(camera, None)
                else:
                    self._seldom_since_s.setdefault(camera, since_s)
            self._window = (now_s, looked, given)
        return any(now_s - begun_s >= RECENT_S for begun_s in self._seldom_since_s.values())


def _looked_at_and_delivered(
    counters: Mapping[str, int], cameras: Iterable[str], replaced: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many frames of each camera were looked at, and how many it gave."""
    looked = {camera: counters.get(f"frames.{camera}", 0) for camera in cameras}
    given = {
        camera: number + replaced.get(camera, 0) + counters.get(f"{PASSED_OVER}{camera}", 0)
        for camera, number in looked.items()
    }
    return looked, given


def _rates(now: Mapping[str, int], before: Mapping[str, int], elapsed_s: float) -> dict[str, float]:
    return {name: round(max(0, count - before.get(name, 0)) / elapsed_s, 1) for name, count in now.items()}
