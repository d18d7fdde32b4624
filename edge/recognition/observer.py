"""What accompanies the visits before one camera and is no step of recognising anybody.

Three jobs: the candidate is compared with what is in force (`candidate`), the remote gallery is asked before
somebody is rejected (`remote_answers`), and visits that have ended are handed over to be kept for a while
(`gallery.store.kept_visits`).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from edge.camera.photo import fitted
from edge.core.metrics import Metrics
from edge.core.types import AlignedFace, Decision, FloatArray, Frame, Image, Probe
from edge.gallery.store.kept_visits import KeptVisit
from edge.recognition.candidate import CandidateComparison
from edge.recognition.recognizer import Recognizer
from edge.recognition.remote_answers import JudgedDecision, RemoteAnswers
from edge.recognition.visit import Visit

PORTRAIT_PX = 240
"""Longer side of the picture of a stranger that is kept."""


class VisitObserver:
    """Hears from the pipeline of one camera what happens to its visits. Used by the pipeline's thread.

    `live` is false in replays faster than life: the remote gallery is then waited for in the frame.
    `keep_visit` gets strangers' visits and matches when they end, and must not block; strangers' with a
    picture where `keep_pictures` says so.
    """

    def __init__(
        self,
        camera: str,
        metrics: Metrics,
        *,
        live: bool,
        keep_visit: Callable[[KeptVisit], None] | None = None,
        keep_pictures: bool = False,
    ) -> None:
        self._camera = camera
        self._candidate = CandidateComparison(camera, metrics)
        self._remote = RemoteAnswers(metrics, live=live)
        self._keep_visit = keep_visit
        self._keep_pictures = keep_visit is not None and keep_pictures
        self._portraits: dict[str, tuple[Probe, Image]] = {}  # by visit, of its best shot

    def shot(self, frame: Frame, visit: Visit, face: AlignedFace, recognizer: Recognizer) -> None:
        """Note a usable shot of a visit."""
        self._candidate.look(frame, visit, face, recognizer)

    def added(self, frame: Frame, visit: Visit, probe: Probe, face: AlignedFace) -> None:
        """Note which visit a shot became evidence of."""
        if self._keep_pictures and visit.shots and visit.shots[0] is probe:
            self._portraits[visit.visit_id] = (probe, _portrait(frame.image, face.found.box))

    def review(
        self, frame: Frame, visit: Visit, local: Decision, at_s: float, recognizer: Recognizer
    ) -> JudgedDecision | None:
        """Return the decision that stands, `local` or that of the remote gallery; None: the visit waits.

        `at_s` is now, in monotonic seconds of the frames.
        """
        return self._remote.settle(visit, local, frame.captured_at, at_s, recognizer)

    def decided(self, frame: Frame, visit: Visit, decision: Decision, recognizer: Recognizer) -> None:
        """Note a decision that is about to be published."""
        self._candidate.compare(visit, decision, frame.captured_at, recognizer)

    def ended(self, frame: Frame, visit: Visit) -> None:
        """Hand over a visit that has ended, if it is one to keep."""
        told, evidence = visit.decision, visit.evidence
        if self._keep_visit is None or told is None or evidence is None:
            return
        kept = KeptVisit.of(visit.visit_id, self._camera, frame.captured_at, evidence, told)
        if kept is not None:
            probe, picture = self._portraits.get(visit.visit_id, (None, None))
            shown = not kept.taken_for and any(shot is probe for shot in visit.shots)
            self._keep_visit(replace(kept, picture=picture) if shown else kept)

    def remaining(self, visits: Iterable[Visit]) -> None:
        """Forget what is known of all visits but these."""
        here = list(visits)
        self._remote.keep(here)
        if self._portraits:
            ids = {visit.visit_id for visit in here}
            self._portraits = {name: kept for name, kept in self._portraits.items() if name in ids}


def _portrait(image: Image, box: FloatArray) -> Image:
    """Return a face with its neighbourhood, two faces wide, for people to look at."""
    (x1, y1), (x2, y2) = box[:2].tolist(), box[2:].tolist()
    reach, x, y = max(x2 - x1, y2 - y1), (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, round(x - reach)), max(0, round(y - reach))
    cut = image[top : max(top + 1, round(y + reach)), left : max(left + 1, round(x + reach))]
    return fitted(cut, PORTRAIT_PX).copy()
