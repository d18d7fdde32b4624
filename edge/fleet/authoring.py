"""The operator's side of the fleet: who may be at which door, signed, sealed and published.

    <directory>/fleet.json           tenant, how roles sign, who was revoked
    <directory>/published/           what a static web server offers; holds nothing that is secret
    keys/                            see `keyring`; anywhere, by default <directory>/keys

Each scope (a door, or doors alike) has its own signing role and its own sealing key: a device is never given
what is not of its scope, and could not open it. The published gallery is the operator's only copy of it. How
signatures are made is `repository`'s business; photos and embedders are not known here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge import safefile
from edge.clock import Clock
from edge.errors import FleetError
from edge.fleet.config import FILE_NAME, FleetConfig, load_config, new_config, save_config
from edge.fleet.galleries import ScopeGalleries
from edge.fleet.keyring import KeyRing
from edge.fleet.reports import Published, RoleStatus, ScopeStatus
from edge.fleet.repository import TOP, Repository, RolePlan
from edge.gallery.gallery import Gallery
from edge.gallery.layout import (
    MODELS,
    check_scope,
    full_path,
    model_path,
    next_path,
    scope_paths,
    scope_role,
)


def init_fleet(
    directory: Path,
    keys: KeyRing,
    tenant: str,
    clock: Clock,
    plans: Mapping[str, RolePlan] | None = None,
    scopes: Sequence[str] = (),
) -> "Fleet":
    """Make a fleet: its keys, and a repository that is valid and without galleries.

    `plans` replaces single roles of `PLANS`. What is made new lets others through to what is published.

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
            directory.chmod(safefile.PASSABLE_DIRECTORY)
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
    """Return the fleet in a directory.

    Raises:
        FleetError: There is none, or its fleet.json is damaged.
    """
    return Fleet(directory, keys, clock, load_config(directory))


class Fleet:
    """One operator's scopes. One process at a time: hold `lock_path` (`safefile.sole_user`) for a change."""

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

    def gallery(self, scope: str, *, beside: bool = False) -> Gallery | None:
        """Return what is published for a scope, with its published version; None before the first.

        `beside`: the one that the scope may be switched to.

        Raises:
            FleetError: No such scope, its sealing key is missing, or it was altered.
        """
        self._check_known(scope)
        found = self._galleries.read(scope, next_path(scope) if beside else full_path(scope))
        return None if found is None else found[0]

    def publish_gallery(
        self,
        scope: str,
        gallery: Gallery,
        *,
        model: str | None = None,
        beside: bool = False,
        allow_empty: bool = False,
    ) -> Published:
        """Publish a gallery for a scope, without those who were revoked, as the next version.

        Past the gallery's `not_after` its doors follow their `sync.stale`. `model` names the published model
        that doors need for it. Beside it goes the difference to the version before, where there is one and it
        is worth it. With `beside` it becomes what the scope may be switched to, and nothing else changes.

        Raises:
            FleetError: No such scope, nobody is left in it, keys are missing, or not to be written.
        """
        self._check_known(scope)
        allowed = gallery.without_subjects(set(self.revoked))
        if not allowed.size and not allow_empty:
            raise FleetError(
                f"scope {scope!r}: the gallery is empty and would lock everybody out; say so if it is meant"
            )
        path = next_path(scope) if beside else full_path(scope)
        published = self._galleries.publish(scope, {path: (allowed, model)})
        return replace(published, excluded=gallery.size - allowed.size)

    def switch(self, scope: str) -> Published:
        """Exchange the gallery of a scope and the one beside it: the next switch is the way back.

        Raises:
            FleetError: There is none beside it, no such scope, keys are missing, or not to be written.
        """
        self._check_known(scope)
        current = self._galleries.read(scope, full_path(scope))
        beside = self._galleries.read(scope, next_path(scope))
        if current is None or beside is None:
            raise FleetError(
                f"scope {scope!r}: nothing lies beside its gallery; see `edge fleet publish --beside`"
            )
        return self._galleries.publish(scope, {full_path(scope): beside, next_path(scope): current})

    def drop_beside(self, scope: str) -> None:
        """Withdraw what a scope may be switched to, and with it the way back from a switch.

        Raises:
            FleetError: No such scope, keys are missing, or not to be written.
        """
        self._check_known(scope)
        self.repository.publish(scope_role(scope), {}, [next_path(scope)], forget=True)

    def revoke(self, subject_id: str) -> list[Published]:
        """Take a subject out of every scope, for good: later galleries are published without it as well.

        Raises:
            FleetError: It is in no scope, keys are missing, or not to be written.
        """
        holding: dict[str, dict[str, tuple[Gallery, str | None]]] = {}
        for scope in self.scopes():
            for path in (full_path(scope), next_path(scope)):
                found = self._galleries.read(scope, path)
                if found is not None and found[0].subject(subject_id) is not None:
                    without = found[0].without_subject(subject_id)
                    holding.setdefault(scope, {})[path] = (without, found[1])
        if not holding and subject_id not in self.revoked:
            raise FleetError(f"subject {subject_id!r} is in no published gallery")
        self.change(self._config.with_revoked({*self.revoked, subject_id}))
        # A door may be left without anybody: revoking must not fail for the last one.
        return [
            replace(self._galleries.publish(scope, found), excluded=1) for scope, found in holding.items()
        ]

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

    def rotate_key(self, role: str) -> None:
        """Replace the oldest key of a role; a scope's role is named `scope-<scope>`.

        Raises:
            FleetError: No such role, the keys that must agree are missing, or not to be written.
        """
        if role not in (*TOP, *self.repository.delegated()):
            raise FleetError(f"there is no role {role!r}; see `edge fleet status`")
        self.repository.rotate(role)

    def roles(self) -> list[RoleStatus]:
        """Return how all roles stand."""
        root, delegated = self.repository.root().signed, self.repository.delegated()
        rules = {**{role: root.roles[role] for role in TOP}, **delegated}
        return [
            RoleStatus(role, signed.version, signed.expires, len(rule.keyids), rule.threshold)
            for role, rule in rules.items()
            for signed in (self.repository.signed(role),)
        ]

    def status(self) -> list[ScopeStatus]:
        """Return what is published for each scope; needs no key."""
        found = []
        for scope in self.scopes():
            info = self.repository.role(scope_role(scope)).signed.targets.get(full_path(scope))
            said = info.custom if info else {}
            found.append(
                ScopeStatus(scope, said.get("version", 0), said.get("count", 0), said.get("model_id"))
            )
        return found

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
