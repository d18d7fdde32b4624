"""What others ask of a device: taken when it is right, refused with one count and one line when it is not."""

import json

import pytest

from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.mqtt.broker import Received
from edge.mqtt.contract.messages import MAX_ACK_BYTES, MAX_ACK_IDS
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.inbox import (
    MAX_REQUEST_BYTES,
    Commanded,
    Mailbox,
    ReceivedPush,
    Request,
    RequestReader,
    SyncGallery,
    TellAgain,
    subscriptions,
)

TOPICS = Topics("hq", "door-03")


def hear(payload: bytes, topic: str = TOPICS.gallery_desired) -> tuple[list[SyncGallery], dict[str, int]]:
    asked: list[SyncGallery] = []
    metrics = Metrics()
    RequestReader(TOPICS, asked.append, metrics).hear(Received(1, topic, payload, retained=True))
    return asked, metrics.counts()


def test_a_request_to_synchronise_is_passed_on():
    wanted = {"schema": "edge.gallery-desired/1", "version": 58}
    assert hear(json.dumps(wanted).encode()) == ([SyncGallery(58)], {})
    assert hear(b"{}") == ([SyncGallery(0)], {})


def test_a_retained_request_that_was_taken_back_asks_for_nothing():
    assert hear(b"") == ([], {})


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"sync", id="no JSON"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b'{"version": "58"}', id="a number as text"),
        pytest.param(b'{"version": -1}', id="negative"),
        pytest.param(b'{"version": 1e400}', id="infinite"),
        pytest.param(b'{"version": NaN}', id="not a number"),
        pytest.param(b'{"version": 9223372036854775808}', id="larger than a version can be"),
        pytest.param(b'{"version": 58, "url": "http://elsewhere"}', id="unknown key"),
        pytest.param(b'{"schema": "edge.gallery-desired/2"}', id="unknown schema"),
        pytest.param(b"[" * 2000 + b"]" * 2000, id="deep"),
        pytest.param(b" " * MAX_REQUEST_BYTES + b"{}", id="too long"),
    ],
)
def test_anything_else_is_refused_with_one_count_and_one_line(
    payload: bytes, caplog: pytest.LogCaptureFixture
):
    asked, counts = hear(payload)
    assert (asked, counts) == ([], {"received.refused": 1})
    assert len(caplog.records) == 1
    assert len(caplog.records[0].getMessage()) < 300


@pytest.mark.parametrize(
    ("payload", "retained", "asked"),
    [
        pytest.param(b"online", False, [TellAgain()], id="it has started"),
        pytest.param(b"offline", False, [], id="it stops"),
        pytest.param(b"online", True, [], id="it started before us, and reads what we retain"),
    ],
)
def test_a_building_system_that_starts_is_told_everything_again(payload: bytes, retained: bool, asked: list):
    found: list[Request] = []
    reader = RequestReader(TOPICS, found.append, Metrics(), "homeassistant/status")
    reader.hear(Received(1, "homeassistant/status", payload, retained=retained))
    assert found == asked
    assert subscriptions(TOPICS, "homeassistant/status")[1] == "homeassistant/status"


def test_other_topics_are_nobody_s_business():
    assert hear(b"{}", f"{TOPICS.root}/gallery/other") == ([], {})
    own = "edge/v1/hq/door-03"
    assert subscriptions(TOPICS) == (f"{own}/gallery/desired", f"{own}/command/+")


ID = "0194b6a0-0000-7000-8000-00000000000"


def hear_ack(payload: bytes, *, retained: bool = False) -> tuple[list[str], dict[str, int]]:
    named: list[str] = []
    metrics = Metrics()
    reader = RequestReader(TOPICS, lambda _: None, metrics, acknowledge=named.extend)
    reader.hear(Received(1, TOPICS.ack, payload, retained=retained))
    return named, metrics.counts()


def ack(*ids: object, **more: object) -> bytes:
    return json.dumps({"event_ids": ids, **more}).encode()


