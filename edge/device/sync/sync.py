"""The device's side of the fleet: fetch this door's gallery, believe nothing, install it or keep the last.

What is signed is The Update Framework's business; what it leaves open is closed here and in `floors`: older
galleries after a lost cache, a wrong clock, a target that is missing (never read as "nobody is enrolled any
more"). A gallery must open with this door's key, be of this door's embedder, and pass a self-test.

A gallery whose embedder cannot be had here is refused, but its rights are followed all the same: whoever was
removed from the scope is removed here, and who may pass when is as it says.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]

from edge.core import files
from edge.core.clock import Clock
from edge.core.errors import EdgeError, GalleryError, ModelMismatchError, SignatureError
from edge.core.types import Subject
from edge.device.sync.fetch import Fetcher
from edge.device.sync.floors import BUILT_AT, FILE_NAME, Floors, load_floors, save_floors
from edge.device.sync.outcome import SyncOutcome, reason_of, refusal
from edge.device.sync.trust import TrustedDirectory
from edge.gallery.format.bundle import decode
from edge.gallery.format.delta import apply_delta
from edge.gallery.format.published import (
    Kind,
    Offer,
    candidate_path,
    delta_path,
    full_path,
    model_path,
    read_offer,
    scope_role,
)
from edge.gallery.format.removed import (
    MAX_REMOVED_BYTES,
    decode_removed,
    removed_binding,
    removed_path,
    subject_hash,
)
from edge.gallery.format.seal import HEADER, TAG_BYTES, Binding, unseal_any
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore, install, settle

log = logging.getLogger(__name__)

TIMEOUT_S = 90.0
"""Seconds for all files together."""

GAP_S = 10.0
"""Longest silence of the server in seconds."""

LOCK_TIMEOUT_S = 30.0
"""Seconds to wait for another process that synchronises."""

TRUSTED_EVERY = timedelta(hours=1)
"""How often the time is written down while nothing changes: the card of a small board wears out."""

MAX_MODEL_BYTES = 512 << 20
"""As in manifests: no model that a door camera can run is larger."""


@dataclass(frozen=True, slots=True)
class SyncSource:
    """Where galleries come from (`url`: http, https or file, or a directory), and what is trusted.

    Any of the `sealing_keys` may open a gallery: while the scope's key changes, a door has the new and old.
    """

    url: str
    tenant: str
    scope: str
    trusted_root: bytes
    sealing_keys: tuple[bytes, ...] = field(repr=False)
    timeout_s: float = TIMEOUT_S
    gap_s: float = GAP_S


Adopt = Callable[[str, Callable[[str], bytes]], tuple[str, int]]
"""Makes a published model usable here: from its name and what fetches its files to its id and dimension."""


@dataclass(slots=True)
class Sync:
    """One device's synchronisation with one scope. `embedders`: model id and dimension of what may be used.

    `self_test` raises an EdgeError for a gallery that must not serve. `adopt` installs a published model that
    a gallery needs (None: galleries of other embedders are refused); `candidate` keeps the
    one that may be switched to. One process at a time works in `directory`; others wait for it.
    """

    source: SyncSource
    store: GalleryStore
    directory: Path
    embedders: Mapping[str, int]
    clock: Clock
    self_test: Callable[[Gallery], None]
    built_at: datetime = BUILT_AT
    """The earliest that it can be now."""

    adopt: Adopt | None = None
    candidate: GalleryStore | None = None
    rights: int | None = field(default=None, init=False)
    """As in `SyncOutcome`; known also where synchronising was refused."""

    def run(self) -> SyncOutcome:
        """Synchronise, and say so also where that is refused; the gallery in force is then the last one."""
        try:
            return self.synchronise()
        except EdgeError as error:
            return replace(refusal(error), rights=self.rights)

    def synchronise(self) -> SyncOutcome:
        """Install the gallery that is published for this scope, unless it is in force already.

        Raises:
            SyncError, GalleryError: It is refused or cannot be had; what was in force still is.
        """
        with files.sole_user(self.directory / "lock", LOCK_TIMEOUT_S, self.clock.monotonic):
            floors = load_floors(self._floors_path, self.source.scope)
            floors.check_clock(self.clock.now(), self.built_at)
            source = self.source
            parts = self.directory / "parts"
            fetcher = Fetcher(source.timeout_s, source.gap_s, self.clock.monotonic, parts)
            published = TrustedDirectory(source.url, self.directory, source.trusted_root, fetcher)
            info = published.find(full_path(source.scope))
            floors = self._trust(floors, published)
            outcome = self._follow(floors, published, info)
            if self.candidate is None:
                published.finish()
                return outcome
            try:
                candidate, owed = self._follow_candidate(self.candidate, published)
            except EdgeError as error:
                log.warning("the candidate is refused: %s", error)
                refused = replace(outcome, error=f"the candidate: {error}", reason=reason_of(error))
            else:
                published.finish()
                return replace(outcome, candidate=candidate, error=outcome.error or owed)
            try:
                self._remove_listed(published, (self.candidate,))
            except EdgeError as error:
                log.error("who was removed may still be in the candidate: %s", error)
            return refused

    @property
    def _floors_path(self) -> Path:
        return self.directory / FILE_NAME

    def _trust(self, floors: Floors, published: TrustedDirectory) -> Floors:
        """Hold what was verified against what was seen before, and remember it. Also asks our own clock."""
        now = self.clock.now()
        versions, keys = published.versions(now), published.keys(scope_role(self.source.scope))
        floors.check_metadata(versions, keys)
        trusted_at = max(now, floors.trusted_at or now)
        aged = trusted_at - (floors.trusted_at or self.built_at) > TRUSTED_EVERY
        known = floors.with_keys(keys, scope_role(self.source.scope))
        if aged or versions != floors.metadata or known != floors:
            floors = known.model_copy(update={"metadata": versions, "trusted_at": trusted_at})
            save_floors(self._floors_path, floors)
        return floors

    def _follow(self, floors: Floors, published: TrustedDirectory, info: TargetFile | None) -> SyncOutcome:
        offer = self._signed(info, "full")
        assert info is not None
        floors.check_gallery(offer.version, info.hashes["sha256"])
        if offer.model_id not in self.embedders:
            # Before its model is fetched, which may take all the time that there is.
            followed = self._only_rights(floors, published, offer, info)
            try:
                self._prepare_embedder(offer, published)
            except EdgeError as error:
                error.args = (f"{error}; {followed}",)
                raise
            floors = load_floors(self._floors_path, self.source.scope)
        serving = self._serving(floors, offer.model_id)
        if serving is not None and serving.version == offer.version:
            return SyncOutcome("current", offer.version, serving.size, serving.model_id, settle(self.store))
        gallery = self._changed(published, offer, serving) or self._whole(published, offer, info)
        self.self_test(gallery)
        seen = {"seen_version": offer.version, "seen_sha256": info.hashes["sha256"]}
        floors = floors.model_copy(update=seen)
        save_floors(self._floors_path, floors)
        installed_as, owed = install(self.store, gallery)
        installed = {"installed_version": offer.version, "installed_as": installed_as}
        save_floors(self._floors_path, floors.model_copy(update=installed))
        log.info("gallery installed", extra={"published": offer.version, "gallery_version": installed_as})
        return SyncOutcome("updated", offer.version, gallery.size, gallery.model_id, owed)

    def _follow_candidate(self, store: GalleryStore, published: TrustedDirectory) -> tuple[bool, str | None]:
        """Keep the candidate of the scope, and nobody where there is none.

        Returns:
            Whether there is one, and why somebody could not be erased.
        """
        floors = load_floors(self._floors_path, self.source.scope)
        info = published.find(candidate_path(self.source.scope))
        if info is None:
            model_id = store.enrolled_with()
            return False, settle(store) if model_id is None else install(store, Gallery.empty(model_id))[1]
        offer = self._offer(info, "next", published)
        kept = (floors.candidate_sha256, floors.candidate_as)
        if kept == (info.hashes["sha256"], store.current_version()):
            return True, settle(store)
        gallery = self._whole(published, offer, info)
        self.self_test(gallery)
        installed_as, owed = install(store, gallery)
        candidate = {
            "candidate_sha256": info.hashes["sha256"],
            "candidate_version": offer.version,
            "candidate_as": installed_as,
        }
        save_floors(self._floors_path, floors.model_copy(update=candidate))
        return True, owed

    def _only_rights(
        self, floors: Floors, published: TrustedDirectory, offer: Offer, info: TargetFile
    ) -> str:
        """Follow what a gallery that cannot be used says of who may pass; return what is to be told of it."""
        try:
            self._follow_rights(floors, published, offer, info)
        except EdgeError as error:
            log.error("rights cannot be followed: %s", error)
            return f"nor can it be followed who may not pass any more: {error}"
        self.rights = offer.version
        return "who was removed or restricted is so here as well"

    def _follow_rights(
        self, floors: Floors, published: TrustedDirectory, offer: Offer, info: TargetFile
    ) -> None:
        """Remove and restrict subjects of the galleries here, of whatever embedder, as the fleet has.

        Raises:
            EdgeError: Something cannot be had or changed; what came before it is done.
        """
        listed = published.find(removed_path(self.source.scope))
        sha256 = info.hashes["sha256"] + (listed.hashes.get("sha256", "") if listed else "")
        if (floors.rights_sha256, floors.rights_as) == (sha256, self.store.current_version()):
            return
        stores = [each for each in (self.store, self.candidate) if each is not None]
        self._remove_listed(published, stores)
        binding = Binding(self.source.tenant, self.source.scope, offer.model_id, offer.version)
        gallery = decode(unseal_any(published.fetch(info), self.source.sealing_keys, binding))
        self._check_said(gallery, offer)
        for store in stores:
            take_rights(store, frozenset(), {each.subject_id: each for each in gallery.subjects})
        followed = {
            "seen_version": offer.version,
            "seen_sha256": info.hashes["sha256"],
            "rights_sha256": sha256,
            "rights_as": self.store.current_version(),
        }
        save_floors(self._floors_path, floors.model_copy(update=followed))

    def _remove_listed(self, published: TrustedDirectory, stores: Iterable[GalleryStore]) -> None:
        """Remove from galleries, of whatever embedder, whoever was removed from this scope.

        Raises:
            EdgeError: It cannot be known who that is, or a gallery cannot be changed.
        """
        info = published.find(removed_path(self.source.scope))
        if info is None:
            return
        if info.length > MAX_REMOVED_BYTES + HEADER.size + TAG_BYTES:
            raise SignatureError("the list of removed subjects is larger than it can be; publish it again")
        binding = removed_binding(self.source.tenant, self.source.scope)
        removed = decode_removed(unseal_any(published.fetch(info), self.source.sealing_keys, binding))
        for store in stores:
            take_rights(store, removed, {})

    def _offer(self, info: TargetFile | None, kind: Kind, published: TrustedDirectory) -> Offer:
        offer = self._signed(info, kind)
        self._prepare_embedder(offer, published)
        return offer

    def _signed(self, info: TargetFile | None, kind: Kind) -> Offer:
        scope = self.source.scope
        if info is None:
            raise SignatureError(
                f"no gallery is signed for scope {scope!r}; publish one, or correct sync.scope"
            )
        return read_offer(info.custom, info.length, info.hashes.get("sha256"), kind, scope)

    def _prepare_embedder(self, offer: Offer, published: TrustedDirectory) -> None:
        """Accept a gallery of an embedder that can be used here, after it was installed if need be.

        Raises:
            ModelError, SyncError: The embedder cannot be installed.
            ModelMismatchError: It is none that this device may use.
        """
        if offer.model_id not in self.embedders and self.adopt is not None and offer.model is not None:
            self._adopt(self.adopt, offer.model, published)
        if offer.model_id not in self.embedders:
            raise ModelMismatchError(
                f"gallery version {offer.version} was made with {offer.model_id!r}, this device embeds with "
                f"{' or '.join(map(repr, self.embedders))}; publish one for its embedder"
            )

    def _adopt(self, adopt: Adopt, name: str, published: TrustedDirectory) -> None:
        """Install a model that the fleet has signed."""

        def fetch(file: str) -> bytes:
            info = published.find(model_path(name, file))
            if info is None or info.length > MAX_MODEL_BYTES:
                raise SignatureError(f"{file} of the model {name} is not signed; publish the model as well")
            return published.fetch(info)

        model_id, dim = adopt(name, fetch)
        self.embedders = {**self.embedders, model_id: dim}

    def _serving(self, floors: Floors, model_id: str) -> Gallery | None:
        """Return what serves, as the published version it is; None where it is not what was installed."""
        try:
            gallery = self.store.load(model_id, self.embedders[model_id])
        except GalleryError as error:
            log.info("the gallery in force is replaced: %s", error)
            return None
        if not floors.installed_version or gallery.version != floors.installed_as:
            return None  # never installed, changed by hand, rolled back or damaged
        return replace(gallery, version=floors.installed_version)

    def _changed(self, published: TrustedDirectory, offer: Offer, serving: Gallery | None) -> Gallery | None:
        """Return the offered gallery, made from what serves and the differences; None where it cannot be."""
        if serving is None:
            return None
        gallery = serving
        try:
            while gallery.version != offer.version:
                info = published.find(delta_path(self.source.scope, gallery.version))
                if info is None:
                    return None
                change = self._signed(info, "delta")
                if not gallery.version < change.version <= offer.version or change.model_id != offer.model_id:
                    return None
                gallery = self._checked(apply_delta(gallery, self._opened(published, info, change)), change)
            return self._checked(gallery, offer)
        except GalleryError as error:
            log.warning("the whole gallery is fetched instead of the difference: %s", error)
            return None

    def _whole(self, published: TrustedDirectory, offer: Offer, info: TargetFile) -> Gallery:
        return self._checked(decode(self._opened(published, info, offer)), offer)

    def _opened(self, published: TrustedDirectory, info: TargetFile, offer: Offer) -> bytes:
        """Return what a target holds: fetched, verified, opened with this door's key."""
        binding = Binding(self.source.tenant, self.source.scope, offer.model_id, offer.version)
        return unseal_any(published.fetch(info), self.source.sealing_keys, binding)

    def _checked(self, gallery: Gallery, offer: Offer) -> Gallery:
        """Return the gallery if it is what the signed metadata say."""
        self._check_said(gallery, offer)
        if gallery.size and gallery.dim != self.embedders[gallery.model_id]:
            raise ModelMismatchError(
                f"gallery version {offer.version} has embeddings of length {gallery.dim}, the embedder makes "
                f"{self.embedders[gallery.model_id]}; publish one for its embedder"
            )
        return gallery

    def _check_said(self, gallery: Gallery, offer: Offer) -> None:
        found = (gallery.version, gallery.model_id, gallery.size)
        if found != (offer.version, offer.model_id, offer.count):
            raise SignatureError("the gallery is not what is signed about it; publish it again")


def take_rights(store: GalleryStore, removed: Collection[str], subjects: Mapping[str, Subject]) -> None:
    """Change who may pass by a gallery, and no template.

    Subjects are removed by their hashes, and others described anew.

    `subjects` by id; whoever is in the gallery and not among them stays as it is.

    Raises:
        GalleryError: It cannot be changed, or somebody cannot be erased from older versions.
    """
    model_id = store.enrolled_with()
    if model_id is None:
        return
    with store.edit(model_id) as edit:
        before = edit.gallery
        gone = {each for each in before.ids if subject_hash(each) in removed} if removed else set()
        changed = {
            each.subject_id: subjects[each.subject_id]
            for each in before.subjects
            if each.subject_id not in gone and subjects.get(each.subject_id, each) != each
        }
        if gone or changed:
            left = before.without_subjects(gone)
            described = tuple(changed.get(each.subject_id, each) for each in left.subjects)
            edit.commit(replace(left, subjects=described))
            log.info("rights followed", extra={"removed": len(gone), "changed": len(changed)})
    store.erase_owed()
