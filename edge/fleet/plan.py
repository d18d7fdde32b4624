"""What an operator decided about a fleet (`fleet.json`): how roles sign, who is published where.

Signs and publishes nothing; that is done in `fleet`.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edge.core.errors import FleetError
from edge.core.files import StateFile
from edge.fleet.repository import RolePlan
from edge.gallery.format.published import MODELS, check_scope

FILE_NAME = "fleet.json"
SCOPE = "scope"
"""The plan of the role of every scope."""

PLANS = {
    "root": RolePlan(keys=3, threshold=2, days=730),
    "targets": RolePlan(keys=1, threshold=1, days=365),
    "snapshot": RolePlan(keys=1, threshold=1, days=7),
    "timestamp": RolePlan(keys=1, threshold=1, days=7),
    MODELS: RolePlan(keys=1, threshold=1, days=365),
    SCOPE: RolePlan(keys=1, threshold=1, days=365),
}
"""One root key of three may be lost or stolen. A server that holds back updates is found out in seven days;
the machine with the online keys runs `edge fleet renew` every day."""

MAX_KEYS = 16
MAX_DAYS = 3650
MAX_BYTES = 1 << 20


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    keys: int = Field(ge=1, le=MAX_KEYS)
    threshold: int = Field(ge=1, le=MAX_KEYS)
    days: int = Field(ge=1, le=MAX_DAYS)


class FleetConfig(BaseModel):
    """The content of fleet.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tenant: str
    plans: dict[str, _Plan]
    revoked: tuple[str, ...] = ()
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By scope, whose subjects are published for it; a scope that is not here gets everybody."""

    def plan(self, role: str) -> RolePlan:
        """Return how a role signs; all scopes do alike."""
        plan = self.plans.get(role) or self.plans[SCOPE]
        return RolePlan(plan.keys, plan.threshold, plan.days)

    def with_revoked(self, subject_ids: set[str]) -> "FleetConfig":
        """Return the same with exactly these subjects revoked."""
        return self.model_copy(update={"revoked": tuple(sorted(subject_ids))})

    def with_groups(self, scope: str, groups: tuple[str, ...]) -> "FleetConfig":
        """Return the same with these groups for a scope; none: everybody."""
        others = {name: each for name, each in self.groups.items() if name != scope}
        return self.model_copy(update={"groups": {**others, scope: groups} if groups else others})


def new_config(tenant: str, plans: Mapping[str, RolePlan]) -> FleetConfig:
    """Return the configuration of a new fleet; `plans` replaces single roles of `PLANS`.

    Raises:
        FleetError: The tenant is badly named, or a role cannot sign like that.
    """
    check_scope(tenant, "the tenant")
    merged = {**PLANS, **plans}
    for role, plan in merged.items():
        possible = 1 <= plan.threshold <= plan.keys <= MAX_KEYS and 1 <= plan.days <= MAX_DAYS
        if role not in PLANS or not possible:
            raise FleetError(
                f"role {role!r} cannot sign with {plan.threshold} of {plan.keys} keys for {plan.days} days"
            )
    return FleetConfig(
        tenant=tenant,
        plans={r: _Plan(keys=p.keys, threshold=p.threshold, days=p.days) for r, p in merged.items()},
    )


def load_config(directory: Path) -> FleetConfig:
    """Return what was decided about the fleet in a directory.

    Raises:
        FleetError: There is no fleet, or the file is damaged.
        FileError: It cannot be read.
    """
    file = _file(directory)
    config = file.read()
    if config is None:
        raise FleetError(f"{directory}: there is no fleet; make one with `edge fleet init`")
    if missing := PLANS.keys() - config.plans.keys():
        raise FleetError(f"{file.path}: says nothing of {sorted(missing)[0]}; {file.mend}")
    return config


def save_config(directory: Path, config: FleetConfig) -> None:
    """Write what was decided, whole.

    Raises:
        FileError: It cannot be written.
    """
    _file(directory).write(config)


def _file(directory: Path) -> StateFile[FleetConfig]:
    path = directory / FILE_NAME
    return StateFile(path, FleetConfig, MAX_BYTES, FleetError, "restore it from a backup", indent=1)
