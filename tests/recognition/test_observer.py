"""What accompanies visits: who is handed over to be kept when a visit ends."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from edge.core.metrics import Metrics
from edge.core.types import (
    AlignedFace,
    Decision,
    Detection,
    EventType,
    Frame,
    Probe,
    Quality,
    Reason,
    Subject,
)
from edge.gallery.store.kept_visits import KeptVisit
from edge.recognition.observer import VisitObserver
from edge.recognition.visit import Visit, VisitRule

FRAME = Frame("front", np.zeros((2, 2, 3), np.uint8), datetime(2026, 11, 24, tzinfo=UTC), 5.0, 0)


def visit(decision: Decision | None, *, shots: int = 1) -> Visit:
    row = np.eye(1, 8, dtype=np.float32)[0]
    made = Visit("v-1", 1, VisitRule(2, 6, 3.0, 3.0), 0.0, np.zeros(4, np.float32))
    made.shots = [Probe(row, "model@1", Quality(80, 0.8, 0.0, 1.0, 0.9, 0.5))] * shots
    made.decision = decision
    return made


STRANGER = Decision(EventType.REJECT, Reason.BELOW_THRESHOLD, None, None)
MATCH = Decision(EventType.MATCH, None, Subject("p-1", "A"), None)
BARRED = Decision(EventType.REJECT, Reason.EXPIRED, Subject("p-1", "A"), None)


@pytest.mark.parametrize(
    ("decision", "shots", "kept"),
    [
        pytest.param(
            Decision(EventType.REJECT, Reason.BELOW_THRESHOLD, None, None), 1, [""], id="a stranger"
        ),
        pytest.param(MATCH, 1, ["p-1"], id="a match"),
        pytest.param(
            Decision(EventType.REJECT, Reason.EXPIRED, Subject("p-1", "A"), None), 1, [], id="barred"
        ),
        pytest.param(Decision(EventType.NO_DECISION, Reason.LOW_QUALITY, None, None), 0, [], id="no shot"),
        pytest.param(None, 1, [], id="undecided"),
    ],
)
def test_strangers_and_matches_are_handed_over_when_they_end(
    decision: Decision | None, shots: int, kept: list[str]
):
    found: list[KeptVisit] = []
    observer = VisitObserver("front", Metrics(), live=True, keep_visit=found.append)
    observer.ended(FRAME, visit(decision, shots=shots))
    assert [each.taken_for for each in found] == kept
    assert all((each.visit_id, each.camera, each.at) == ("v-1", "front", FRAME.captured_at) for each in found)


@pytest.mark.parametrize(
    ("decision", "keep", "evidence", "kept"),
    [
        pytest.param(STRANGER, True, True, True, id="a stranger"),
        pytest.param(MATCH, True, True, False, id="a match"),
        pytest.param(STRANGER, False, True, False, id="no pictures are kept"),
        pytest.param(STRANGER, True, False, False, id="a shot of somebody else, who took over the track"),
    ],
)
def test_a_stranger_has_a_picture_of_the_best_shot(
    decision: Decision, keep: bool, evidence: bool, kept: bool
):
    found: list[KeptVisit] = []
    observer = VisitObserver("front", Metrics(), live=True, keep_visit=found.append, keep_pictures=keep)
    seen, image = visit(decision), np.zeros((90, 160, 3), np.uint8)
    image[20:40, 60:80] = 255
    box, landmarks = np.array([60, 20, 80, 40], np.float32), np.zeros((5, 2), np.float32)
    face = AlignedFace(image, seen.shots[0].quality, Detection(box, landmarks, 0.9))
    probe = seen.shots[0] if evidence else replace(seen.shots[0])
    observer.added(replace(FRAME, image=image), seen, probe, face)
    observer.ended(FRAME, seen)
    [told] = found
    assert (told.picture is not None) is kept
    if told.picture is not None:
        assert told.picture.shape == (40, 40, 3)
        assert told.picture[20, 20].all()
    observer.remaining([])
    observer.ended(FRAME, seen)
    assert found[-1].picture is None


def test_nothing_is_kept_where_nobody_keeps_it():
    VisitObserver("front", Metrics(), live=True).ended(FRAME, visit(STRANGER))
