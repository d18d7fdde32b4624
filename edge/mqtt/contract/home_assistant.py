"""What Home Assistant has to know to show a door by itself: one device per camera, and the node they hang on.

Device discovery of Home Assistant 2024.11 and newer; pure documents, sends nothing. States come from the
topics that everybody reads. Source: Home Assistant, MQTT integration, device discovery payload; tried in
2026.11 (tests/e2e/test_home_assistant.py).
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from edge.core.types import EventType
from edge.mqtt.contract.topics import Topics

EXPIRE_S = 180
"""A node is a problem after three missed `health` messages."""

DIAGNOSTIC = {"entity_category": "diagnostic"}

PRESENT = "{{ 'ON' if value_json.present else 'OFF' }}"
LAST = (
    "{% set last = value_json.last %}{% set who = last.subject if last else none %}"
    "{{ (who.label or who.id) if who else 'nobody' }}"
)
LAST_AT = "{{ value_json.last.at if value_json.last else none }}"
DECISION = (
    "{% set event = value_json %}{{ {'event_type': event.event_type, 'event_id': event.event_id, "
    "'captured_at': event.captured_at, 'subject': event.subject.id if event.subject else none, "
    "'label': event.subject.label if event.subject else none, "
    "'groups': event.subject.groups if event.subject else [], 'reason': event.reason, "
    "'score': event.score.best if event.score else none, "
    "'liveness': event.liveness.score | default(none)} | to_json }}"
)
"""What an event entity keeps of a decision; Home Assistant writes all of it into its database."""

UNDELIVERED = "{{ 0 if value_json.outbox.unclaimed | default(false) else value_json.outbox.depth }}"
"""What waits although somebody wants it: Home Assistant itself keeps no journal."""

LATE = (
    "{{ 'ON' if value_json.late or value_json.problems or not value_json.outbox.durable or "
    "value_json.outbox.refused else 'OFF' }}"
)

TROUBLES = (
    "{{ {'problems': value_json.problems, 'remedies': value_json.remedies | default({}), "
    "'late': value_json.late} | tojson }}"
)
"""Attributes of the problem: what is wrong, and what to do about it."""

COMMAND = '{"schema":"edge.command/1","transaction":"home-assistant-{{ now().timestamp() | int }}"}'
ANSWER = "{{ 'done' if value_json.status == 'ok' else 'failed' }}"
ANSWERED = "{{ dict(value_json.data, error=value_json.error, answered_at=now().isoformat()) | to_json }}"

Document = dict[str, Any]


def documents(
    topics: Topics,
    cameras: tuple[str, ...],
    version: str,
    prefix: str,
    *,
    name: str | None = None,
    camera_names: Mapping[str, str] | None = None,
    buttons: bool = False,
    pictures: Collection[str] = (),
) -> dict[str, bytes]:
    """Return the retained discovery documents by topic: the node's first, then one per camera.

    `name` and `camera_names` are what people call the door and its cameras; by default their names in the
    topics. `buttons` says whether the device answers questions that are not signed, `pictures` which cameras
    publish snapshots.
    """
    name = name or f"Door {topics.device}"
    found = {_topic(topics, prefix): _node(topics, name, version, buttons=buttons)}
    for camera in cameras:
        called = f"{name} {(camera_names or {}).get(camera, camera)}"
        document = _camera(topics, camera, called, version, pictures=camera in pictures)
        found[_topic(topics, prefix, camera)] = document
    return {topic: json.dumps(document, separators=(",", ":")).encode() for topic, document in found.items()}


def describes(topics: Topics, topic: str) -> bool:
    """Return whether a discovery topic, whatever its prefix, is of this device or of a camera of it."""
    own, (_, _, what) = _id(topics), topic.partition("/device/")
    return what.startswith((f"{own}/", f"{own}__"))


def birth_topic(prefix: str) -> str:
    """Return where Home Assistant says `online` after a start, and wants to be told everything again."""
    return f"{prefix}/status"


def _topic(topics: Topics, prefix: str, camera: str | None = None) -> str:
    return f"{prefix}/device/{_id(topics, camera)}/config"


def _id(topics: Topics, camera: str | None = None) -> str:
    """Return an id of letters, digits, - and _; two underscores keep the names apart, which hold none."""
    return "__".join(("edge", topics.site, topics.device, *((camera,) if camera else ())))


def _node(topics: Topics, name: str, version: str, *, buttons: bool) -> Document:
    health, info = topics.health, topics.info
    parts: dict[str, Document] = {
        "problem": {
            "p": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "state_topic": health,
            "value_template": LATE,
            "expire_after": EXPIRE_S,
            "json_attributes_topic": health,
            "json_attributes_template": TROUBLES,
            **DIAGNOSTIC,
        },
        "outbox": _measured("Undelivered decisions", "mdi:tray-full", health, UNDELIVERED),
        "memory": _measured(
            "Memory",
            "mdi:memory",
            health,
            "{{ value_json.rss_mb }}",
            device_class="data_size",
            unit_of_measurement="MB",
        ),
        "temperature": _measured(
            "Temperature",
            "mdi:thermometer",
            health,
            "{{ value_json.temperature_c }}",
            device_class="temperature",
            unit_of_measurement="°C",
        ),
        "subjects": _measured("Subjects", "mdi:account-group", info, "{{ value_json.gallery_size }}"),
        "threshold": _measured("Threshold", "mdi:tune-vertical", info, "{{ value_json.threshold }}"),
    }
    if buttons:
        parts |= _question(topics, "selftest", "Self-test", "mdi:clipboard-check-outline")
        parts |= _question(topics, "diagnostics", "Diagnostics", "mdi:stethoscope")
    device = {"ids": [_id(topics)], "name": name, "mf": "edge", "mdl": "Face recognition node", "sw": version}
    return {
        "dev": device,
        "o": {"name": "edge", "sw": version},
        "availability": [{"topic": topics.status}],
        "cmps": _named(_id(topics), parts),
    }


def _measured(name: str, icon: str, topic: str, template: str, **more: str) -> Document:
    """Return a sensor whose numbers Home Assistant keeps statistics of."""
    return {
        "p": "sensor",
        "name": name,
        "icon": icon,
        "state_class": "measurement",
        "state_topic": topic,
        "value_template": template,
        **more,
        **DIAGNOSTIC,
    }


def _question(topics: Topics, verb: str, name: str, icon: str) -> dict[str, Document]:
    """Return the button that asks, and what tells the answer."""
    return {
        verb: {
            "p": "button",
            "name": name,
            "icon": icon,
            "command_topic": topics.command(verb),
            "command_template": COMMAND,
            "qos": 1,
            **DIAGNOSTIC,
        },
        f"{verb}_answer": {
            "p": "sensor",
            "name": f"{name}: answer",
            "icon": icon,
            "device_class": "enum",
            "options": ["done", "failed"],
            "state_topic": topics.response(verb),
            "value_template": ANSWER,
            "json_attributes_topic": topics.response(verb),
            "json_attributes_template": ANSWERED,
            **DIAGNOSTIC,
        },
    }


def _camera(topics: Topics, camera: str, name: str, version: str, *, pictures: bool) -> Document:
    own, state, event = _id(topics, camera), topics.state(camera), topics.event(camera)
    parts: dict[str, Document] = {
        "decision": {
            "p": "event",
            "name": "Decision",
            "icon": "mdi:face-recognition",
            "state_topic": event,
            "event_types": [kind.value for kind in EventType],
            "value_template": DECISION,
        },
        "occupancy": {
            "p": "binary_sensor",
            "name": "Somebody present",
            "device_class": "occupancy",
            "state_topic": state,
            "value_template": PRESENT,
        },
        "last": {
            "p": "sensor",
            "name": "Last subject",
            "icon": "mdi:account-check",
            "state_topic": state,
            "value_template": LAST,
        },
        "last_at": {
            "p": "sensor",
            "name": "Last decision",
            "device_class": "timestamp",
            "state_topic": state,
            "value_template": LAST_AT,
        },
        "problem": {
            "p": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "state_topic": topics.camera_status(camera),
            "payload_on": "offline",
            "payload_off": "online",
            "availability": [{"topic": topics.status}],
            **DIAGNOSTIC,
        },
    }
    if pictures:
        parts["snapshot"] = {
            "p": "image",
            "name": "Snapshot",
            "icon": "mdi:camera-account",
            "image_topic": topics.snapshot(camera),
            "content_type": "image/jpeg",
        }
    triggers = {
        f"{own}__on_{kind.value}": {
            "p": "device_automation",
            "automation_type": "trigger",
            "type": "decision",
            "subtype": kind.value,
            "topic": event,
            "value_template": "{{ value_json.event_type }}",
            "payload": kind.value,
        }
        for kind in EventType
    }
    return {
        "dev": {
            "ids": [own],
            "name": name,
            "mf": "edge",
            "mdl": "Door camera",
            "sw": version,
            "via_device": _id(topics),
        },
        "o": {"name": "edge", "sw": version},
        "availability": [{"topic": topics.status}, {"topic": topics.camera_status(camera)}],
        "availability_mode": "all",
        "cmps": _named(own, parts) | triggers,
    }


def _named(own: str, entities: dict[str, Document]) -> dict[str, Document]:
    """Return entities of a device by the unique id that each has."""
    return {f"{own}__{key}": {"unique_id": f"{own}__{key}", **entity} for key, entity in entities.items()}
