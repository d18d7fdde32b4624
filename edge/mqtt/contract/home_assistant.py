"""What Home Assistant has to know to show a door by itself: one device per camera, and the node they hang on.

Device discovery of Home Assistant 2024.11 and newer; pure documents, sends nothing. States come from the
topics that everybody reads. Source: Home Assistant, MQTT integration, device discovery payload.
"""

import json
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

Document = dict[str, Any]


def documents(topics: Topics, cameras: tuple[str, ...], version: str, prefix: str) -> dict[str, bytes]:
    """Return the retained discovery documents by topic: the node's first, then one per camera."""
    found = {_topic(topics, prefix): _node(topics, version)}
    for camera in cameras:
        found[_topic(topics, prefix, camera)] = _camera(topics, camera, version)
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


def _node(topics: Topics, version: str) -> Document:
    own, health, info = _id(topics), topics.health, topics.info
    return {
        "dev": {
            "ids": [own],
            "name": f"Door {topics.device}",
            "mf": "edge",
            "mdl": "Face recognition node",
            "sw": version,
        },
        "o": {"name": "edge", "sw": version},
        "availability": [{"topic": topics.status}],
        "cmps": _named(
            {
                f"{own}__problem": {
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
                **_sensor(own, "outbox", "Undelivered decisions", health, UNDELIVERED),
                **_sensor(own, "memory", "Memory", health, "{{ value_json.rss_mb }}", unit="MB"),
                **_sensor(
                    own, "temperature", "Temperature", health, "{{ value_json.temperature_c }}", unit="°C"
                ),
                **_sensor(own, "subjects", "Subjects", info, "{{ value_json.gallery_size }}"),
                **_sensor(own, "threshold", "Threshold", info, "{{ value_json.threshold }}"),
            }
        ),
    }


def _sensor(own: str, key: str, name: str, topic: str, template: str, unit: str | None = None) -> Document:
    document = {"p": "sensor", "name": name, "state_topic": topic, "value_template": template, **DIAGNOSTIC}
    if unit is not None:
        document["unit_of_measurement"] = unit
    return {f"{own}__{key}": document}


def _camera(topics: Topics, camera: str, version: str) -> Document:
    own, state = _id(topics, camera), topics.state(camera)
    return {
        "dev": {
            "ids": [own],
            "name": f"Door {topics.device} {camera}",
            "mf": "edge",
            "mdl": "Door camera",
            "sw": version,
            "via_device": _id(topics),
        },
        "o": {"name": "edge", "sw": version},
        "availability": [{"topic": topics.status}, {"topic": topics.camera_status(camera)}],
        "availability_mode": "all",
        "cmps": _named(
            {
                f"{own}__decision": {
                    "p": "event",
                    "name": "Decision",
                    "state_topic": topics.event(camera),
                    "event_types": [kind.value for kind in EventType],
                },
                f"{own}__occupancy": {
                    "p": "binary_sensor",
                    "name": "Somebody present",
                    "device_class": "occupancy",
                    "state_topic": state,
                    "value_template": PRESENT,
                },
                f"{own}__last": {
                    "p": "sensor",
                    "name": "Last subject",
                    "state_topic": state,
                    "value_template": LAST,
                },
                f"{own}__problem": {
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
        ),
    }


def _named(components: dict[str, Document]) -> dict[str, Document]:
    """Return components with a unique id each: that under which they are listed."""
    return {key: {"unique_id": key, **component} for key, component in components.items()}
