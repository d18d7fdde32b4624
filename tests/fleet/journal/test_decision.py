"""What a consumer reads: tolerant of what is new, strict about what it relies on."""

import json

import pytest

from edge.core.errors import JournalError
from edge.fleet.journal.decision import MAX_BYTES, read_decision
from edge.mqtt.contract.encode import EventEncoder, stamp
from tests.support.door import make_event, now
from tests.support.events import decision, event, event_id, topic


def test_what_a_device_really_sends_is_read():
    encoder = EventEncoder("hq", "door-03", "boot", clock=lambda: "synced")
    sent = make_event()
    found = read_decision(topic(), stamp(encoder.encode(sent, 7), now(), replayed=True))
    assert (found.source, found.event_id, found.seq) == ("hq/door-03", sent.event_id, 7)
    assert found.line.endswith("hq/door-03/front #7 match p_8f21 Alice Example 0.61 (replayed)")


def test_what_is_new_is_kept_and_takes_one_line():
    found = decision(1, mood="\n{é}")
    assert json.loads(found.text)["mood"] == "\n{é}"
    assert "\n" not in found.text


def test_a_label_cannot_steer_the_terminal():
    line = decision(1, subject={"id": "p", "label": "\x1b[2J\r\x9b"}).line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("where", "payload"),
    [
        pytest.param(topic(), b"", id="empty"),
        pytest.param(topic(), b"online", id="no JSON"),
        pytest.param(topic(), b"\xff{}", id="not UTF-8"),
        pytest.param(topic(), b"[]", id="a list"),
        pytest.param(topic(), b"{}", id="nothing in it"),
        pytest.param(topic(), b"[" * 60_000, id="deep"),
        pytest.param(topic(), b" " * MAX_BYTES + json.dumps(event(1)).encode(), id="too long"),
        pytest.param(topic(), json.dumps(event(0)).encode(), id="number 0"),
        pytest.param(topic(), json.dumps(event(2**63)).encode(), id="a number too large"),
        pytest.param(topic(), json.dumps(event(1, event_id="1")).encode(), id="no id"),
        pytest.param(topic(), json.dumps(event(1, score={"best": float("nan")})).encode(), id="NaN"),
        pytest.param(topic("door-04"), json.dumps(event(1)).encode(), id="of another device"),
        pytest.param(topic(camera="back"), json.dumps(event(1)).encode(), id="of another camera"),
        pytest.param(topic(), json.dumps(event(1, site="hq/x")).encode(), id="a site with a slash"),
    ],
)
def test_what_is_no_event_of_this_topic_is_refused_in_one_line(where: str, payload: bytes):
    with pytest.raises(JournalError) as caught:
        read_decision(where, payload)
    assert str(caught.value).startswith(where)
    assert "\n" not in str(caught.value)


def test_the_same_id_of_two_devices_is_two_decisions():
    assert decision(1).key != decision(1, "door-04").key
    assert decision(1).event_id == event_id(1)