@pytest.mark.parametrize(
    ("payload", "named", "counts"),
    [
        pytest.param(ack(f"{ID}1", f"{ID}2"), [f"{ID}1", f"{ID}2"], {}, id="two events"),
        pytest.param(ack(f"{ID}1", schema="edge.ack/1"), [f"{ID}1"], {}, id="with its schema"),
        pytest.param(ack(f"{ID}1", f"{ID}1"), [f"{ID}1"], {}, id="twice the same"),
        pytest.param(ack(f"{ID}A".upper()), [f"{ID}a"], {}, id="capital letters"),
        pytest.param(ack(), [], {}, id="none"),
        pytest.param(ack(f"{ID}1", "", 7, None, [], {}), [f"{ID}1"], {"ack.bad": 5}, id="one good of six"),
        pytest.param(ack(f"{{{ID}1}}"), [], {"ack.bad": 1}, id="braces"),
        pytest.param(ack("' OR 1=1 --"), [], {"ack.bad": 1}, id="SQL"),
        pytest.param(ack("\ud800"), [], {"received.refused": 1}, id="half a character"),
        pytest.param(b"", [], {"received.refused": 1}, id="empty"),
        pytest.param(b"all", [], {"received.refused": 1}, id="no JSON"),
        pytest.param(b"[]", [], {"received.refused": 1}, id="a list"),
        pytest.param(b"{}", [], {"received.refused": 1}, id="without ids"),
        pytest.param(b"\xff\xfe{}", [], {"received.refused": 1}, id="not UTF-8"),
        pytest.param(b'{"event_ids": "*"}', [], {"received.refused": 1}, id="a text for the list"),
        pytest.param(b'{"event_ids": NaN}', [], {"received.refused": 1}, id="not a number"),
        pytest.param(ack(f"{ID}1", all=True), [], {"received.refused": 1}, id="unknown key"),
        pytest.param(ack(f"{ID}1", schema="edge.ack/2"), [], {"received.refused": 1}, id="unknown schema"),
        pytest.param(ack(*[f"{ID}1"] * (MAX_ACK_IDS + 1)), [], {"received.refused": 1}, id="too many"),
        pytest.param(b'{"event_ids":' + b"[" * 60_000, [], {"received.refused": 1}, id="deep"),
        pytest.param(b" " * MAX_ACK_BYTES + ack(f"{ID}1"), [], {"received.refused": 1}, id="too long"),
    ],
)
def test_an_acknowledgement_is_taken_where_it_is_right(
    payload: bytes, named: list[str], counts: dict[str, int], caplog: pytest.LogCaptureFixture
):
    assert hear_ack(payload) == (named, counts)
    assert len(caplog.records) == len(counts)
    assert all(len(record.getMessage()) < 300 for record in caplog.records)


def test_more_bytes_of_acknowledgements_than_are_taken_are_dropped_unread():
    named: list[str] = []
    metrics = Metrics()
    payload = ack(f"{ID}1")
    bucket = TokenBucket(1, 2 * len(payload), lambda: 0.0)
    reader = RequestReader(TOPICS, lambda _: None, metrics, acknowledge=named.extend, acks=bucket)
    for _ in range(5):
        reader.hear(Received(1, TOPICS.ack, payload))
    assert (named, metrics.counts()) == ([f"{ID}1"] * 2, {"ack.dropped": 3})


def test_a_retained_acknowledgement_is_dropped():
    assert hear_ack(ack(f"{ID}1"), retained=True) == ([], {"received.refused": 1})


def test_acknowledgements_mean_nothing_to_a_device_that_does_not_ask_for_them():
    assert hear(ack(f"{ID}1"), TOPICS.ack) == ([], {})
    assert TOPICS.ack not in subscriptions(TOPICS)
    assert TOPICS.ack in subscriptions(TOPICS, acks=True)


def command(number: int) -> Commanded:
    return Commanded("reload", Received(1, TOPICS.command("reload"), b"%d" % number))


def emptied(mailbox: Mailbox) -> list[Request]:
    found: list[Request] = []
    while (request := mailbox.take()) is not None:
        found.append(request)
    return found


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        pytest.param([SyncGallery(5), SyncGallery(7), SyncGallery(6)], [SyncGallery(7)], id="the highest"),
        pytest.param([SyncGallery(0), SyncGallery(7)], [SyncGallery(0)], id="in any case"),
        pytest.param([SyncGallery(7), SyncGallery(0)], [SyncGallery(0)], id="in any case, later"),
        pytest.param([TellAgain()] * 1000, [TellAgain()], id="born often"),
        pytest.param(
            [ReceivedPush("device", b"1"), ReceivedPush("fleet", b"2"), ReceivedPush("device", b"3")],
            [ReceivedPush("device", b"3"), ReceivedPush("fleet", b"2")],
            id="the newest of each layer",
        ),
        pytest.param([command(n) for n in range(25)], [command(n) for n in range(20)], id="first commands"),
    ],
)
def test_a_flood_fills_one_place_of_each_kind(asked: list[Request], left: list[Request]):
    woken: list[int] = []
    mailbox = Mailbox(lambda: woken.append(1), Metrics())
    for request in asked:
        mailbox.put(request)
    assert len(woken) == len(left)
    assert emptied(mailbox) == left


def test_what_was_taken_may_be_asked_again():
    mailbox = Mailbox(lambda: None, Metrics())
    for _ in range(3):
        mailbox.put(SyncGallery(0))
        mailbox.put(command(1))
        assert emptied(mailbox) == [SyncGallery(0), command(1)]


def test_refusals_do_not_fill_the_log(caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    reader = RequestReader(TOPICS, lambda _: None, metrics, complaints=TokenBucket(1, 3, lambda: 0.0))
    for _ in range(1000):
        reader.hear(Received(1, TOPICS.gallery_desired, b"{"))
    assert len(caplog.records) == 3
    assert metrics.counts()["received.refused"] == 1000


def test_pushes_that_a_flood_replaces_are_counted_and_an_empty_one_replaces_none():
    metrics = Metrics()
    mailbox = Mailbox(lambda: None, metrics)
    reader = RequestReader(TOPICS, mailbox.put, metrics, layers=("device",))
    for payload in (b"1", b"2", b"3", b""):
        reader.hear(Received(1, TOPICS.config_desired("device"), payload))
    assert emptied(mailbox) == [ReceivedPush("device", b"3")]
    assert metrics.counts() == {"config.refused": 3, "config.refused.superseded": 3}
    reader.hear(Received(1, TOPICS.config_desired("device"), b""))
    assert emptied(mailbox) == [ReceivedPush("device", b"")], "by itself it is refused, and reported"
