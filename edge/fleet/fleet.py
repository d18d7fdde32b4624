"""The operator's side of the fleet: who may be at which door, signed, sealed and published.

    <directory>/fleet.json           tenant, how roles sign, who was revoked
    <directory>/published/           what a static web server offers; holds nothing that is secret
    keys/                            see `keys`; anywhere, by default <directory>/keys

Each scope (a door, or doors alike) has its own signing role and its own sealing key: a device is never given
what is not of its scope, and could not open it. The published gallery is the operator's only copy of it. How
signatures are made is known to `repository` alone; photos and embedders are not known here.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.core import files
from edge.core.clock import Clock
from edge.core.errors import FleetError
from edge.fleet.galleries import ScopeGalleries, SubjectPlaces, check_nobody_missing, in_groups
from edge.fleet.keys import KeyRing
from edge.fleet.plan import FILE_NAME, FleetConfig, load_config, new_config, save_config
from edge.fleet.repository import TOP, Repository, RolePlan
from edge.fleet.status import (
    CandidateStatus,
    Publication,
    RoleStatus,
    ScopeStatus,
    role_statuses,
    scope_status,
)
from edge.gallery.format.published import (
    MODELS,
    candidate_path,
    check_scope,
    full_path,
    model_path,
    scope_paths,
    scope_role,
)
from edge.gallery.gallery import Gallery

LOCK_TIMEOUT_S = 10.0
"""How long a change waits for another one to end."""


def init_fleet(
    directory: Path,
    keys: KeyRing,
    tenant: str,
    clock: Clock,
    plans: Mapping[str, RolePlan] | None = None,
    scopes: Sequence[str] = (),
) -> "Fleet":
    """Make a fleet: its keys, and a repository that is valid and without galleries.

    `plans` replaces single roles of `PLANS`.

    Raises:
        FleetError: There is a fleet already, the plan is impossible, a scope is badly named or named twice,
            or the directory cannot be written.
    """
    config = new_config(tenant, plans or {})
    for number, scope in enumerate(scopes):
        if check_scope(scope, "the scope") in scopes[:number]:
            raise FleetError(f"scope {scope!r} is named twice; name it once")
    if (directory / FILE_NAME).exists():
        raise FleetError(f"{directory}: there is a fleet already; choose another directory")
    try:
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(files.PASSABLE_DIRECTORY)
    except OSError as error:
        raise FleetError(f"{directory}: cannot be made: {error.strerror}") from None
    fleet = Fleet(directory, keys, clock, config)
    fleet.repository.create({role: config.plan(role) for role in TOP})
    fleet.repository.delegate(MODELS, [model_path("*", "*")], config.plan(MODELS))
    fleet.change(config)
    for scope in scopes:
        fleet.add_scope(scope)
    return fleet


def open_fleet(directory: Path, keys: KeyRing, clock: Clock) -> "Fleet":
    """Return the fleet in a directory. Raises FleetError where there is none, or it is damaged."""
    return Fleet(directory, keys, clock, load_config(directory))


@contextmanager
def fleet_for_change(directory: Path, keys: KeyRing, clock: Clock) -> Iterator["Fleet"]:
    """Open a fleet for a change that nobody else makes at the same time.

    Raises:
        FleetError: There is none, or it is damaged.
        FileError: Somebody else is changing it for longer than `LOCK_TIMEOUT_S`.
    """
    path = open_fleet(directory, keys, clock).lock_path
    with files.sole_user(path, LOCK_TIMEOUT_S, clock.monotonic):
        yield open_fleet(directory, keys, clock)


class Fleet:
    """One operator's scopes. One process at a time: hold `lock_path` for a change."""

    def __init__(self, directory: Path, keys: KeyRing, clock: Clock, config: FleetConfig) -> None:
        self.directory = directory
        self.published = directory / "published"
        self.lock_path = directory / "lock"
        self.repository = Repository(self.published, keys, self._days, clock.now)
        self._galleries = ScopeGalleries(self.repository, keys, config.tenant)
        self._keys = keys
        self._config = config

    @property
    def tenant(self) -> str:
        """Whose fleet it is."""
        return self._config.tenant

    @property
    def revoked(self) -> tuple[str, ...]:
        """The subjects that no gallery may hold any more."""
        return self._config.revoked

    def scopes(self) -> list[str]:
        """Return the scopes, in the order of their making."""
        names = self.repository.delegated()
        return [name.removeprefix(scope_role("")) for name in names if name != MODELS]

    def trusted_root(self) -> bytes:
        """Return the newest root: what a device trusts to begin with. No secret; it must arrive unaltered."""
        return self.repository.root().to_bytes()

    def add_scope(self, scope: str) -> None:
        """Make a scope: its role, its signing key and its sealing key. It has no gallery yet.

        Raises:
            FleetError: Badly named, there already, keys of `targets` are missing, or not to be written.
        """
        check_scope(scope, "the scope")
        if scope in self.scopes():
            raise FleetError(f"scope {scope!r} is there already")
        self._keys.create_sealing(scope)
        role = scope_role(scope)
        self.repository.delegate(role, scope_paths(scope), self._config.plan(role))

    def gallery(self, scope: str, *, candidate: bool = False) -> Gallery | None:
        """Return what is published for a scope, with its published version; None before the first.

        `candidate`: the one that the scope may be switched to.

        Raises:
            FleetError: No such scope, its sealing key is missing, or it was altered.
        """
        self._check_known(scope)
        found = self._galleries.read(scope, candidate_path(scope) if candidate else full_path(scope))
        return None if found is None else found[0]

    def publish_gallery(
        self,
        scope: str,
        gallery: Gallery,
        *,
        model: str | None = None,
        groups: Sequence[str] | None = None,
        candidate: bool = False,
        allow_empty: bool = False,
        allow_missing: bool = False,
    ) -> Publication:
        """Publish a gallery for a scope, without those who were revoked, as the next version.

        Only those of `groups` are published (empty: everybody), and remembered for when it is unset. `model`
        names the published model that doors need for it. With it goes the difference to the version before,
        where that is worth it. `candidate`: it becomes what the scope may be switched to.

        Raises:
            FleetError: No such scope, somebody would be locked out, keys are missing, or not to be written.
        """
        self._check_known(scope)
        wanted = self.groups(scope) if groups is None else tuple(groups)
        chosen = in_groups(gallery, wanted)
        allowed = chosen.without_subjects(set(self.revoked))
        if not allowed.size and not allow_empty:
            raise FleetError(
                f"scope {scope!r}: the gallery is empty and would lock everybody out; if that is meant, say "
                "--allow-empty"
            )
        path = candidate_path(scope) if candidate else full_path(scope)
        if candidate and not allow_missing:
            current = self._galleries.read(scope, full_path(scope))
            check_nobody_missing(scope, current, allowed)
        published = self._galleries.publish(scope, {path: (allowed, model)})
        if wanted != self.groups(scope):
            self.change(self._config.with_groups(scope, wanted))
        return replace(published, excluded=chosen.size - allowed.size, groups=wanted)

    def groups(self, scope: str) -> tuple[str, ...]:
        """Return the groups that are published for a scope; none: everybody is."""
        return self._config.groups.get(scope, ())

    def switch(self, scope: str, *, allow_missing: bool = False) -> Publication:
        """Exchange the gallery of a scope and its candidate: the next switch is the way back.

        Raises:
            FleetError: There is no candidate, it lacks somebody, keys are missing, or not to be written.
        """
        self._check_known(scope)
        current = self._galleries.read(scope, full_path(scope))
        candidate = self._galleries.read(scope, candidate_path(scope))
        if current is None or candidate is None:
            raise FleetError(
                f"scope {scope!r}: there is no candidate to switch to; see `edge fleet publish --candidate`"
            )
        if not allow_missing:
            check_nobody_missing(scope, current, candidate[0])
        return self._galleries.publish(scope, {full_path(scope): candidate, candidate_path(scope): current})

    def drop_candidate(self, scope: str) -> None:
        """Withdraw what a scope may be switched to, and with it the way back from a switch.

        Raises:
            FleetError: No such scope, keys are missing, or not to be written.
        """
        self._check_known(scope)
        self._galleries.withdraw_candidate(scope)

    def revoke(
        self, subject_id: str, told: Callable[[Publication], None] = lambda published: None
    ) -> list[Publication]:
        """Take a subject out of every scope, for good: later galleries are published without it as well.

        Goes through wherever it can. `told` hears of each scope at once. Done again, it also deletes what was
        left over of it, in every scope.

        Raises:
            FleetError: It is in no scope; or it is revoked, and scopes that cannot be published are named.
        """
        scopes, again = self.scopes(), subject_id in self.revoked
        found = SubjectPlaces.of(subject_id, scopes, self._galleries)
        if not (found.holding or found.failed or found.removed or again):
            raise FleetError(f"subject {subject_id!r} is in no published gallery")
        if not again:
            self.change(self._config.with_revoked({*self.revoked, subject_id}))
        return found.take_out(self._galleries, told, left_over=scopes if again else ())

    def reinstate(self, subject_id: str) -> None:
        """Let a revoked subject be published again; publishes nothing.

        Raises:
            FleetError: It was not revoked.
        """
        if subject_id not in self.revoked:
            raise FleetError(f"subject {subject_id!r} was not revoked")
        self.change(self._config.with_revoked({*self.revoked} - {subject_id}))

    def publish_model(self, name: str, files: Mapping[str, bytes]) -> None:
        """Publish the files of a model, such as its manifest and its weights, by their names.

        Raises:
            FleetError: A name cannot be a path, keys are missing, or not to be written.
        """
        targets: dict[str, tuple[bytes, dict[str, Any]]] = {
            model_path(name, file): (data, {"model": name, "sha256": hashlib.sha256(data).hexdigest()})
            for file, data in files.items()
        }
        self.repository.publish(MODELS, targets, ())

    def rotate_key(self, role: str) -> Path:
        """Replace the oldest key of a role, a scope's is `scope-<scope>`; returns the old key's file.

        Raises:
            FleetError: No such role, the keys that must agree are missing, or not to be written.
        """
        if role not in (*TOP, *self.repository.delegated()):
            raise FleetError(f"there is no role {role!r}; see `edge fleet status`")
        return self._keys.signing_path(role, self.repository.rotate(role))

    def rotate_sealing(self, scope: str, *, prepare: bool = False) -> Publication | None:
        """Replace the key that seals the galleries of a scope, and publish them sealed with the new one.

        With `prepare` the new key is made and nothing else: doors that have both keys open both. Returns None
        where nothing is published.

        Raises:
            FleetError: No such scope, keys are missing, or not to be written.
        """
        self._check_known(scope)
        key = self._keys.prepare_sealing(scope)[-1]
        if prepare:
            return None
        found = {
            path: self._galleries.read(scope, path) for path in (full_path(scope), candidate_path(scope))
        }
        galleries = {path: each for path, each in found.items() if each is not None}
        published = self._galleries.publish(scope, galleries, key=key) if galleries else None
        self._keys.follow_sealing(scope)
        return published

    def sealing_path(self, scope: str) -> Path:
        """Return the file with the sealing key of a scope."""
        return self._keys.sealing_path(scope)

    def roles(self) -> list[RoleStatus]:
        """Return how all roles stand."""
        return role_statuses(self.repository)

    def candidate(self, scope: str) -> CandidateStatus | None:
        """Return what a scope may be switched to, None where there is nothing; needs no key.

        Raises:
            FleetError: No such scope.
        """
        self._check_known(scope)
        return scope_status(self.repository, scope, ()).candidate

    def status(self) -> list[ScopeStatus]:
        """Return what is published for each scope; needs no key."""
        return [scope_status(self.repository, scope, self.groups(scope)) for scope in self.scopes()]

    def change(self, config: FleetConfig) -> None:
        """Write fleet.json and follow it."""
        save_config(self.directory, config)
        self._config = config

    def _check_known(self, scope: str) -> None:
        if scope not in self.scopes():
            known = ", ".join(self.scopes()) or "none"
            raise FleetError(f"there is no scope {scope[:32]!r} (there are: {known})")

    def _days(self, role: str) -> int:
        return self._config.plan(role).days
