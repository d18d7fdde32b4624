"""Events as devices publish them, and decisions read from them."""

import json
from datetime import UTC, datetime
from typing import Any

from edge.fleet.journal.decision import JournalDecision, read_decision
from edge.mqtt.contract.topics import Topics

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


def decision(seq: int, device: str = "door-03", **changes: Any) -> JournalDecision:
    return read_decision(topic(device), json.dumps(event(seq, device, **changes)).encode())
