"""Identifiers: slugs of sites, devices, cameras, groups and scopes, ids of events; how ids are spelled."""

import os
import re
import unicodedata
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import StringConstraints

SLUG_PATTERN = "[a-z0-9-]{1,32}"
"""No `/`, `+`, `#` (topics), no `.` or `*` (paths and patterns), nothing that a shell would read."""

Slug = Annotated[str, StringConstraints(pattern=f"^{SLUG_PATTERN}$")]

UUID7_RANDOM_BYTES = 10
"""Bytes of randomness that an id takes; 74 of their 80 bits are used."""

UUID7_MAX_MS = 2**48 - 1
"""The last moment that fits into 48 bits of milliseconds since 1970."""


def is_slug(name: str) -> bool:
    """Return whether a name is one."""
    return re.fullmatch(SLUG_PATTERN, name) is not None


def composed(text: str) -> str:
    """Return a text in Unicode's form NFC: macOS writes an accent behind its letter, others both as one."""
    return unicodedata.normalize("NFC", text)


def spellings(text: str) -> set[str]:
    """Return a text as it is and in the two forms of Unicode that its accents may have."""
    return {text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))}


def uuid7(at: datetime, random: bytes | None = None) -> UUID:
    """Return the id for the moment `at` (with time zone); `random` is 10 bytes, by default the system's.

    Ids are unique anywhere and roughly in the order of time: those of one millisecond are in no order, and
    an id made under a wrong clock sorts wrongly. The id says who an event is, its `seq` says when its turn
    was. Times before 1970 count as 1970.

    Source: RFC 9562, section 5.7 (UUID version 7).

    Raises:
        ValueError: `random` has another length, or `at` lacks a time zone.
    """
    noise = os.urandom(UUID7_RANDOM_BYTES) if random is None else random
    if len(noise) != UUID7_RANDOM_BYTES:
        raise ValueError(f"random has {len(noise)} bytes; {UUID7_RANDOM_BYTES} are needed")
    if at.tzinfo is None:
        raise ValueError("a time without a zone names no moment; give it one")
    unix_ms = min(max(int(at.timestamp() * 1e3), 0), UUID7_MAX_MS)
    bits = int.from_bytes(noise)
    low_62 = bits & (2**62 - 1)
    high_12 = bits >> 62 & 0xFFF
    return UUID(int=unix_ms << 80 | 0x7 << 76 | high_12 << 64 | 0b10 << 62 | low_62)
