"""The galleries of a scope in a published directory: sealed, numbered, with the difference to the last one.

Also takes a subject out of the galleries of all scopes, wherever that can be. Who may be in them is decided
in `fleet`.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge.core.errors import EdgeError, FleetError
from edge.fleet.keys import KeyRing
from edge.fleet.repository import Repository
from edge.fleet.status import Publication
from edge.gallery.format.bundle import decode, encode
from edge.gallery.format.delta import encode_delta, keeps_templates
from edge.gallery.format.published import candidate_path, delta_path, full_path, scope_role
from edge.gallery.format.removed import (
    decode_removed,
    encode_removed,
    removed_binding,
    removed_path,
    subject_hash,
)
from edge.gallery.format.seal import Binding, seal, unseal_any
from edge.gallery.gallery import Gallery

log = logging.getLogger(__name__)

SHOWN = 5
"""Of the ids that a message names."""

MAX_DIFFERENCES = 16
"""One after the other, before a door that missed so many versions fetches the whole gallery."""

OfModel = tuple[Gallery, str | None]
"""A gallery, and the name of the published model that doors need for it."""


class ScopeGalleries:
    """Reads and writes what `repository` offers for the scopes of `tenant`."""

    def __init__(self, repository: Repository, keys: KeyRing, tenant: str) -> None:
        self._repository = repository
        self._keys = keys
        self._tenant = tenant

    def read(self, scope: str, path: str) -> OfModel | None:
        """Return what is published at a path of a scope, with its published version.

        Raises:
            FleetError: The scope's sealing key is missing, or the file was altered.
        """
        found = self._repository.read(scope_role(scope), path)
        if found is None:
            return None
        data, said = found
        binding = Binding(self._tenant, scope, said["model_id"], said["version"])
        return decode(unseal_any(data, self._keys.sealing(scope), binding)), said.get("model")

    def removed(self, scope: str) -> frozenset[str]:
        """Return the hashes of who was taken out of the galleries of a scope and is not in its gallery.

        Raises:
            FleetError: The scope's sealing key is missing, or the file was altered.
        """
        found = self._repository.read(scope_role(scope), removed_path(scope))
        if found is None:
            return frozenset()
        keys = self._keys.sealing(scope)
        return decode_removed(unseal_any(found[0], keys, removed_binding(self._tenant, scope)))

    def add_removed(self, scope: str, subject_id: str) -> None:
        """Have the doors of a scope remove a subject that none of its galleries holds.

        Raises:
            FleetError: Keys are missing, or it cannot be written.
        """
        if subject_hash(subject_id) not in self.removed(scope):
            targets = self._removed_target(scope, {subject_id}, None, self._keys.sealing(scope)[0])
            self._repository.publish(scope_role(scope), targets, ())

    def withdraw_candidate(self, scope: str) -> None:
        """Publish the candidate no more; whoever only it held is removed from the doors.

        Raises:
            FleetError: Keys are missing, or it cannot be written.
        """
        targets: dict[str, tuple[bytes, dict[str, Any]]] = {}
        try:
            candidate, current = (
                self.read(scope, path) for path in (candidate_path(scope), full_path(scope))
            )
            if candidate is not None and current is not None and (lost := candidate[0].ids - current[0].ids):
                targets = self._removed_target(scope, lost, current[0], self._keys.sealing(scope)[0])
        except EdgeError as error:
            log.warning("who was in the candidate of scope %s alone cannot be told: %s", scope, error)
        self._repository.publish(scope_role(scope), targets, [candidate_path(scope)], forget=True)

    def publish(
        self,
        scope: str,
        galleries: Mapping[str, OfModel],
        *,
        key: bytes | None = None,
    ) -> Publication:
        """Publish galleries by their paths, each as the version after the one there, all at once.

        Beside the scope's own goes the difference to its version before, where that is worth it. Earlier
        differences stay while no template goes, for doors that missed a version. `key` seals what is new; the
        scope's when unset. Where it is another, or somebody was taken out, nothing older stays.
        Who goes by it is told to the doors by a list as well, which they follow whatever their embedder is.
        Whom a gallery of another embedder lacks was not taken out: there may be no photo to embed anew.
        Returns what is to be told of the first.

        Raises:
            FleetError: Keys are missing, or it cannot be written.
        """
        targets: dict[str, tuple[bytes, dict[str, Any]]] = {}
        told, lost, earlier = [], set[str](), set[str]()
        forget, key = key is not None, key or self._keys.sealing(scope)[0]
        for path, (gallery, model) in galleries.items():
            found = self.read(scope, path)
            before = None if found is None else found[0]
            new = replace(gallery, version=before.version + 1 if before else 1)
            gone_here = before.ids - new.ids if before else set()
            forget |= bool(gone_here)
            lost |= gone_here if before and before.model_id == new.model_id else set()
            full = self._sealed(scope, new, encode(new), key)
            said = {"scope": scope, "version": new.version, "model_id": new.model_id, "count": new.size}
            said |= {"model": model} if model else {}
            said |= {} if new.size else {"empty": True}
            said |= {"not_after": new.not_after.isoformat()} if new.not_after else {}
            kind = "full" if path == full_path(scope) else "next"
            targets[path] = (full, {**said, "kind": kind, "base": None})
            change = self._difference(scope, before, new, key) if before and kind == "full" else None
            if before is not None and change is not None and len(change) < len(full) / 2:
                said |= {"kind": "delta", "base": before.version}
                targets[delta_path(scope, before.version)] = (change, said)
                if keeps_templates(before, new):
                    earlier = self._earlier_differences(scope, before.version, len(full) // 2 - len(change))
            else:
                change = None
            told.append(
                Publication(
                    scope,
                    new.version,
                    new.size,
                    0,
                    len(full),
                    None if change is None else len(change),
                    candidate=kind == "next",
                )
            )
        gone: set[str] = set()
        if full_path(scope) in targets:
            there = self._repository.role(scope_role(scope)).signed.targets.keys()
            gone = there - targets.keys() - {candidate_path(scope), removed_path(scope)}
            gone -= set() if forget else earlier
        current = galleries.get(full_path(scope)) or self.read(scope, full_path(scope))
        targets |= self._removed_target(scope, lost, current and current[0], key)
        self._repository.publish(scope_role(scope), targets, gone, forget=forget)
        return told[0]

    def forget(self, scopes: Collection[str]) -> None:
        """Delete what was published for these scopes before what is published now; needs no key.

        Raises:
            FleetError: Something cannot be deleted; all else is.
        """
        self._repository.forget([scope_role(scope) for scope in scopes])

    def _removed_target(
        self, scope: str, lost: Collection[str], current: Gallery | None, key: bytes
    ) -> dict[str, tuple[bytes, dict[str, Any]]]:
        """Return the list of who was removed, with those just `lost` and without whoever is in `current`."""
        hashes = self.removed(scope) | set(map(subject_hash, lost))
        hashes -= set(map(subject_hash, current.ids)) if current else set()
        if not hashes and self._repository.read(scope_role(scope), removed_path(scope)) is None:
            return {}
        data = seal(encode_removed(hashes), key, removed_binding(self._tenant, scope))
        return {removed_path(scope): (data, {"scope": scope, "kind": "removed"})}

    def _earlier_differences(self, scope: str, version: int, room_bytes: int) -> set[str]:
        """Return the paths of what leads, one after the other, to `version`, as far as it is worth it."""
        there = self._repository.role(scope_role(scope)).signed.targets
        paths = set[str]()
        for base in range(version - 1, version - MAX_DIFFERENCES, -1):
            path = delta_path(scope, base)
            if path not in there or (room_bytes := room_bytes - there[path].length) < 0:
                break
            paths.add(path)
        return paths

    def _difference(self, scope: str, before: Gallery, new: Gallery, key: bytes) -> bytes | None:
        change = encode_delta(before, new)
        return None if change is None else self._sealed(scope, new, change, key)

    def _sealed(self, scope: str, gallery: Gallery, plain: bytes, key: bytes) -> bytes:
        binding = Binding(self._tenant, scope, gallery.model_id, gallery.version)
        return seal(plain, key, binding)


def in_groups(gallery: Gallery, groups: Collection[str]) -> Gallery:
    """Return a gallery of those who are in one of the groups; without groups of everybody."""
    if not groups:
        return gallery
    return gallery.without_subjects(
        {each.subject_id for each in gallery.subjects if set(groups).isdisjoint(each.groups)}
    )


def check_nobody_missing(scope: str, current: OfModel | None, candidate: Gallery) -> None:
    """Accept a gallery to switch to that has everybody of the current one.

    Raises:
        FleetError: Somebody would be locked out by the switch.
    """
    missing = sorted(current[0].ids - candidate.ids) if current else []
    if current and missing:
        few = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise FleetError(
            f"scope {scope!r}: a switch would lock out {len(missing)} of {current[0].size} subject(s), "
            f"the candidate lacks {few}; see `edge fleet reembed`, or say --allow-missing"
        )


@dataclass(slots=True)
class SubjectPlaces:
    """Where a subject is: by scope and path the gallery without it; `failed`: by scope, why nobody knows."""

    subject_id: str
    holding: dict[str, dict[str, OfModel]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    removed: bool = False
    """Whether it was taken out of a scope before."""

    @classmethod
    def of(cls, subject_id: str, scopes: Iterable[str], galleries: ScopeGalleries) -> "SubjectPlaces":
        """Look for a subject in all scopes."""
        made = cls(subject_id)
        for scope in scopes:
            try:
                made.removed |= subject_hash(subject_id) in galleries.removed(scope)
                for path in (full_path(scope), candidate_path(scope)):
                    found = galleries.read(scope, path)
                    if found is not None and found[0].subject(subject_id) is not None:
                        without = found[0].without_subject(subject_id)
                        made.holding.setdefault(scope, {})[path] = (without, found[1])
            except EdgeError as error:
                made.failed[scope] = str(error)
        return made

    def take_out(
        self,
        galleries: ScopeGalleries,
        told: Callable[[Publication], None],
        left_over: Collection[str] = (),
    ) -> list[Publication]:
        """Publish the galleries without the subject. `told` hears of each scope at once.

        Of the scopes `left_over` what was published before goes, too: it may still have the subject. Their
        doors are told to remove it, wherever it came from.

        Raises:
            FleetError: There are scopes for which that cannot be done; all others are done.
        """
        published = []
        for scope, without in self.holding.items():
            try:
                # A door may be left without anybody: revoking must not fail for the last one.
                done = replace(galleries.publish(scope, without), excluded=1)
            except EdgeError as error:
                self.failed[scope] = str(error)
                continue
            told(done)
            published.append(done)
        for scope in set(left_over) - self.holding.keys() - self.failed.keys():
            try:
                galleries.add_removed(scope, self.subject_id)
            except EdgeError as error:
                self.failed[scope] = str(error)
        why = [f"scope {scope}: {error}" for scope, error in self.failed.items()]
        if left_over:
            try:
                galleries.forget(left_over)
            except EdgeError as error:
                why.append(str(error))
        if why:
            raise FleetError(
                f"{self.subject_id!r} is revoked, but could not be taken out everywhere; mend this and do it "
                f"again: {'; '.join(why)}"
            )
        return published
