"""Ask another gallery about visits whom nobody here knows, without waiting in the hot loop.

The local gallery answers first; the other one is asked once per visit, and what does not come in time is left
out: the local decision stands and the event says so. Which engine is asked is `remote`'s business.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from edge.errors import RemoteGalleryError, RemoteTimeoutError
from edge.gallery.admission import Admission
from edge.gallery.decision import DecisionRule
from edge.types import Barred, Decision, EventType, Match, Probe, Reason, RemoteOutcome

LOCAL_FIRST = (Reason.BELOW_THRESHOLD, Reason.GALLERY_EMPTY)
"""Local rejections that say "nobody here". A face like two local subjects gains nothing by a third."""


class RemoteMatcher(Protocol):
    """A gallery on another machine."""

    def ask(self, probe: Probe) -> Future[Match]:
        """Begin a search for the two closest subjects.

        Raises:
            RemoteTimeoutError: The last question is not answered yet.
            RemoteGalleryError: It cannot be asked.
        """


@dataclass(frozen=True, slots=True)
class Opinion:
    """The decision in force, and what came of asking."""

    decision: Decision
    outcome: RemoteOutcome


@dataclass(frozen=True, slots=True)
class Question:
    """A search that was begun; `due_s` is when it is not waited for any more."""

    asked: Future[Match]
    due_s: float


class Elsewhere:
    """Turns local rejections into questions and their answers into decisions. `clock`: monotonic seconds.

    `close` asks nothing more and lets go of what the remote gallery holds.
    """

    def __init__(
        self,
        remote: RemoteMatcher,
        *,
        timeout_s: float,
        clock: Callable[[], float],
        on_close: Callable[[], None],
    ) -> None:
        self.close = on_close
        self._remote = remote
        self._timeout_s = timeout_s
        self._clock = clock

    def ask(self, local: Decision, probe: Probe | None) -> Question | Opinion:
        """Begin to ask about a visit that is to be rejected; an opinion where there is nothing to ask."""
        if local.event_type != EventType.REJECT or local.reason not in LOCAL_FIRST or probe is None:
            return Opinion(local, "not_asked")
        try:
            return Question(self._remote.ask(probe), self._clock() + self._timeout_s)
        except RemoteTimeoutError:
            return Opinion(local, "timeout")
        except RemoteGalleryError:
            return Opinion(local, "failed")

    def answer(
        self,
        question: Question,
        local: Decision,
        rule: DecisionRule,
        admission: Admission,
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
            match = question.asked.result()
        except RemoteGalleryError:
            return Opinion(local, "failed")
        decision = rule.decide(_admitted(match, admission, at))
        known = decision.event_type == EventType.MATCH or decision.reason not in LOCAL_FIRST
        return Opinion(decision if known else local, "answered")


def _admitted(match: Match, admission: Admission, at: datetime) -> Match:
    """Return the match with a best subject that may not pass here now as barred."""
    best = match.best
    reason = None if best is None else admission.objection(best.subject, at)
    if best is None or reason is None:
        return match
    return replace(match, best=None, second=None, barred=Barred(best, reason, match.comparisons))
