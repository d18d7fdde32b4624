"""What the remote gallery answers about visits that are to be rejected here.

It is asked once per visit, and a visit that is gone is forgotten. What is asked and what an answer means is
the business of `gallery.remote.question`. The state is that of one camera.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from edge.core.metrics import Metrics
from edge.core.types import Decision, EventType, RemoteOutcome
from edge.gallery.remote.question import LocalKnowledge, Opinion, Question
from edge.recognition.recognizer import Recognizer
from edge.recognition.visit import Visit


@dataclass(frozen=True, slots=True)
class JudgedDecision:
    """The decision in force; `remote` is what came of asking, None where there is no remote gallery."""

    decision: Decision
    remote: RemoteOutcome | None


class RemoteAnswers:
    """The questions that wait for an answer, by visit. With `live` an answer is not waited for in a frame."""

    def __init__(self, metrics: Metrics, *, live: bool) -> None:
        self._metrics = metrics
        self._live = live
        self._open: dict[str, Question] = {}

    def settle(
        self, visit: Visit, local: Decision, at: datetime, at_s: float, recognizer: Recognizer
    ) -> JudgedDecision | None:
        """Return the decision once the remote gallery was asked; None: the visit waits for its answer.

        `at` is the moment of the frame (aware), `at_s` the same on the monotonic clock.
        """
        remote = recognizer.remote
        if remote is None:
            return JudgedDecision(local, None)
        question = self._open.pop(visit.visit_id, None) or remote.ask(local, visit.evidence)
        if isinstance(question, Opinion):
            return JudgedDecision(question.decision, question.outcome)
        opinion = remote.answer(
            question,
            local,
            LocalKnowledge(
                recognizer.matcher.gallery, recognizer.admission, recognizer.rule, recognizer.denials
            ),
            at,
            patient=not self._live or at_s - visit.seen_s >= visit.rule.cooldown_s,  # it ends now
        )
        if opinion is None:
            self._open[visit.visit_id] = question
            return None
        self._metrics.count(f"remote.{opinion.outcome}")
        decision = opinion.decision
        if decision.event_type == EventType.MATCH:
            # The subject's templates are not here: shots that are not of one face cannot be told apart.
            decision = (visit.of_one_face and visit.if_alive(decision, at_s)) or local
        return JudgedDecision(decision, opinion.outcome)

    def keep(self, visits: Iterable[Visit]) -> None:
        """Forget the questions about visits that are gone: ended, or absorbed while they waited."""
        if self._open:
            present = {visit.visit_id for visit in visits}
            self._open = {visit_id: asked for visit_id, asked in self._open.items() if visit_id in present}
