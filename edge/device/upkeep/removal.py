"""Who is removed goes from everything that this device keeps: galleries, faces, denials, visits.

What of that fails is told and does not keep the rest from being done; the next removal or synchronisation
tries it again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from edge.core.errors import EdgeError, GalleryIntegrityError
from edge.core.ids import spellings
from edge.device.assembly.stores import (
    candidate_store,
    crop_store,
    denial_store,
    erased_here,
    gallery_store,
    visit_store,
)
from edge.device.settings.load import Settings
from edge.gallery.format.removed import subject_hash
from edge.gallery.gallery import Gallery
from edge.gallery.store.denials import Denials
from edge.gallery.store.erasure import ANYBODY
from edge.gallery.store.store import GalleryStore


@dataclass(slots=True)
class Removal:
    """What was done (`galleries`: the versions without whoever was removed), and what could not be."""

    galleries: list[Gallery] = field(default_factory=list)
    size: int = 0
    """How many subjects were removed from the fullest gallery."""

    older: bool = False
    """Whether only older versions held somebody, from a roll-back."""

    candidate_only: bool = False
    """Whether the only gallery that held somebody is the candidate."""

    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def attempt(self, what: Callable[[], object]) -> None:
        """Do one part; remember why it cannot be done."""
        try:
            what()
        except EdgeError as error:
            self.problems.append(str(error))


def remove_subject(settings: Settings, subject_id: str, now: datetime) -> Removal:
    """Remove one subject from the gallery in force and the candidate, with all that is kept of it.

    Nothing is in `galleries` where nobody has that id; what an earlier removal left is erased all the same.

    Raises:
        EdgeError: The gallery in force cannot be changed; nothing was done.
    """
    removal = Removal()
    for number, store in enumerate((gallery_store(settings), candidate_store(settings))):
        try:
            gallery = _without(store, spellings(subject_id), removal)
        except EdgeError as error:
            if number == 0:
                raise
            removal.problems.append(f"the candidate: {error}")
        else:
            if gallery is not None:
                removal.candidate_only = number == 1 and not removal.galleries
                removal.galleries.append(gallery)
    _forget(settings, removal, now, somebody_left=bool(removal.galleries) or removal.older)
    return removal


def forget_departed(settings: Settings, now: datetime) -> list[str]:
    """Erase faces, denials and visits of whoever is in no gallery that this device decides by.

    Returns:
        Why some could not be erased.
    """
    removal = Removal()
    if not _nothing_kept(settings, now):
        _forget(settings, removal, now, somebody_left=False)
    return removal.problems + removal.warnings


def purge(settings: Settings) -> Removal:
    """Remove everybody, and everything that is kept of anybody."""
    removal = Removal()
    for store in (gallery_store(settings), candidate_store(settings)):

        def empty(store: GalleryStore = store) -> None:
            _without(store, None, removal)

        removal.attempt(empty)
    removal.attempt(lambda: crop_store(settings).keep_only(()))
    removal.attempt(denial_store(settings).purge)
    removal.attempt(visit_store(settings).purge)
    return removal


def _without(store: GalleryStore, subject_ids: set[str] | None, removal: Removal) -> Gallery | None:
    """Return the gallery without these (None: all) of its subjects, None where it holds none of them."""
    model_id, changed = store.enrolled_with(), None
    if model_id is not None:
        with store.edit(model_id) as edit:
            before = edit.gallery
            after = (
                Gallery.empty(model_id, before.version)
                if subject_ids is None
                else before.without_subjects(subject_ids)
            )
            if after.size != before.size:
                removal.size = max(removal.size, before.size - after.size)
                owed = edit.commit_owing(after)
                if owed is not None:
                    removal.problems.append(str(owed))
                    return edit.gallery
                changed = edit.gallery

    def erase() -> None:
        removal.older |= store.erase_owed(subject_ids) and changed is None

    removal.attempt(erase)
    return changed


def _forget(settings: Settings, removal: Removal, now: datetime, *, somebody_left: bool) -> None:
    """Erase what is kept of whoever is enrolled nowhere.

    Whom the remote gallery may name keeps denials and visits: who is not enrolled, nor was removed here.
    """
    denials, visits = denial_store(settings), visit_store(settings)
    asked, erased = settings.remote.policy != "off", erased_here(settings)
    try:
        enrolled = _enrolled(settings)
    except EdgeError as error:
        removal.problems.append(f"faces and denials of who is removed are still kept: {error}")
        return

    def known(subject_id: str) -> bool:
        return subject_id in enrolled or (asked and subject_id not in erased)

    def forget_visits() -> None:
        matched = [each for each in visits.load(now) if each.taken_for]
        visits.remove([each.visit_id for each in matched if not known(each.taken_for)])

    def left(denied: Denials) -> Denials:
        lost = denied.lost if asked else denied.lost & {ANYBODY, *map(subject_hash, enrolled)}
        return replace(denied.of(filter(known, denied.counts())), lost=lost)

    def forget_denials() -> None:
        try:
            denials.change(left)
        except GalleryIntegrityError:
            aside = denials.set_aside()
            removal.warnings.append(f"denials were damaged and are set aside as {aside}; deny again")
            denials.change(left)
        if somebody_left and denials.purge_set_aside():
            removal.warnings.append(
                "damaged denials are deleted, because nobody can tell whose they were; deny again"
            )

    removal.attempt(lambda: crop_store(settings).keep_only(enrolled))
    if denials.stamp() or somebody_left:
        removal.attempt(forget_denials)
    removal.attempt(forget_visits)


def _nothing_kept(settings: Settings, now: datetime) -> bool:
    """Return whether nothing is kept of anybody, which needs no gallery to be read; False if in doubt."""
    try:
        matched = any(each.taken_for for each in visit_store(settings).load(now))
        return not matched and not denial_store(settings).stamp() and crop_store(settings).empty()
    except EdgeError:
        return False


def _enrolled(settings: Settings) -> set[str]:
    """Return the ids of everybody in the gallery in force and the candidate."""
    found: set[str] = set()
    for store in (gallery_store(settings), candidate_store(settings)):
        model_id = store.enrolled_with()
        if model_id is not None:
            found |= {each.subject_id for each in store.load(model_id).subjects}
    return found
