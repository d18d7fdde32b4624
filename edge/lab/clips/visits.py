"""Decisions against labels: which decision answers which labelled visit, and what is wrong with it.

Pure: runs no clip. All times are seconds of the clip.

An *answer* is a decision with the one that revises it, if any. It spans from the moment the pipeline first
saw the face to its last decision. It belongs to the labelled visit that shares most of its span, or, if none
does, to the one that does when all are widened by the labels' tolerance. Among visits that share at least
half as much as the best one (people who stand there together), the answer goes to one that it is right about
and that has no answer yet, else to one without an answer, else to the first. A visit with two answers is
duplicated; an answer that belongs to no visit is unexpected.

Labels say when, not where: if people who stand together are taken for each other, all of them seem right.
Wrong names are certain to be found only in visits that no other one overlaps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from edge.core.types import EventType, FaceEvent
from edge.lab.clips.labels import Truth


class VisitOutcome(StrEnum):
    """What became of one labelled visit; the gravest that applies.

    WRONG_NAME: an enrolled subject was taken for another one. FALSE_MATCH: a match where none was expected,
    so a stranger's. FALSE_REJECT, FALSE_SPOOF, NO_DECISION: this where something else was expected. MISSED:
    no answer.
    """

    CORRECT = "correct"
    MISSED = "missed"
    WRONG_NAME = "wrong_name"
    FALSE_MATCH = "false_match"
    FALSE_REJECT = "false_reject"
    FALSE_SPOOF = "false_spoof"
    NO_DECISION = "no_decision"


@dataclass(frozen=True, slots=True)
class VisitAnswer:
    """The decisions about one visit of the pipeline, of which the last counts; `begun_s`: first sight."""

    begun_s: float
    decided_s: float
    events: tuple[FaceEvent, ...]

    @property
    def final(self) -> FaceEvent:
        """The decision that stands in the end."""
        return self.events[-1]

    @property
    def delay_s(self) -> float:
        """Seconds from the first sight of the face to the decision that stands."""
        return self.decided_s - self.begun_s


@dataclass(frozen=True, slots=True)
class Judged:
    """A labelled visit, the answers to it in the order of their beginning, and what that comes to."""

    truth: Truth
    answers: tuple[VisitAnswer, ...]
    outcome: VisitOutcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """All labelled visits of a clip, or of many, and the answers that belong to none."""

    visits: tuple[Judged, ...]
    unexpected: tuple[VisitAnswer, ...]


def answers_of(
    events: Iterable[FaceEvent], begun_s: Mapping[str, float], started_s: float
) -> list[VisitAnswer]:
    """Join decisions with those that revise them.

    Args:
        events: In the order of their time; `left` is not a decision and is passed over.
        begun_s: When each visit's face was first seen, by visit id, on the clock of the events.
        started_s: When the clip's first frame was, on the same clock.
    """
    chains: list[list[FaceEvent]] = []
    for event in events:
        if event.event_type == EventType.LEFT:
            continue
        revised = [chain for chain in chains if chain[-1].event_id == event.revises]
        if revised:
            revised[0].append(event)
        else:
            chains.append([event])
    told = [
        VisitAnswer(begun_s[chain[0].visit] - started_s, chain[-1].monotonic_s - started_s, tuple(chain))
        for chain in chains
    ]
    return sorted(told, key=lambda answer: answer.begun_s)


def judge(truths: Sequence[Truth], answers: Sequence[VisitAnswer], tolerance_s: float) -> Verdict:
    """Give every answer to the labelled visit it belongs to, as the module says, and judge the visits."""
    given: list[list[VisitAnswer]] = [[] for _ in truths]
    open_: list[tuple[VisitAnswer, list[int]]] = []
    unexpected = []
    for answer in answers:
        candidates = _candidates(truths, answer, tolerance_s)
        if candidates:
            open_.append((answer, candidates))
        else:
            unexpected.append(answer)
    for must_agree, must_be_free in ((True, True), (False, True), (False, False)):
        rest = []
        for answer, candidates in open_:
            fit = [
                i
                for i in candidates
                if (not must_agree or _agrees(truths[i], answer)) and not (must_be_free and given[i])
            ]
            if fit:
                given[fit[0]].append(answer)
            else:
                rest.append((answer, candidates))
        open_ = rest
    visits = []
    for truth, those in zip(truths, given, strict=True):
        ordered = tuple(sorted(those, key=lambda answer: answer.begun_s))
        visits.append(Judged(truth, ordered, outcome(truth, ordered)))
    return Verdict(tuple(visits), tuple(unexpected))


def outcome(truth: Truth, answers: Sequence[VisitAnswer]) -> VisitOutcome:
    """Say what the answers to one labelled visit come to."""
    if not answers:
        return VisitOutcome.MISSED
    matches = [e for answer in answers for e in answer.events if e.event_type == EventType.MATCH]
    if any(_subject(event) != truth.subject for event in matches):
        return VisitOutcome.FALSE_MATCH if truth.subject is None else VisitOutcome.WRONG_NAME
    if matches and truth.expected != EventType.MATCH:
        return VisitOutcome.FALSE_MATCH
    told = {answer.final.event_type for answer in answers}
    if truth.expected in told:
        return VisitOutcome.CORRECT
    if EventType.SPOOF in told:
        return VisitOutcome.FALSE_SPOOF
    return VisitOutcome.FALSE_REJECT if EventType.REJECT in told else VisitOutcome.NO_DECISION


def figures(verdict: Verdict) -> dict[str, Any]:
    """Count outcomes, and tell how long decisions took, as plain JSON values.

    `delay_s` runs in the clip's time from the first sight of a face to the decision that stands, by its type:
    a match waits for the second good shot, a reject for patience. `capture_to_decision_ms` is the pipeline's
    own figure for the deciding frames. Both are {n, p50, p95}, None without a decision.
    """
    outcomes = [visit.outcome for visit in verdict.visits]
    answers = [answer for visit in verdict.visits for answer in visit.answers] + list(verdict.unexpected)
    latencies = [e.latency.capture_to_decision_ms for a in answers for e in a.events if e.latency is not None]
    delays = {
        kind.value: spread([answer.delay_s for answer in answers if answer.final.event_type == kind])
        for kind in EventType
        if kind != EventType.LEFT
    }
    return {
        "visits": len(outcomes),
        "expected": {
            kind.value: sum(visit.truth.expected == kind for visit in verdict.visits)
            for kind in EventType
            if kind != EventType.LEFT
        },
        "found": sum(bool(visit.answers) for visit in verdict.visits),
        "missed": outcomes.count(VisitOutcome.MISSED),
        "duplicated": sum(len(visit.answers) > 1 for visit in verdict.visits),
        "correct": outcomes.count(VisitOutcome.CORRECT),
        "wrong_names": outcomes.count(VisitOutcome.WRONG_NAME),
        "false_matches": outcomes.count(VisitOutcome.FALSE_MATCH),
        "false_rejects": outcomes.count(VisitOutcome.FALSE_REJECT),
        "false_spoofs": outcomes.count(VisitOutcome.FALSE_SPOOF),
        "no_decisions": outcomes.count(VisitOutcome.NO_DECISION),
        "unexpected": len(verdict.unexpected),
        "unexpected_matches": sum(a.final.event_type == EventType.MATCH for a in verdict.unexpected),
        "decisions": len(answers),
        "revised": sum(len(answer.events) > 1 for answer in answers),
        "delay_s": delays,
        "capture_to_decision_ms": spread(latencies),
    }


def spread(values: Sequence[float]) -> dict[str, float | int] | None:
    """Return the number of values, their median and 95th percentile (interpolated); None without any."""
    if not values:
        return None
    p50, p95 = np.percentile(values, (50, 95))
    return {"n": len(values), "p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def _candidates(truths: Sequence[Truth], answer: VisitAnswer, tolerance_s: float) -> list[int]:
    for slack_s in (0.0, tolerance_s):
        shares = [_shared_s(truth, answer, slack_s) for truth in truths]
        best_s = max(shares, default=-1.0)
        if best_s >= 0:
            return [i for i, share_s in enumerate(shares) if share_s >= 0 and 2 * share_s >= best_s]
    return []


def _shared_s(truth: Truth, answer: VisitAnswer, slack_s: float) -> float:
    """Return how much of the answer's span lies in the labelled one; negative where they do not touch."""
    until_s = min(answer.decided_s, truth.until_s + slack_s)
    return until_s - max(answer.begun_s, truth.from_s - slack_s)


def _agrees(truth: Truth, answer: VisitAnswer) -> bool:
    right_name = answer.final.event_type != EventType.MATCH or _subject(answer.final) == truth.subject
    return answer.final.event_type == truth.expected and right_name


def _subject(event: FaceEvent) -> str | None:
    return event.subject.subject_id if event.subject else None
