"""Ids of events: unique anywhere, roughly in the order of time. Reads no clock.

Source: RFC 9562, section 5.7 (UUID version 7).

Slugs: names of sites, devices, cameras, groups and scopes, safe in a topic, a path and a pattern.
"""

import os
import re
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import StringConstraints

PATTERN = "[a-z0-9-]{1,32}"
"""No `/`, `+`, `#` (topics), no `.` or `*` (paths and patterns), nothing that a shell would read."""

Slug = Annotated[str, StringConstraints(pattern=f"^{PATTERN}$")]


def is_slug(name: str) -> bool:
    """Return whether a name is one."""
    return re.fullmatch(PATTERN, name) is not None


RANDOM_BYTES = 10
"""Bytes of randomness that an id takes; 74 of their 80 bits are used."""

MAX_MS = 2**48 - 1


def uuid7(at: datetime, random: bytes | None = None) -> UUID:
    """Return the id for the moment `at` (with time zone); `random` is 10 bytes, by default the system's.

    Ids of one millisecond are in no order, and an id made under a wrong clock sorts wrongly: the id says
    who an event is, its `seq` says when its turn was. Times before 1970 count as 1970.

    Raises:
        ValueError: `random` has another length, or `at` lacks a time zone.
    """
    noise = os.urandom(RANDOM_BYTES) if random is None else random
    if len(noise) != RANDOM_BYTES:
        raise ValueError(f"random has {len(noise)} bytes; {RANDOM_BYTES} are needed")
    if at.tzinfo is None:
        raise ValueError("a time without a zone names no moment; give it one")
    unix_ms = min(max(int(at.timestamp() * 1e3), 0), MAX_MS)
    bits = int.from_bytes(noise)
    low_62 = bits & (2**62 - 1)
    high_12 = bits >> 62 & 0xFFF
    return UUID(int=unix_ms << 80 | 0x7 << 76 | high_12 << 64 | 0b10 << 62 | low_62)
