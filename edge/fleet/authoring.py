"""The operator's side of the fleet: who may be at which door, signed, sealed and published.

    <directory>/fleet.json           tenant, how roles sign, who was revoked
    <directory>/published/           what a static web server offers; holds nothing that is secret
    keys/                            see `keyring`; anywhere, by default <directory>/keys

Each scope (a door, or doors alike) has its own signing role and its own sealing key: a device is never given
what is not of its scope, and could not open it. The published gallery is the operator's only copy of it. How
signatures are made is `repository`'s business; photos and embedders are not known here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from edge import safefile
from edge.clock import Clock
from edge.errors import FleetError
from edge.fleet.config import FILE_NAME, FleetConfig, load_config, new_config, save_config
from edge.fleet.keyring import KeyRing
from edge.fleet.repository import TOP, Repository, RolePlan
from edge.gallery.bundle import decode, encode
from edge.gallery.delta import encode_delta
from edge.gallery.gallery import Gallery
from edge.gallery.layout import (
    MODELS,
    check_scope,
    delta_path,
    full_path,
    model_path,
    scope_paths,
    scope_role,
)
from edge.gallery.seal import Binding, seal, unseal


@dataclass(frozen=True, slots=True)
class Published:
    """One gallery as it was published; `excluded` counts revoked subjects that were left out."""

    scope: str
    version: int
    count: int
    excluded: int
    bytes: int
    delta_bytes: int | None


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """A signing role: its metadata's version, when it must be signed again, who must agree."""

    role: str
    version: int
    expires: datetime
    keys: int
    threshold: int


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """The gallery of a scope; version 0: none was published yet."""

    scope: str
    version: int
    count: int
    model_id: str | None


def init_fleet(
    directory: Path, keys: KeyRing, tenant: str, clock: Clock, plans: Mapping[str, RolePlan] | None = None
) -> "Fleet":
    """Make a fleet without scopes: its keys, and a repository that is valid and empty.

    `plans` replaces single roles of `PLANS`.

    Raises:
        FleetError: There is a fleet already, the plan is impossible, or the directory cannot be written.
    """
    config = new_config(tenant, plans or {})
    if (directory / FILE_NAME).exists():
        raise FleetError(f"{directory}: there is a fleet already; choose another directory")
    try:
        directory.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except OSError as error:
        raise FleetError(f"{directory}: cannot be made: {error.strerror}") from None
    fleet = Fleet(directory, keys, clock, config)
    fleet.repository.create({role: config.plan(role) for role in TOP})
    fleet.repository.delegate(MODELS, [model_path("*", "*")], config.plan(MODELS))
    fleet.change(config)
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

    def gallery(self, scope: str) -> Gallery | None:
        """Return what is published for a scope, with its published version; None before the first.

        Raises:
            FleetError: No such scope, its sealing key is missing, or it was altered.
        """
        self._check_known(scope)
        found = self.repository.read(scope_role(scope), full_path(scope))
        if found is None:
            return None
        data, custom = found
        binding = Binding(self.tenant, scope, custom["model_id"], custom["version"])
        return decode(unseal(data, self._keys.sealing(scope), binding))

    def publish_gallery(self, scope: str, gallery: Gallery, *, allow_empty: bool = False) -> Published:
        """Publish a gallery for a scope, without those who were revoked, as the next version.

        Past the gallery's `not_after` its doors follow their `sync.stale`.
        Beside it goes the difference to the version before, where there is one and it is worth it.

        Raises:
            FleetError: No such scope, nobody is left in it, keys are missing, or not to be written.
        """
        before = self.gallery(scope)
        allowed = gallery.without_subjects(set(self.revoked))
        version = before.version + 1 if before else 1
        if not allowed.size and not allow_empty:
            raise FleetError(
                f"scope {scope!r}: the gallery is empty and would lock everybody out; say so if it is meant"
            )
        new = replace(allowed, version=version)
        full = self._sealed(scope, new, encode(new))
        custom = {"scope": scope, "version": version, "model_id": new.model_id, "count": new.size}
        targets: dict[str, tuple[bytes, dict[str, Any]]] = {
            full_path(scope): (full, {**custom, "kind": "full", "base": None})
        }
        delta = encode_delta(before, new) if before else None
        if before is not None and delta is not None and len(delta) < len(full) / 2:
            sealed = self._sealed(scope, new, delta)
            targets[delta_path(scope, before.version)] = (
                sealed,
                {**custom, "kind": "delta", "base": before.version},
            )
        role = scope_role(scope)
        gone = self.repository.role(role).signed.targets.keys() - targets.keys()
        self.repository.publish(role, targets, gone)
        excluded = gallery.size - allowed.size
        lengths = [len(data) for data, _ in targets.values()]
        return Published(
            scope, version, new.size, excluded, lengths[0], lengths[1] if len(lengths) > 1 else None
        )

    def revoke(self, subject_id: str) -> list[Published]:
        """Take a subject out of every scope, for good: later galleries are published without it as well.

        Raises:
            FleetError: It is in no scope, keys are missing, or not to be written.
        """
        galleries = {scope: self.gallery(scope) for scope in self.scopes()}
        holding = {
            scope: gallery
            for scope, gallery in galleries.items()
            if gallery is not None and gallery.subject(subject_id) is not None
        }
        if not holding and subject_id not in self.revoked:
            raise FleetError(f"subject {subject_id!r} is in no published gallery")
        self.change(self._config.with_revoked({*self.revoked, subject_id}))
        # A door may be left without anybody: revoking must not fail for the last one.
        return [self.publish_gallery(scope, gallery, allow_empty=True) for scope, gallery in holding.items()]

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

    def _sealed(self, scope: str, gallery: Gallery, plain: bytes) -> bytes:
        binding = Binding(self.tenant, scope, gallery.model_id, gallery.version)
        return seal(plain, self._keys.sealing(scope), binding)

    def _check_known(self, scope: str) -> None:
        if scope not in self.scopes():
            known = ", ".join(self.scopes()) or "none"
            raise FleetError(f"there is no scope {scope[:32]!r} (there are: {known})")

    def _days(self, role: str) -> int:
        return self._config.plan(role).days
