"""Ask the remote gallery about visits whom nobody here knows, without waiting in the hot loop.

The local gallery answers first. The remote one is asked once per visit, and what does not come in time is
left out: the local decision stands and the event says so. The remote gallery only adds. Who is enrolled here
is judged by what is known here, who was removed here stays out until enrolled here again, and who is nearly
as alike to somebody here is `ambiguous`. Which engine is asked is the business of `engine_matcher`.
"""

import logging
from collections.abc import Callable, Container
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from edge.core.errors import FileError, RemoteGalleryError, RemoteTimeoutError, ToldOnce
from edge.core.types import Barred, Decision, EventType, Match, Probe, Reason, RemoteOutcome
from edge.gallery.admission import Admission
from edge.gallery.decision import DecisionRule
from edge.gallery.gallery import Gallery
from edge.gallery.store.denials import Denials

log = logging.getLogger(__name__)

LOCAL_FIRST = (Reason.BELOW_THRESHOLD, Reason.GALLERY_EMPTY)
"""Local rejections that say "nobody here". A face like two local subjects gains nothing by a third."""


class RemoteMatcher(Protocol):
    """The search engine of a gallery on another machine."""

    def ask(self, probe: Probe) -> Future[Match]:
        """Begin a search for the two closest subjects.

        Raises:
            RemoteTimeoutError: The last question is not answered yet.
            RemoteGalleryError: It cannot be asked.
        """


@dataclass(frozen=True, slots=True, eq=False)
class LocalKnowledge:
    """What this door knows by itself when an answer comes."""

    gallery: Gallery
    admission: Admission
    rule: DecisionRule
    denials: Denials


@dataclass(frozen=True, slots=True)
class Opinion:
    """The decision in force, and what came of asking."""

    decision: Decision
    outcome: RemoteOutcome


@dataclass(frozen=True, slots=True)
class Question:
    """A search that was begun; `due_s` is when it is not waited for any more."""

    probe: Probe
    asked: Future[Match]
    due_s: float


class RemoteGallery:
    """Turns local rejections into questions and their answers into decisions. `clock`: monotonic seconds.

    `matcher` searches it. `erased` are the ids of who was removed here. `close` asks nothing more and lets go
    of what the matcher holds.
    """

    def __init__(
        self,
        matcher: RemoteMatcher,
        erased: Container[str],
        *,
        timeout_s: float,
        clock: Callable[[], float],
        on_close: Callable[[], None],
    ) -> None:
        self.close = on_close
        self._matcher = matcher
        self._erased = erased
        self._told = ToldOnce()
        self._timeout_s = timeout_s
        self._clock = clock

    def ask(self, local: Decision, probe: Probe | None) -> Question | Opinion:
        """Begin to ask about a visit that is to be rejected; an opinion where there is nothing to ask."""
        if local.event_type != EventType.REJECT or local.reason not in LOCAL_FIRST or probe is None:
            return Opinion(local, "not_asked")
        try:
            return Question(probe, self._matcher.ask(probe), self._clock() + self._timeout_s)
        except RemoteTimeoutError:
            return Opinion(local, "timeout")
        except RemoteGalleryError as error:
            return self._failed(local, error)

    def answer(
        self,
        question: Question,
        local: Decision,
        here: LocalKnowledge,
        at: datetime,
        *,
        patient: bool,
    ) -> Opinion | None:
        """Return the opinion, None where the answer may still come; `patient` waits for it as long as that.

        The rule's threshold follows what was searched there.
        """
        left_s = question.due_s - self._clock()
        if patient and left_s > 0:
            wait([question.asked], left_s)
            left_s = 0.0
        if not question.asked.done():
            return Opinion(local, "timeout") if left_s <= 0 else None
        try:
            decision = self._decide(question.asked.result(), question.probe, local, here, at)
        except (RemoteGalleryError, FileError) as error:
            return self._failed(local, error)
        self._told.forget()
        return Opinion(decision, "answered")

    def _decide(
        self, match: Match, probe: Probe, local: Decision, here: LocalKnowledge, at: datetime
    ) -> Decision:
        """Return the decision by what was found there, the local one where that is nobody to be believed.

        Raises:
            FileError: It cannot be read who was removed here.
        """
        best = match.best
        decision = here.rule.decide(_admitted(match, probe, here, at))
        if best is None or (decision.event_type != EventType.MATCH and decision.reason in LOCAL_FIRST):
            return local
        subject_id = best.subject.subject_id
        if here.gallery.subject(subject_id) is not None or subject_id in self._erased:
            return local  # and nobody else passes as the second most alike
        rival = _best_score(local)
        if rival is None or best.score - rival >= here.rule.margin:
            return decision
        score = decision.score and replace(decision.score, second=max(rival, decision.score.second or -1.0))
        return Decision(EventType.REJECT, Reason.AMBIGUOUS, None, score)

    def _failed(self, local: Decision, error: Exception) -> Opinion:
        if self._told.is_new(error):
            log.warning("the remote gallery is of no use, local decisions stand: %s", error)
        return Opinion(local, "failed")


def _admitted(match: Match, probe: Probe, here: LocalKnowledge, at: datetime) -> Match:
    """Return the match with what speaks against its best subject here: denied, or barred now."""
    best = match.best
    if best is None:
        return match
    reason = here.admission.objection(best.subject, at)
    if reason is None:
        return replace(match, denied=here.denials.score(best.subject.subject_id, probe))
    return replace(match, best=None, second=None, barred=Barred(best, reason, match.comparisons))


def _best_score(local: Decision) -> float | None:
    """Return how alike the probe is to the most alike subject here, None where there is nobody."""
    scores = () if local.score is None else (local.score.best, local.score.second)
    return max((score for score in scores if score is not None), default=None)
