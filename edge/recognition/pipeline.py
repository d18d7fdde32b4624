"""One camera's road from a frame to its events: gate, detect, track, look, conclude.

Detection runs on every frame that shows motion; embedding on the best shots of visits that are not decided,
and once a second at most on a face that is: somebody else may have taken its place. Owns what is remembered
between frames of this camera; publishes nothing. What accompanies the visits besides is an observer's
business (`observer`).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from edge.camera.motion import REFRESH_S, MotionGate
from edge.camera.view import ViewFault, ViewWatch
from edge.core.errors import ModelError, ToldOnce
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
    Quality,
    Refusal,
    Track,
)
from edge.face.far_search import FarSearch, covers, same_place
from edge.recognition.attention import Attention
from edge.recognition.observer import VisitObserver
from edge.recognition.presence import Presence
from edge.recognition.recognizer import Recognizer
from edge.recognition.tracker import Expected, Tracker
from edge.recognition.visit import Visit, VisitRule

log = logging.getLogger(__name__)

STEP_BACK_S = 1.0
"""Frames that lie this far before the last one belong to another run of the camera: a clip begun anew."""

FAR_REDUCTION = 0.4
"""Frames whose sides are reduced below this share of their length are searched for far faces besides."""

FAR_BEHIND = "far.behind."
"""Counter, with the name of the camera, of frames in which the search for far faces was behind."""

LIVENESS_FAILED = "liveness.failed"
"""Counter of faces whose liveness could not be measured."""

CAPTURE_TO_DECISION = "capture_to_decision"
"""Histogram of the time from the frame that brought a decision to the decision."""

MOST_LOOKS = 3
"""Far faces that are followed are looked for in one frame, at most."""

FOLLOW_S = 0.1
"""A far face that was seen is not looked for again before: a visit takes no more shots than that."""

NewId = Callable[[], str]


class Pipeline:
    """The state of one camera. Called by one thread.

    `motion` is None where every frame is to be searched, `view` where nobody asks whether the camera's view
    can be used. `clock` gives monotonic seconds. With `live` it is the clock that stamped the frames; in
    replays faster than life the latency is the processing time alone.
    """

    def __init__(
        self,
        camera: str,
        rule: VisitRule,
        *,
        motion: MotionGate | None,
        view: ViewWatch | None = None,
        observer: VisitObserver,
        metrics: Metrics,
        new_event_id: NewId,
        new_visit_id: NewId,
        clock: Callable[[], float],
        live: bool = True,
    ) -> None:
        self.camera = camera
        self._motion = motion
        self._view = view
        self._observer = observer
        self._metrics = metrics
        self._new_event_id = new_event_id
        self._clock = clock
        self._live = live
        self._tracker = Tracker()
        self._presence = Presence(rule, new_visit_id)
        self._recognizer: Recognizer | None = None
        self._last_frame: Frame | None = None
        self._captured_s: float | None = None  # of the frame in work; None: the latency is not told
        self._detect_ms = self._embed_ms = self._match_ms = 0.0
        self._tracks: list[Track] = []
        self._unable = ToldOnce()  # about liveness models that failed
        self._attention = Attention()
        self._looked_s = -np.inf  # when the faces that are followed were looked at, still ones too
        self._turn = 0  # of those who are looked for one after the other
        self._unsearched: set[int] = set()  # tracks whose faces were not looked for in the frame in work
        self._looks = 0  # at faces that are followed, in the frame in work
        self._put_off = False  # whether the last frame left the search of regions to this one

    def process(self, frame: Frame, recognizer: Recognizer) -> list[FaceEvent]:
        """Take a frame, in the order of `monotonic_s`, and return what became certain by it, in order.

        Where time steps back, everybody leaves, and the frame is the price. While the camera's view is of no
        use, nobody is seen.
        """
        if self._steps_back(frame):
            return self._begin_anew(recognizer)
        if self._blind(frame):
            self._last_frame = frame
            return self.tick(frame.monotonic_s, recognizer)
        self._begin(frame, recognizer)
        moved = self._gate(frame)
        detections = self._detect(frame, recognizer) if moved else None
        self._tracks = self._track(frame, detections)
        self._notice_glimpses(frame, recognizer)
        self._look(frame, recognizer)
        return self._conclude(frame, recognizer, frame.monotonic_s)

    def tick(self, at_s: float, recognizer: Recognizer) -> list[FaceEvent]:
        """Let time pass without a frame: the camera is silent, so nobody is seen any more."""
        if self._last_frame is None:
            return []
        self._tracks = self._tracker.update([], at_s)
        self._notice_glimpses(self._last_frame, recognizer)
        self._presence.follow(self._tracks)
        self._captured_s = None
        return self._conclude(self._last_frame, recognizer, at_s)

    def flush(self, recognizer: Recognizer) -> list[FaceEvent]:
        """End all visits: the clip is over or the camera is being removed."""
        if self._last_frame is None:
            return []
        self._presence.leave()
        self._tracker, self._tracks = Tracker(), []
        self._captured_s = None
        return self._conclude(self._last_frame, recognizer, self._last_frame.monotonic_s)

    def use(self, rule: VisitRule) -> None:
        """Conclude visits that begin from now on by another rule."""
        self._presence.use(rule)

    @property
    def faults(self) -> tuple[ViewFault, ...]:
        """What is wrong with the camera's view. May be read by another thread."""
        return () if self._view is None else self._view.faults

    @property
    def picture(self) -> Image | None:
        """The last frame, BGR, None before the first. May be read by another thread."""
        frame = self._last_frame
        return None if frame is None else frame.image

    def scene(self) -> list[tuple[Track, FaceEvent | None]]:
        """Return the tracks of the last frame, each with the event that decided its visit so far."""
        decided = {visit.track_id: visit.event for visit in self._presence.visits if visit.on_track}
        return [(track, decided.get(track.track_id)) for track in self._tracks if not track.ended]

    def verdicts(self) -> dict[int, Quality]:
        """Return the quality of the last shot of each face, usable or not, by track."""
        return {visit.track_id: visit.judged for visit in self._presence.visits if visit.judged is not None}

    @property
    def live_from(self) -> float | None:
        """The liveness that a match needs, in (0, 1]; None: none."""
        return self._presence.rule.live_from

    def _steps_back(self, frame: Frame) -> bool:
        last = self._last_frame
        return last is not None and frame.monotonic_s < last.monotonic_s - STEP_BACK_S

    def _begin_anew(self, recognizer: Recognizer) -> list[FaceEvent]:
        """End all visits and forget the run of the camera that they belong to."""
        left = self.flush(recognizer)
        self._last_frame = None
        return left

    def _blind(self, frame: Frame) -> bool:
        """Return whether the view is of no use, after a look at it where it is time for one."""
        if self._view is None:
            return False
        with self._metrics.timed("view"):
            self._view.look(frame.image, frame.monotonic_s)
        return self._view.blind

    def _begin(self, frame: Frame, recognizer: Recognizer) -> None:
        """Note which frame is in work, and take over a recognizer that has just arrived."""
        started_s = self._clock()
        self._captured_s = min(started_s, frame.monotonic_s) if self._live else started_s
        self._detect_ms = self._embed_ms = self._match_ms = 0.0
        self._last_frame = frame
        if recognizer is not self._recognizer:
            self._take_over(frame, recognizer)

    def _gate(self, frame: Frame) -> bool:
        """Return whether the frame is to be searched: something moves, or somebody is due to be looked at.

        A face that was seen once is searched for again at once: it may be gone before the next refresh. So is
        one that was not looked for in the last frame.
        """
        with self._metrics.timed("gate"):
            moved = self._motion is None or self._motion.passes(frame)
        return moved or self._presence.due(frame.monotonic_s) or self._tracker.unsure

    def _detect(self, frame: Frame, recognizer: Recognizer) -> list[Detection]:
        """Return the faces of a frame: near ones from the reduced frame, far ones from parts of it."""
        self._unsearched.clear()
        far = recognizer.far if recognizer.detector.reduction(frame.image) < FAR_REDUCTION else None
        doubtful: list[Detection] = []
        with self._metrics.timed("detect") as watch:
            if far is None:
                detections = recognizer.detect(frame.image)
            else:
                detections, doubtful = recognizer.search(frame.image)
        self._detect_ms = watch.spent_ms
        if far is not None:
            with self._metrics.timed("far") as watch:
                detections = self._look_far(frame, far, detections, doubtful)
            self._detect_ms += watch.spent_ms
        return detections

    def _look_far(
        self, frame: Frame, far: FarSearch, near: list[Detection], doubtful: list[Detection]
    ) -> list[Detection]:
        """Return the faces found, and with them those that are too small on the reduced frame.

        Who is followed is looked for where he should be by now, in turn where there are many; others where
        the reduced frame shows what might be a face, and where something new moves.
        """
        found = list(near)
        followed = self._tracker.predicted(frame.monotonic_s)
        missed = [each for each in followed if not any(covers(face, each.box) for face in near)]
        for again in self._look_at_followed(frame, far, missed):
            if not any(same_place(again, other) for other in found):
                found.append(again)
        if self._motion is None:
            return found
        known = [face.box for face in found] + [each.box for each in followed]
        self._attention.notice(self._motion.movement, known, frame.image.shape, frame.monotonic_s)
        worth_it = [face for face in doubtful if far.may_be_large_enough(face)]
        for box in self._attention.doubtful(worth_it, known):
            self._metrics.count("far.doubtful")
            face = far.look(frame.image, box)
            if face is not None and not any(same_place(face, other) for other in found):
                found.append(face)
        for region in self._attention.regions() if self._may_search() else ():
            self._metrics.count("far.regions")
            for face in far.find(frame.image, region):
                if not any(same_place(face, other) for other in found):
                    found.append(face)
        if self._attention.behind:
            self._metrics.count(f"{FAR_BEHIND}{self.camera}")
        return found

    def _may_search(self) -> bool:
        """Return whether regions are searched in this frame: not where followed faces were looked at.

        The next frame then makes up for it, so that one frame does not pay for both.
        """
        self._put_off = self._looks > 0 and not self._put_off
        return not self._put_off

    def _look_at_followed(self, frame: Frame, far: FarSearch, missed: list[Expected]) -> Iterator[Detection]:
        """Yield the faces that are followed and too small for the reduced frame.

        Where nothing changed since the last frame, a face is where it was; once a second it is looked at.
        """
        movement = self._motion.movement if self._motion is not None else None
        believed = movement is not None and frame.monotonic_s - self._looked_s < REFRESH_S
        if not believed:
            self._looked_s = frame.monotonic_s
        self._looks = 0
        self._turn += 1
        for number in range(len(missed)):
            expected = missed[(self._turn + number) % len(missed)]
            seen = expected.seen
            lately = expected.reported and frame.monotonic_s - expected.seen_s < FOLLOW_S
            if believed and seen is not None and movement is not None and not movement.touches(seen.box):
                yield seen
            elif lately or self._looks == MOST_LOOKS:
                self._unsearched.add(expected.track_id)
            else:
                self._looks += 1
                self._metrics.count("far.looks")
                if (face := far.look(frame.image, expected.box)) is not None:
                    yield face

    def _track(self, frame: Frame, detections: list[Detection] | None) -> list[Track]:
        """Return the tracks after this frame; without detections they stay where they were."""
        if detections is None:
            return self._tracker.hold(frame.monotonic_s)
        with self._metrics.timed("track"):
            return self._tracker.update(detections, frame.monotonic_s, self._unsearched)

    def _notice_glimpses(self, frame: Frame, recognizer: Recognizer) -> None:
        """Begin visits of faces that were seen once, unless the detector was in doubt about them."""
        for track in self._tracker.glimpses:
            seen = track.detection
            if seen is not None and recognizer.gate.refuse(seen, frame.image.shape) != Refusal.SCORE:
                self._presence.glimpse(track)

    def _look(self, frame: Frame, recognizer: Recognizer) -> None:
        """Carry the tracks into their visits, and take the shots and looks that these want."""
        if not self._tracks and not self._presence.visits:
            return
        for visit, track in self._presence.follow(self._tracks):
            if track.detection is None:
                continue
            if visit.wants_shot(track, frame.monotonic_s):
                self._take_shot(frame, visit, track.detection, recognizer)
            elif visit.wants_look(track, frame.monotonic_s):
                self._look_again(frame, visit, track.detection, recognizer)

    def _take_shot(self, frame: Frame, visit: Visit, detection: Detection, recognizer: Recognizer) -> None:
        with self._metrics.timed("align"):
            face = recognizer.align(frame.image, detection)
        if face.quality.refused is not None:
            visit.refuse(face.quality, detection, frame.monotonic_s)
            self._metrics.count(f"shots.refused.{face.quality.refused}")
            return
        liveness = self._liveness(frame, detection, recognizer)
        if liveness is None and visit.rule.live_from is not None:
            reason = Refusal.LIVENESS if recognizer.tells_alive(detection) else Refusal.SIZE
            visit.refuse(replace(face.quality, refused=reason), detection, frame.monotonic_s)
            self._metrics.count(f"shots.refused.{reason}")
            return
        with self._metrics.timed("embed") as watch:
            probe = recognizer.embed(face, liveness)
        self._embed_ms += watch.spent_ms
        if probe.quality.refused is not None:
            visit.refuse(probe.quality, detection, frame.monotonic_s)
            self._metrics.count(f"shots.refused.{probe.quality.refused}")
            return
        self._observer.shot(frame, visit, face, recognizer)
        visit = self._presence.add(visit, probe, frame.monotonic_s)
        self._observer.added(frame, visit, probe, face)
        if visit.unasked:
            self._identify(visit, frame, recognizer)

    def _look_again(self, frame: Frame, visit: Visit, detection: Detection, recognizer: Recognizer) -> None:
        """Compare the face before a decided visit with it: somebody else may have taken its place."""
        with self._metrics.timed("align"):
            face = recognizer.align(frame.image, detection)
        probe = None
        if face.quality.refused is None:
            with self._metrics.timed("embed") as watch:
                probe = recognizer.embed(face)
            self._embed_ms += watch.spent_ms
            if probe.quality.refused is not None:
                probe = None
        visit.look(detection, probe, frame.monotonic_s)

    def _liveness(self, frame: Frame, detection: Detection, recognizer: Recognizer) -> float | None:
        """Return a shot's liveness in [0, 1]; None without a model, of a face too small, or where it failed.

        A failure is told once.
        """
        if recognizer.liveness is None:
            return None
        try:
            with self._metrics.timed("liveness"):
                return recognizer.liveness_of(frame.image, detection)
        except ModelError as error:
            self._metrics.count(LIVENESS_FAILED)
            if self._unable.is_new(recognizer.liveness.model_id):
                log.error("liveness cannot be measured: %s", error, extra={"camera": self.camera})
            return None

    def _identify(self, visit: Visit, frame: Frame, recognizer: Recognizer) -> None:
        evidence = visit.evidence
        if evidence is not None:
            with self._metrics.timed("match") as watch:
                match = recognizer.match(evidence, frame.captured_at)
            self._match_ms += watch.spent_ms
            with self._metrics.timed("decide"):
                latest = recognizer.decide(match)
                visit.answer(latest, recognizer.agreeing(visit.shots, latest))

    def _take_over(self, frame: Frame, recognizer: Recognizer) -> None:
        """Ask a gallery that has just arrived about everybody whom the old one did not recognise.

        Evidence of another embedder cannot be compared any more: it is gathered anew.
        """
        self._presence.agrees_from = recognizer.rule.agrees_from
        for visit in self._presence.visits:
            if visit.shots and visit.shots[0].model_id != recognizer.embedder.model_id:
                visit.forget()
            elif visit.decision is None or visit.revisable:
                self._identify(visit, frame, recognizer)
        self._recognizer = recognizer

    def _conclude(self, frame: Frame, recognizer: Recognizer, at_s: float) -> list[FaceEvent]:
        """Return what is to be told of the visits at a moment, in order.

        A visit that cannot be told neither takes back what was decided about the others nor holds it up.
        """
        events: list[FaceEvent] = []
        if not self._presence.visits:
            return events
        failed: Exception | None = None
        for visit, decision in self._presence.conclude(at_s):
            try:
                events += self._tell(frame, visit, decision, recognizer, at_s)
            except Exception as error:
                failed = failed or error
        self._observer.remaining(self._presence.visits)
        if failed is not None and not events:
            raise failed
        if failed is not None:
            log.error("a visit could not be told", exc_info=failed, extra={"camera": self.camera})
        return events

    def _tell(
        self, frame: Frame, visit: Visit, local: Decision | None, recognizer: Recognizer, at_s: float
    ) -> list[FaceEvent]:
        """Return the event of a decision, or of the end of a visit; none while the visit waits."""
        if local is None:
            self._observer.ended(frame, visit)
            told = self._event(frame, visit, None, recognizer, None)
        else:
            judged = self._observer.review(frame, visit, local, at_s, recognizer)
            if judged is None:
                return []
            if judged.decision is not local and self._presence.continues(visit, judged.decision, at_s):
                return []
            told = self._event(frame, visit, judged.decision, recognizer, self._latency())
            told = replace(told, remote=judged.remote)
            self._observer.decided(frame, visit, judged.decision, recognizer)
            visit.publish(judged.decision, told)
        self._metrics.count(f"events.{told.event_type}")
        return [told]

    def _latency(self) -> Latency | None:
        """Return how long the decision took, None where no frame brought it."""
        if self._captured_s is None:
            return None
        total_ms = (self._clock() - self._captured_s) * 1e3
        self._metrics.record_ms(CAPTURE_TO_DECISION, total_ms)
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
