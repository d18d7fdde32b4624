"""Questions to another gallery about visits that are to be rejected here: asked once, waited for, forgotten.

State of one camera, like `pipeline`, which calls it. What is asked and what an answer means is
`gallery.elsewhere`'s business.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from edge.core.metrics import Metrics
from edge.core.types import Decision, EventType, RemoteOutcome
from edge.gallery.remote.question import Here, Opinion, Question
from edge.recognition.recognizer import Recognizer
from edge.recognition.visit import Visit


@dataclass(frozen=True, slots=True)
class JudgedDecision:
    """The decision in force; `remote` is what came of asking, None where no other gallery is known."""

    decision: Decision
    remote: RemoteOutcome | None


class Inquiries:
    """The questions that wait for an answer, by visit. With `live` an answer is not waited for in a frame."""

    def __init__(self, metrics: Metrics, *, live: bool) -> None:
        self._metrics = metrics
        self._live = live
        self._open: dict[str, Question] = {}

    def settle(
        self, visit: Visit, local: Decision, at: datetime, at_s: float, recognizer: Recognizer
    ) -> JudgedDecision | None:
        """Return the decision once another gallery was asked; None: the visit waits for its answer.

        `at` is the moment of the frame (aware), `at_s` the same on the monotonic clock.
        """
        elsewhere = recognizer.elsewhere
        if elsewhere is None:
            return JudgedDecision(local, None)
        question = self._open.pop(visit.visit_id, None) or elsewhere.ask(local, visit.evidence)
        if isinstance(question, Opinion):
            return JudgedDecision(question.decision, question.outcome)
        opinion = elsewhere.answer(
            question,
            local,
            Here(recognizer.matcher.gallery, recognizer.admission, recognizer.rule, recognizer.denials),
            at,
            patient=not self._live or at_s - visit.seen_s >= visit.rule.cooldown_s,  # it ends now
        )
        if opinion is None:
            self._open[visit.visit_id] = question
            return None
        self._metrics.count(f"remote.{opinion.outcome}")
        decision = opinion.decision
        if decision.event_type == EventType.MATCH:
            decision = visit.if_alive(decision, at_s) or local
        return JudgedDecision(decision, opinion.outcome)

    def keep(self, visits: Iterable[Visit]) -> None:
        """Forget the questions about visits that are gone: ended, or absorbed while they waited."""
        if self._open:
            present = {visit.visit_id for visit in visits}
            self._open = {visit_id: asked for visit_id, asked in self._open.items() if visit_id in present}
