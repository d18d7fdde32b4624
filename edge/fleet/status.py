"""How a fleet's scopes and signing roles stand, by what is published. Needs no key."""

from edge.fleet.keys import KEY_ID_CHARS
from edge.fleet.reports import BesideStatus, RoleStatus, ScopeStatus
from edge.fleet.repository import TOP, Repository
from edge.gallery.format.published import full_path, next_path, scope_role


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
    info, beside = targets.get(full_path(scope)), targets.get(next_path(scope))
    said = info.custom if info else {}
    return ScopeStatus(
        scope,
        said.get("version", 0),
        said.get("count", 0),
        said.get("model_id"),
        groups,
        said.get("not_after"),
        BesideStatus(beside.custom["version"], beside.custom["count"], beside.custom["model_id"])
        if beside
        else None,
    )
