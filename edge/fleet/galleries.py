"""The galleries of a scope in a published directory: sealed, numbered, with the difference to the last one.

Also takes a subject out of the galleries of all scopes, wherever that can be. Who may be in them is decided
in `fleet`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge.core.errors import EdgeError, FleetError
from edge.fleet.keys import KeyRing
from edge.fleet.repository import Repository
from edge.fleet.status import Publication
from edge.gallery.format.bundle import decode, encode
from edge.gallery.format.delta import encode_delta
from edge.gallery.format.published import candidate_path, delta_path, full_path, scope_role
from edge.gallery.format.seal import Binding, seal, unseal_any
from edge.gallery.gallery import Gallery

SHOWN = 5
"""Of the ids that a message names."""

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

    def publish(
        self, scope: str, galleries: Mapping[str, OfModel], *, key: bytes | None = None
    ) -> Publication:
        """Publish galleries by their paths, each as the version after the one there, all at once.

        Beside the scope's own goes the difference to its version before, where that is worth it. `key` seals
        them; the scope's when unset. Where it is another, or somebody was taken out, nothing older stays.
        Returns what is to be told of the first.

        Raises:
            FleetError: Keys are missing, or it cannot be written.
        """
        targets: dict[str, tuple[bytes, dict[str, Any]]] = {}
        told = []
        forget, key = key is not None, key or self._keys.sealing(scope)[0]
        for path, (gallery, model) in galleries.items():
            found = self.read(scope, path)
            before = None if found is None else found[0]
            new = replace(gallery, version=before.version + 1 if before else 1)
            forget |= before is not None and not before.ids <= new.ids
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
            gone = there - targets.keys() - {candidate_path(scope)}
        self._repository.publish(scope_role(scope), targets, gone, forget=forget)
        return told[0]

    def forget(self, scopes: Collection[str]) -> None:
        """Delete what was published for these scopes before what is published now; needs no key.

        Raises:
            FleetError: Something cannot be deleted; all else is.
        """
        self._repository.forget([scope_role(scope) for scope in scopes])

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

    @classmethod
    def of(cls, subject_id: str, scopes: Iterable[str], galleries: ScopeGalleries) -> "SubjectPlaces":
        """Look for a subject in all scopes."""
        made = cls(subject_id)
        for scope in scopes:
            try:
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

        Of the scopes `left_over` what was published before goes, too: it may still have the subject.

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
