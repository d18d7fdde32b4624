"""What is told of a fleet: what was published, and how its scopes and signing roles stand. Needs no key."""

from dataclasses import dataclass
from datetime import datetime

from edge.fleet.keys import KEY_ID_CHARS
from edge.fleet.repository import TOP, Repository
from edge.gallery.format.published import candidate_path, full_path, scope_role


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

    candidate: bool = False
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
class CandidateStatus:
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
    candidate: CandidateStatus | None


def role_statuses(repository: Repository) -> list[RoleStatus]:
    """Return how all roles stand."""
    root = repository.root().signed
    rules = {**{role: root.roles[role] for role in TOP}, **repository.delegated()}
    return [
        RoleStatus(
            role,
            signed.version,
            signed.expires,
            len(rule.keyids),
            rule.threshold,
            tuple(key_id[:KEY_ID_CHARS] for key_id in rule.keyids),
        )
        for role, rule in rules.items()
        for signed in (repository.signed(role),)
    ]


def scope_status(repository: Repository, scope: str, groups: tuple[str, ...]) -> ScopeStatus:
    """Return what is published for a scope, for these `groups` (none: for everybody)."""
    targets = repository.role(scope_role(scope)).signed.targets
    info, candidate = targets.get(full_path(scope)), targets.get(candidate_path(scope))
    said = info.custom if info else {}
    return ScopeStatus(
        scope,
        said.get("version", 0),
        said.get("count", 0),
        said.get("model_id"),
        groups,
        said.get("not_after"),
        CandidateStatus(candidate.custom["version"], candidate.custom["count"], candidate.custom["model_id"])
        if candidate
        else None,
    )
