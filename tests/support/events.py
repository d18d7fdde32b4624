"""Events as devices publish them, and decisions read from them."""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from edge.fleet.journal.decision import JournalDecision, read_decision
from edge.mqtt.contract.encode import EventEncoder, stamp
from edge.mqtt.contract.topics import Topics
from tests.support.door import make_event

AT = datetime(2026, 8, 1, 7, 31, 22, tzinfo=UTC)


def event_id(number: int) -> str:
    return f"0194b6a0-0000-7000-8000-{number:012d}"


def event(seq: int, device: str = "door-03", **changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge.event/1",
        "event_type": "match",
        "event_id": event_id(seq),
        "seq": seq,
        "site": "hq",
        "device": device,
        "camera": "front",
        "captured_at": "2026-08-01T07:31:22.481Z",
        "subject": {"id": "p_8f21", "label": "Alice", "groups": []},
        "score": {"best": 0.61, "second": 0.39},
        "reason": None,
        "replayed": False,
    } | changes


def topic(device: str = "door-03", camera: str = "front") -> str:
    return Topics("hq", device).journal(camera)


@cache
def _around(device: str) -> tuple[bytes, bytes, bytes]:
    """Return what is before the id, between id and number, and behind the number of a door's event."""
    number, made = 987654321, make_event()
    encoder = EventEncoder("hq", device, "boot", clock=lambda: "synced")
    text = stamp(encoder.encode(made, number), AT, replayed=True)
    before, rest = text.split(made.event_id.encode())
    return before, *rest.split(b"%d" % number)  # type: ignore[return-value]


def sent_event(number: int, seq: int, device: str) -> bytes:
    """Return an event with all that a door sends, some 970 bytes; `number` makes its id."""
    before, between, after = _around(device)
    return b"".join((before, event_id(number).encode(), between, b"%d" % seq, after))


def decision(seq: int, device: str = "door-03", **changes: Any) -> JournalDecision:
    return read_decision(topic(device), json.dumps(event(seq, device, **changes)).encode())
