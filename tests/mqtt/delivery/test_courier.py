import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.core.types import EventType, FaceEvent
from edge.mqtt.contract.messages import CameraInfoPayload, EventPayload, StatePayload
from tests.mqtt.documents import documents
from tests.support.broker import Mosquitto, Subscriber, retained, subscriber
from tests.support.door import TOPICS, Door, make_event
from tests.support.waits import LIMIT_S, Stopwatch, wait_until

OpenDoor = Callable[..., Door]


def events(payloads: list[bytes]) -> list[EventPayload]:
    return [EventPayload.model_validate_json(payload) for payload in payloads]


def last_state(seen: Subscriber) -> StatePayload:
    return StatePayload.model_validate_json(seen.on("/state")[-1])


def test_a_decision_arrives_live_and_in_the_journal_under_one_id(
    mosquitto: Mosquitto, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        wait_until(lambda: door.courier.connected)
        (event_id,) = door.publish()
        seen.wait(lambda: seen.on("/event") and seen.on("/journal"))

        (live,) = events(seen.on("/event"))
        (kept,) = events(seen.on("/journal"))
        assert live.event_id == kept.event_id == event_id
        assert (live.seq, live.replayed, kept.replayed) == (1, False, False)
        wait_until(
            lambda: door.courier.outbox_health().depth == 0, what="the row leaves when it was acknowledged"
        )
    assert {message.qos for message in seen.seen if message.topic.endswith(("/event", "/journal"))} == {1}
    assert not [topic for topic in retained(mosquitto.port) if topic.endswith(("/event", "/journal"))]
    (told,) = [record for record in caplog.records if record.message == "decision"]
    assert (told.event_id, told.event_type, told.camera, told.reason, told.durable) == (  # type: ignore[attr-defined]
        event_id,
        "match",
        "front",
        None,
        True,
    )
    assert "Alice" not in caplog.text
    assert "p_8f21" not in caplog.text


def test_publishing_costs_the_caller_next_to_nothing(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    door = open_door(mosquitto.port)
    event = make_event()
    watch = Stopwatch()
    for _ in range(200):
        door.courier.publish_event(event)

    assert watch.undisturbed_s / 200 < 1e-3


def test_a_newcomer_finds_everything_that_is_kept(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, cameras=("front", "back"))
        door.courier.publish_info(documents()["info"])
        door.courier.publish_health(documents()["health"])
        door.courier.publish_camera_status("front", True, "opened /dev/video0")
        door.publish()
        seen.wait(lambda: seen.on("/health") and seen.on("/journal") and seen.on("/camera/back/status"))
        seen.wait(lambda: seen.on("/camera/front/state") and b"v-1" in seen.on("/camera/front/state")[-1])
    kept = retained(mosquitto.port)

    assert kept[TOPICS.status] == b"online"
    assert kept[TOPICS.camera_status("front")] == b"online"
    assert kept[TOPICS.camera_status("back")] == b"offline"
    assert (
        CameraInfoPayload.model_validate_json(kept[TOPICS.camera_info("front")]).why == "opened /dev/video0"
    )
    assert CameraInfoPayload.model_validate_json(kept[TOPICS.camera_info("back")]).why == "starting"
    assert json.loads(kept[TOPICS.info])["gallery_version"] == 57
    assert json.loads(kept[TOPICS.health])["clock"] == "unsynced"
    assert StatePayload.model_validate_json(kept[TOPICS.state("front")]).present[0].visit == "v-1"
    assert StatePayload.model_validate_json(kept[TOPICS.state("back")]) == StatePayload()
    assert [message.qos for message in seen.seen if message.topic == TOPICS.health] == [0]


def test_the_state_follows_the_visits(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        door.publish(visit="v-1")
        door.publish(event_type=EventType.REJECT, visit="v-2")
        seen.wait(lambda: seen.on("/state") and len(last_state(seen).present) == 2)
        door.publish(event_type=EventType.LEFT, visit="v-1")
        door.publish(event_type=EventType.LEFT, visit="v-2")
        seen.wait(lambda: last_state(seen).until is not None)

        assert last_state(seen).present == ()
        last = last_state(seen).last
        assert last is not None
        assert last.event_type == EventType.REJECT


def test_a_state_that_a_killed_process_left_is_cleared_at_start(
    mosquitto: Mosquitto, open_door: OpenDoor, tmp_path: Path
) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        door.publish()
        seen.wait(lambda: seen.on("/state") and last_state(seen).present)
        door.link.stop(5)  # as if killed: no farewell
        assert StatePayload.model_validate_json(retained(mosquitto.port)[TOPICS.state("front")]).present
        other = tmp_path / "other"
        other.mkdir()
        open_door(mosquitto.port, directory=other)
        seen.wait(lambda: not last_state(seen).present)


def test_no_subscriber_keeps_the_row_until_there_is_one(
    mosquitto: Mosquitto, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)
    with subscriber(mosquitto.port, "edge/+/+/+/camera/+/event") as live:
        ids = door.publish(30)
        wait_until(lambda: "nobody subscribes" in caplog.text)
        wait_until(lambda: door.courier.outbox_health().depth == 30)
        live.wait(lambda: len(live.seen) == 30)

    with subscriber(mosquitto.port) as seen:
        seen.wait(lambda: len(seen.on("/journal")) >= 30)
        wait_until(lambda: door.courier.outbox_health().depth == 0)

        assert {event.event_id for event in events(seen.on("/journal"))} == set(ids)
        assert seen.on("/event") == [], "live events are for now or never"


@pytest.mark.parametrize("unclaimed_s", [None, 3600.0, 0.0], ids=["kept", "not old enough", "forgotten"])
def test_nobody_keeps_the_journal(mosquitto: Mosquitto, open_door: OpenDoor, unclaimed_s: float | None):
    """As with Home Assistant alone, which listens to events and states."""
    with subscriber(mosquitto.port, "edge/+/+/+/camera/+/event") as assistant:
        door = open_door(mosquitto.port, unclaimed_s=unclaimed_s)
        wait_until(lambda: door.courier.connected)
        assert door.courier.outbox_health().unclaimed is False, "nothing was sent yet"
        door.publish(30)
        wait_until(lambda: door.courier.outbox_health().unclaimed)
        assistant.wait(lambda: len(assistant.on("/event")) == 30)
        left = 0 if unclaimed_s == 0 else 30
        wait_until(
            lambda: door.courier.outbox_health().depth == left, lambda: str(door.courier.outbox_health())
        )
        health = door.courier.outbox_health()
        assert (health.refused, health.undeliverable, health.dropped) == (False, 0, 30 - left)
        assert door.metrics.counts().get("journal.unclaimed", 0) == 30 - left

    with subscriber(mosquitto.port, "edge/+/+/+/camera/+/journal") as keeper:
        door.publish(1)
        keeper.wait(lambda: len(keeper.on("/journal")) >= left + 1)
        wait_until(lambda: not door.courier.outbox_health().unclaimed)


def test_that_nobody_keeps_the_journal_is_known_while_the_broker_is_away(
    mosquitto: Mosquitto, open_door: OpenDoor
):
    door = open_door(mosquitto.port)
    door.publish(1)
    wait_until(lambda: door.courier.outbox_health().unclaimed)
    mosquitto.stop()
    wait_until(lambda: not door.courier.connected)
    assert door.courier.outbox_health().unclaimed


def test_an_event_that_waited_too_long_is_marked_as_replayed(
    mosquitto: Mosquitto, open_door: OpenDoor
) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port)
        wait_until(lambda: door.courier.connected)
        old = make_event()
        door.publish(monotonic_s=old.monotonic_s - 11)
        door.publish(event_type=EventType.LEFT, monotonic_s=old.monotonic_s - 11)
        seen.wait(lambda: len(seen.on("/journal")) == 2)

        late, left = events(seen.on("/journal"))
        assert late.replayed is True
        assert left.replayed is False, "the end of a visit is as old as its decision"
        assert [event.event_type for event in events(seen.on("/event"))] == [EventType.LEFT]


def test_live_events_expire_for_subscribers_that_come_back_late(
    mosquitto: Mosquitto, open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.mqtt.delivery.sender.LIVE_S", 2)
    away = Subscriber(mosquitto.port, client_id="away")
    assert away.subscribed.wait(LIMIT_S)
    away.close()
    door = open_door(mosquitto.port)
    wait_until(lambda: door.courier.connected)
    door.publish()
    wait_until(lambda: door.courier.outbox_health().depth == 0)
    time.sleep(2.1)

    with subscriber(mosquitto.port, client_id="away") as back:
        back.wait(lambda: back.on("/journal"))
        time.sleep(0.05)
        assert back.on("/event") == []


def test_anonymous_doors_name_nobody_on_any_topic(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, anonymous=True)
        wait_until(lambda: door.courier.connected)
        door.publish()
        door.publish(event_type=EventType.LEFT, subject=make_event().subject)
        seen.wait(lambda: len(seen.on("/journal")) == 2 and len(seen.on("/event")) == 2)
        door.courier.stop(5)
        seen.wait(lambda: seen.on("door-03/status")[-1:] == [b"offline"])

    assert b"p_8f21" in b"".join(message.payload for message in seen.seen), "the opaque id stays"
    for message in seen.seen:
        assert b"Alice" not in message.payload, message.topic
        assert b"0.41" not in message.payload, message.topic


def test_every_camera_of_an_event_has_topics_of_its_own(mosquitto: Mosquitto, open_door: OpenDoor) -> None:
    def of(camera: str) -> FaceEvent:
        return make_event(camera=camera)

    with subscriber(mosquitto.port) as seen:
        door = open_door(mosquitto.port, cameras=("front", "back"))
        door.courier.publish_event(of("front"))
        door.courier.publish_event(of("back"))
        seen.wait(lambda: seen.on("camera/front/journal") and seen.on("camera/back/journal"))
