"""One camera's road from a frame to its events: gate, detect, track, embed, match, decide.

Detection runs on every frame that shows motion; embedding only on the best shots of visits that are not
decided. Owns what is remembered between frames of this camera; publishes nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge.camera.motion import MotionGate
from edge.core.errors import ModelError
from edge.core.metrics import Metrics
from edge.core.types import (
    Decision,
    Detection,
    EventType,
    FaceEvent,
    Frame,
    Image,
    Latency,
    LivenessCheck,
    Refusal,
    Track,
)
from edge.gallery.store.kept_visits import KeptVisit
from edge.recognition.candidate import CandidateComparison
from edge.recognition.presence import Presence
from edge.recognition.recognizer import Recognizer
from edge.recognition.remote_answers import RemoteAnswers
from edge.recognition.tracker import Tracker
from edge.recognition.visit import Visit, VisitRule

log = logging.getLogger(__name__)

STEP_BACK_S = 1.0
"""Frames that lie this far before the last one belong to another run of the camera: a clip begun anew."""

NewId = Callable[[], str]


class Pipeline:
    """The state of one camera. Called by one thread.

    `gate` is None where every frame is to be searched. `clock` gives monotonic seconds. With `live` it is
    the clock that stamped the frames; in replays faster than life the latency is the processing time alone.
    `keep_visit` gets strangers' visits and matches when they end, and must not block.
    """

    def __init__(
        self,
        camera: str,
        rule: VisitRule,
        *,
        gate: MotionGate | None,
        metrics: Metrics,
        new_event_id: NewId,
        new_visit_id: NewId,
        clock: Callable[[], float],
        live: bool = True,
        keep_visit: Callable[[KeptVisit], None] | None = None,
    ) -> None:
        self._keep_visit = keep_visit
        self.camera = camera
        self._gate = gate
        self._metrics = metrics
        self._new_event_id = new_event_id
        self._clock = clock
        self._live = live
        self._tracker = Tracker()
        self._presence = Presence(rule, new_visit_id)
        self._recognizer: Recognizer | None = None
        self._last_frame: Frame | None = None
        self._detect_ms = self._embed_ms = self._match_ms = 0.0
        self._tracks: list[Track] = []
        self._unable: str | None = None  # the liveness model whose failure was told
        self._candidate = CandidateComparison(camera, metrics)
        self._remote_answers = RemoteAnswers(metrics, live=live)

    def process(self, frame: Frame, recognizer: Recognizer) -> list[FaceEvent]:
        """Take a frame, in the order of `monotonic_s`, and return what became certain by it, in order.

        Where time steps back, everybody leaves, and the frame is the price.
        """
        if self._last_frame is not None and frame.monotonic_s < self._last_frame.monotonic_s - STEP_BACK_S:
            left = self.flush(recognizer)
            self._last_frame = None
            return left
        started_s = self._clock()
        captured_s = min(started_s, frame.monotonic_s) if self._live else started_s
        self._detect_ms = self._embed_ms = self._match_ms = 0.0
        self._last_frame = frame
        if recognizer is not self._recognizer:
            self._take_over(frame, recognizer)
        self._tracks = self._follow(frame, recognizer)
        if not self._tracks and not self._presence.visits:
            return []
        for visit, track in self._presence.follow(self._tracks):
            if visit.wants_shot(track, frame.monotonic_s):
                self._look(frame, visit, track, recognizer)
        return self._conclude(frame, recognizer, captured_s)

    def tick(self, at_s: float, recognizer: Recognizer) -> list[FaceEvent]:
        """Let time pass without a frame: the camera is silent, so nobody is seen any more."""
        if self._last_frame is None:
            return []
        self._tracks = self._tracker.update([], at_s)
        self._presence.follow(self._tracks)
        return self._conclude(self._last_frame, recognizer, None, at_s)

    def flush(self, recognizer: Recognizer) -> list[FaceEvent]:
        """End all visits: the clip is over or the camera is being removed."""
        if self._last_frame is None:
            return []
        self._presence.leave()
        self._tracker, self._tracks = Tracker(), []
        return self._conclude(self._last_frame, recognizer, None)

    def use(self, rule: VisitRule) -> None:
        """Conclude visits that begin from now on by another rule."""
        self._presence.use(rule)

    @property
    def picture(self) -> Image | None:
        """The last frame, BGR, None before the first. May be read by another thread."""
        frame = self._last_frame
        return None if frame is None else frame.image

    def scene(self) -> list[tuple[Track, FaceEvent | None]]:
        """Return the tracks of the last frame, each with the event that decided its visit so far."""
        decided = {visit.track_id: visit.event for visit in self._presence.visits if visit.on_track}
        return [(track, decided.get(track.track_id)) for track in self._tracks if not track.ended]

    def _follow(self, frame: Frame, recognizer: Recognizer) -> list[Track]:
        with self._metrics.timed("gate"):
            still = self._gate is not None and not self._gate.passes(frame)
        if still and not self._presence.due(frame.monotonic_s):
            return self._tracker.hold(frame.monotonic_s)
        with self._metrics.timed("detect") as watch:
            detections = recognizer.detect(frame.image)
        self._detect_ms = watch.spent_ms
        with self._metrics.timed("track"):
            return self._tracker.update(detections, frame.monotonic_s)

    def _look(self, frame: Frame, visit: Visit, track: Track, recognizer: Recognizer) -> None:
        if track.detection is None:
            return
        with self._metrics.timed("align"):
            face = recognizer.align(frame.image, track.detection)
        if face.quality.refused is not None:
            visit.refuse(face.quality, track.detection, frame.monotonic_s)
            self._metrics.count(f"shots.refused.{face.quality.refused}")
            return
        liveness = self._liveness(frame, track.detection, recognizer)
        if liveness is None and visit.rule.live_from is not None:
            visit.refuse(replace(face.quality, refused=Refusal.LIVENESS), track.detection, frame.monotonic_s)
            self._metrics.count(f"shots.refused.{Refusal.LIVENESS}")
            return
        with self._metrics.timed("embed") as watch:
            probe = recognizer.embed(face, liveness)
        self._embed_ms += watch.spent_ms
        self._candidate.look(frame, visit, face, recognizer)
        visit = self._presence.add(visit, probe, frame.monotonic_s)
        self._identify(visit, frame, recognizer)

    def _liveness(self, frame: Frame, detection: Detection, recognizer: Recognizer) -> float | None:
        """Return a shot's liveness in [0, 1]; None without a model or where it failed, told once."""
        if recognizer.liveness is None:
            return None
        try:
            with self._metrics.timed("liveness"):
                return recognizer.liveness_of(frame.image, detection)
        except ModelError as error:
            self._metrics.count("liveness.failed")
            if self._unable != recognizer.liveness.model_id:
                self._unable = recognizer.liveness.model_id
                log.error("liveness cannot be measured: %s", error, extra={"camera": self.camera})
            return None

    def _identify(self, visit: Visit, frame: Frame, recognizer: Recognizer) -> None:
        evidence = visit.evidence
        if evidence is not None:
            with self._metrics.timed("match") as watch:
                match = recognizer.match(evidence, frame.captured_at)
            self._match_ms += watch.spent_ms
            with self._metrics.timed("decide"):
                visit.latest = recognizer.decide(match)

    def _take_over(self, frame: Frame, recognizer: Recognizer) -> None:
        """Ask a gallery that has just arrived about everybody whom the old one did not recognise.

        Evidence of another embedder cannot be compared any more: it is gathered anew.
        """
        for visit in self._presence.visits:
            if visit.shots and visit.shots[0].model_id != recognizer.embedder.model_id:
                visit.forget()
            elif visit.decision is None or visit.revisable:
                self._identify(visit, frame, recognizer)
        self._recognizer = recognizer

    def _conclude(
        self, frame: Frame, recognizer: Recognizer, captured_s: float | None, at_s: float | None = None
    ) -> list[FaceEvent]:
        """Return what is to be told of the visits, in order.

        A visit that cannot be told neither takes back what was decided about the others nor holds it up.
        """
        events: list[FaceEvent] = []
        failed: Exception | None = None
        at_s = frame.monotonic_s if at_s is None else at_s
        for visit, decision in self._presence.conclude(at_s):
            try:
                events += self._tell(frame, visit, decision, recognizer, captured_s, at_s)
            except Exception as error:
                failed = failed or error
        self._remote_answers.keep(self._presence.visits)
        if failed is not None and not events:
            raise failed
        if failed is not None:
            log.error("a visit could not be told", exc_info=failed, extra={"camera": self.camera})
        return events

    def _tell(
        self,
        frame: Frame,
        visit: Visit,
        local: Decision | None,
        recognizer: Recognizer,
        captured_s: float | None,
        at_s: float,
    ) -> list[FaceEvent]:
        """Return the event of a decision, or of the end of a visit; none while the visit waits."""
        if local is None:
            self._keep(visit, frame)
            told = self._event(frame, visit, None, recognizer, None)
        else:
            outcome = self._remote_answers.settle(visit, local, frame.captured_at, at_s, recognizer)
            if outcome is None:
                return []
            latency = None if captured_s is None else self._latency(captured_s)
            told = self._event(frame, visit, outcome.decision, recognizer, latency)
            told = replace(told, remote=outcome.remote)
            self._candidate.compare(visit, outcome.decision, frame.captured_at, recognizer)
            visit.publish(outcome.decision, told)
        self._metrics.count(f"events.{told.event_type}")
        return [told]

    def _keep(self, visit: Visit, frame: Frame) -> None:
        """Hand over a visit that has ended, if it is one to keep."""
        told, evidence = visit.decision, visit.evidence
        if self._keep_visit is None or told is None or evidence is None:
            return
        kept = KeptVisit.of(visit.visit_id, self.camera, frame.captured_at, evidence, told)
        if kept is not None:
            self._keep_visit(kept)

    def _latency(self, captured_s: float) -> Latency:
        total_ms = (self._clock() - captured_s) * 1e3
        self._metrics.record_ms("capture_to_decision", total_ms)
        return Latency(total_ms, self._detect_ms, self._embed_ms, self._match_ms)

    def _event(
        self,
        frame: Frame,
        visit: Visit,
        decision: Decision | None,
        recognizer: Recognizer,
        latency: Latency | None,
    ) -> FaceEvent:
        """Write down what is known about a visit; without a decision: that it has ended."""
        told = decision or visit.decision
        judge = recognizer.liveness
        return FaceEvent(
            event_id=self._new_event_id(),
            event_type=decision.event_type if decision else EventType.LEFT,
            camera=self.camera,
            visit=visit.visit_id,
            captured_at=frame.captured_at,
            monotonic_s=frame.monotonic_s,
            subject=told.subject if told else None,
            reason=decision.reason if decision else None,
            score=decision.score if decision else None,
            shots=visit.counts,
            quality=visit.quality,
            box=_relative(visit, frame),
            model=recognizer.stamp,
            latency=latency,
            revises=visit.event.event_id if decision and visit.event else None,
            liveness=LivenessCheck(judge.name, visit.liveness) if judge else LivenessCheck(),
        )


def _relative(visit: Visit, frame: Frame) -> tuple[float, float, float, float]:
    """Return the visit's box as (x, y, width, height) in fractions of the frame."""
    height, width = frame.image.shape[:2]
    x1, y1, x2, y2 = np.clip(visit.box / np.array([width, height, width, height], np.float32), 0, 1)
    return float(x1), float(y1), float(x2 - x1), float(y2 - y1)
