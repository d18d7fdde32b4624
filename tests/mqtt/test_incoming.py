"""What others ask of a device: taken when it is right, refused with one count and one line when it is not."""

import json

import pytest

from edge.metrics import Metrics
from edge.mqtt.broker import Received
from edge.mqtt.incoming import MAX_REQUEST_BYTES, Incoming, Request, SyncGallery, TellAgain, subscriptions
from edge.mqtt.topics import Topics

TOPICS = Topics("hq", "door-03")


def hear(payload: bytes, topic: str = TOPICS.gallery_desired) -> tuple[list[SyncGallery], dict[str, int]]:
    asked: list[SyncGallery] = []
    metrics = Metrics()
    Incoming(TOPICS, asked.append, metrics).hear(Received(1, topic, payload, retained=True))
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
    incoming = Incoming(TOPICS, found.append, Metrics(), "homeassistant/status")
    incoming.hear(Received(1, "homeassistant/status", payload, retained=retained))
    assert found == asked
    assert subscriptions(TOPICS, "homeassistant/status")[1] == "homeassistant/status"


def test_other_topics_are_nobody_s_business():
    assert hear(b"{}", f"{TOPICS.root}/gallery/other") == ([], {})
    assert subscriptions(TOPICS) == ("edge/v1/hq/door-03/gallery/desired",)
