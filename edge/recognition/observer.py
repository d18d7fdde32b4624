"""What accompanies the visits before one camera and is no step of recognising anybody.

Three jobs: the candidate is compared with what is in force (`candidate`), the remote gallery is asked before
somebody is rejected (`remote_answers`), and visits that have ended are handed over to be kept for a while
(`gallery.store.kept_visits`).
"""

from collections.abc import Callable, Iterable

from edge.core.metrics import Metrics
from edge.core.types import AlignedFace, Decision, Frame
from edge.gallery.store.kept_visits import KeptVisit
from edge.recognition.candidate import CandidateComparison
from edge.recognition.recognizer import Recognizer
from edge.recognition.remote_answers import JudgedDecision, RemoteAnswers
from edge.recognition.visit import Visit


class VisitObserver:
    """Hears from the pipeline of one camera what happens to its visits. Used by the pipeline's thread.

    `live` is false in replays faster than life: the remote gallery is then waited for in the frame.
    `keep_visit` gets strangers' visits and matches when they end, and must not block.
    """

    def __init__(
        self,
        camera: str,
        metrics: Metrics,
        *,
        live: bool,
        keep_visit: Callable[[KeptVisit], None] | None = None,
    ) -> None:
        self._camera = camera
        self._candidate = CandidateComparison(camera, metrics)
        self._remote = RemoteAnswers(metrics, live=live)
        self._keep_visit = keep_visit

    def shot(self, frame: Frame, visit: Visit, face: AlignedFace, recognizer: Recognizer) -> None:
        """Note a usable shot of a visit."""
        self._candidate.look(frame, visit, face, recognizer)

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
            self._keep_visit(kept)

    def remaining(self, visits: Iterable[Visit]) -> None:
        """Forget what is known of all visits but these."""
        self._remote.keep(visits)
