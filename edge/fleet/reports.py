"""What is told about a fleet: what was published, and how its scopes and signing roles stand. Data only."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Publication:
    """One gallery as it was published; `excluded` counts revoked subjects that were left out."""

    scope: str
    version: int
    count: int
    excluded: int
    bytes: int
    delta_bytes: int | None
    groups: tuple[str, ...] = ()
    """Whose subjects were published; none: everybody."""

    beside: bool = False
    """Whether it is the one that the scope may be switched to; its versions count apart."""


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """A signing role: its metadata's version, when it must be signed again, who must agree."""

    role: str
    version: int
    expires: datetime
    keys: int
    threshold: int
    key_ids: tuple[str, ...]
    """As in the names of the key files; the oldest first."""


@dataclass(frozen=True, slots=True)
class BesideStatus:
    """The gallery that a scope may be switched to."""

    version: int
    count: int
    model_id: str


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """The gallery of a scope; version 0: none was published yet. `not_after` is ISO 8601."""

    scope: str
    version: int
    count: int
    model_id: str | None
    groups: tuple[str, ...]
    not_after: str | None
    beside: BesideStatus | None
