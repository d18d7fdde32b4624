"""Slugs: names of sites, devices, cameras, groups and scopes, safe in a topic, a path and a pattern."""

import re
from typing import Annotated

from pydantic import StringConstraints

PATTERN = "[a-z0-9-]{1,32}"
"""No `/`, `+`, `#` (topics), no `.` or `*` (paths and patterns), nothing that a shell would read."""

Slug = Annotated[str, StringConstraints(pattern=f"^{PATTERN}$")]


def is_slug(name: str) -> bool:
    """Return whether a name is one."""
    return re.fullmatch(PATTERN, name) is not None
