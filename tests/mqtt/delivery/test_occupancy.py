from dataclasses import replace
from datetime import UTC, datetime, timedelta

from edge.core.types import EventType, FaceEvent, Subject
from edge.mqtt.contract.messages import CameraInfoPayload, StatePayload, SubjectPart
from edge.mqtt.delivery.occupancy import CameraDocuments, Occupancy
from tests.support.door import TOPICS, make_event

AT = datetime(2026, 8, 1, 7, 31, 22, tzinfo=UTC)


def shown(subject: Subject | None) -> SubjectPart | None:
    return None if subject is None else SubjectPart(id=subject.subject_id, label=None, groups=subject.groups)


def event(event_type: EventType, visit: str, after_s: float, revises: str | None = None) -> FaceEvent:
    return make_event(event_type, visit=visit, captured_at=AT + timedelta(seconds=after_s), revises=revises)


def test_a_visit_is_present_from_its_decision_to_its_end() -> None:
    occupancy = Occupancy(shown)

    arrived = occupancy.note(event(EventType.MATCH, "v-1", 0))
    left = occupancy.note(event(EventType.LEFT, "v-1", 9))

    assert [part.visit for part in arrived.present] == ["v-1"]
    assert (arrived.since, arrived.until) == (AT, None)
    assert arrived.last is not None
    assert arrived.last.event_type == EventType.MATCH
    assert left.present == ()
    assert (left.since, left.until) == (None, AT + timedelta(seconds=9))
    assert left.last == arrived.last


def test_two_visits_overlap_and_end_one_by_one() -> None:
    occupancy = Occupancy(shown)
    occupancy.note(event(EventType.MATCH, "v-1", 0))
    both = occupancy.note(event(EventType.REJECT, "v-2", 3))
    one = occupancy.note(event(EventType.LEFT, "v-1", 5))
    none = occupancy.note(event(EventType.LEFT, "v-2", 8))

    assert [part.event_type for part in both.present] == [EventType.MATCH, EventType.REJECT]
    assert [part.visit for part in one.present] == ["v-2"]
    assert one.since == AT, "somebody has been here all the time"
    assert one.until is None
    assert none.present == ()
    assert none.until == AT + timedelta(seconds=8)


def test_a_revision_replaces_the_decision_and_keeps_the_beginning() -> None:
    occupancy = Occupancy(shown)
    rejected = occupancy.note(event(EventType.REJECT, "v-1", 0))
    revised = occupancy.note(event(EventType.MATCH, "v-1", 4, revises=rejected.present[0].event_id))

    assert [(part.event_type, part.since) for part in revised.present] == [(EventType.MATCH, AT)]


def test_a_camera_that_was_taken_out_is_taken_back_and_stays_so_until_it_is_back() -> None:
    kept: dict[str, bytes] = {}
    cameras = CameraDocuments(TOPICS, shown, kept.__setitem__)
    for camera in ("front", "side"):
        cameras.status(camera, True, "here", AT)
    cameras.event(event(EventType.MATCH, "v-1", 0))

    cameras.forget("front")
    cameras.event(event(EventType.LEFT, "v-1", 1))  # was looked at when the camera was taken out
    cameras.close(AT)

    assert {topic for topic, payload in kept.items() if not payload} == set(TOPICS.camera_documents("front"))
    assert kept[TOPICS.camera_status("side")] == b"offline"
    cameras.status("front", True, "here again", AT)
    assert kept[TOPICS.camera_status("front")] == b"online"
    assert StatePayload.model_validate_json(kept[TOPICS.state("front")]).present == ()


def test_a_picture_of_a_subject_is_not_its_presence() -> None:
    occupancy = Occupancy(shown)
    picture = replace(event(EventType.SPOOF, "v-1", 0), subject=Subject("p_8f21", "Alice Example"))

    state = occupancy.note(picture)

    assert [(part.event_type, part.subject) for part in state.present] == [(EventType.SPOOF, None)]
    assert state.last is not None
    assert (state.last.event_type, state.last.subject) == (EventType.SPOOF, None)
    assert occupancy.note(event(EventType.LEFT, "v-1", 3)).present == ()


def test_the_end_of_an_unknown_visit_leaves_the_others_present() -> None:
    occupancy = Occupancy(shown)
    occupancy.note(event(EventType.MATCH, "v-1", 0))

    assert [part.visit for part in occupancy.note(event(EventType.LEFT, "v-0", 1)).present] == ["v-1"]


def test_clearing_forgets_everybody() -> None:
    occupancy = Occupancy(shown)
    occupancy.note(event(EventType.MATCH, "v-1", 0))

    assert occupancy.clear() == StatePayload()
    assert occupancy.note(event(EventType.LEFT, "v-1", 1)).present == ()


def test_a_camera_is_cleared_when_first_heard_of_and_when_all_closes() -> None:
    told: list[tuple[str, bytes]] = []
    documents = CameraDocuments(TOPICS, shown, lambda topic, payload: told.append((topic, payload)))
    empty = StatePayload().model_dump_json().encode()

    documents.status("front", True, "opened", AT)
    assert told[0] == (TOPICS.state("front"), empty)
    assert told[1] == (TOPICS.camera_status("front"), b"online")
    assert CameraInfoPayload.model_validate_json(told[2][1]).why == "opened"

    documents.event(event(EventType.MATCH, "v-1", 0))
    assert told[-1][1] != empty
    told.clear()
    documents.close(AT)
    assert (TOPICS.state("front"), empty) in told
    assert (TOPICS.camera_status("front"), b"offline") in told
