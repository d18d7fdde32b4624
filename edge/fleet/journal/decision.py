"""A decision as a consumer reads it from the journal: what it needs is checked, the rest is kept as it came.

A tolerant reader: a device of a later version may say more than this one knows, and must not be refused for
it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from edge.core.errors import JournalError
from edge.core.ids import Slug
from edge.core.text import first_problem
from edge.mqtt.contract.messages import EventId
from edge.mqtt.contract.topics import JOURNAL

MAX_BYTES = 64 * 1024
"""No event is larger than a few kilobytes."""


class _Subject(BaseModel):
    id: str
    label: str | None = None


class _Score(BaseModel):
    best: float | None = None


class _Read(BaseModel):
    """What must be in an event for a consumer to keep it in order."""

    model_config = ConfigDict(extra="ignore")

    event_id: EventId
    event_type: Annotated[str, Field(min_length=1, max_length=40)]
    seq: Annotated[int, Field(ge=1, lt=2**63)]
    site: Slug
    device: Slug
    camera: Slug
    captured_at: Annotated[str, Field(max_length=40)]
    replayed: bool = False
    reason: str | None = None
    subject: _Subject | None = None
    score: _Score | None = None


@dataclass(frozen=True, slots=True)
class JournalDecision:
    """One event of a journal. `source` is site/device; `text` is the whole event as one line of JSON."""

    source: str
    event_id: str
    seq: int
    camera: str
    event_type: str
    captured_at: str
    text: str
    line: str
    subject_id: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others: no device can pass its events off as those of another."""
        return self.source, self.event_id

    @property
    def captured(self) -> datetime | None:
        """When the frame was captured, as the device says; None where it says nothing that can be read."""
        try:
            moment = datetime.fromisoformat(self.captured_at)
        except ValueError:
            return None
        return moment if moment.tzinfo is not None else None


def read_decision(topic: str, payload: bytes) -> JournalDecision:
    """Return the event that was published to `topic`.

    Raises:
        JournalError: It is none, or it is not of the device and camera that the topic names.
    """
    if len(payload) > MAX_BYTES:
        raise JournalError(f"{topic}: {len(payload)} bytes are no event")
    decision = parse_decision(payload, topic)
    site, device = decision.source.split("/")
    if JOURNAL.topic(site=site, device=device, camera=decision.camera) != topic:
        raise JournalError(f"{topic}: an event of {decision.source}, camera {decision.camera}")
    return decision


def parse_decision(text: bytes | str, where: str) -> JournalDecision:
    """Return the event in `text`, which was found at `where`.

    Raises:
        JournalError: It is none.
    """
    try:
        found: Any = from_json(text, allow_inf_nan=False)
        read = _Read.model_validate(found)
    except ValidationError as error:
        raise JournalError(f"{where}: no event: {first_problem(error)}") from None
    except ValueError as error:
        raise JournalError(f"{where}: no event: {error}") from None
    whole = to_json(found).decode()
    return JournalDecision(
        f"{read.site}/{read.device}",
        read.event_id,
        read.seq,
        read.camera,
        read.event_type,
        read.captured_at,
        whole,
        _line(read),
        None if read.subject is None else read.subject.id,
    )


def subject_hash(subject_id: str) -> str:
    """Return what a database remembers of a subject who was erased."""
    return hashlib.sha256(subject_id.encode(errors="surrogatepass")).hexdigest()


def forget(decisions: Sequence[JournalDecision], erased: Mapping[str, datetime]) -> list[JournalDecision]:
    """Return `decisions`, without the subjects in `erased` in what was captured before; by `subject_hash`."""
    return [_forget(each, erased) for each in decisions] if erased else list(decisions)


def _forget(decision: JournalDecision, erased: Mapping[str, datetime]) -> JournalDecision:
    at = None if decision.subject_id is None else erased.get(subject_hash(decision.subject_id))
    if at is None or (decision.captured is not None and decision.captured > at):
        return decision
    return parse_decision(json.dumps(json.loads(decision.text) | {"subject": None}), decision.source)


def _line(read: _Read) -> str:
    """Return the event for people. Control characters of a label cannot reach the terminal."""
    words = [
        read.captured_at,
        f"{read.site}/{read.device}/{read.camera}",
        f"#{read.seq}",
        read.event_type,
        read.reason or "",
        "" if read.subject is None else f"{read.subject.id} {read.subject.label or ''}",
        "" if read.score is None or read.score.best is None else f"{read.score.best:.2f}",
        "(replayed)" if read.replayed else "",
    ]
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", " ".join(word.strip() for word in words if word.strip()))
