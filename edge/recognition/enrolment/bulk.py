"""Enrol many subjects from a list: what can be enrolled is, what cannot is told with its reason.

Commits as it goes: run again after an interruption, it goes on where it stopped.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from edge.camera.photo import read_photo
from edge.core.errors import EnrollmentError, GalleryError, MediaError
from edge.core.ids import composed
from edge.core.text import cell, printable
from edge.core.types import Probe
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from edge.recognition.enrolment.enrol import Which, encode_photo, enroll
from edge.recognition.enrolment.roster import Entry
from edge.recognition.recognizer import Recognizer

COMMIT_EVERY = 32
"""Subjects between two versions: an interruption costs the work of so many."""

Status = Literal["enrolled", "already enrolled", "warning", "refused"]


@dataclass(frozen=True, slots=True)
class EnrolmentOutcome:
    """What became of a subject, or of one of its photos."""

    subject_id: str
    photo: str
    status: Status
    reason: str = ""


def enroll_all(
    entries: Sequence[Entry],
    recognizer: Recognizer,
    store: GalleryStore,
    *,
    at: Callable[[], datetime],
    max_prototypes: int,
    force: bool = False,
    replace: bool = False,
    which: Which = None,
    told: Callable[[str, float, float], None],
) -> list[EnrolmentOutcome]:
    """Enrol every entry that can be; a subject of the gallery is left alone unless `replace`.

    One that is enrolled with another face is refused all the same: that is done one by one.

    `recognizer` is one `for_enrolment`; `which` says which face of each photo is meant; `told` hears what is
    done, of how much.

    Raises:
        GalleryError: A version cannot be written.
    """
    outcomes: list[EnrolmentOutcome] = []
    for start in range(0, len(entries), COMMIT_EVERY):
        current = store.load(recognizer.embedder.model_id, recognizer.embedder.dim)
        batch = _spelled_as_enrolled(entries[start : start + COMMIT_EVERY], current)
        probes = {}
        for number, entry in enumerate(batch, start):
            told("photos", number, len(entries))
            if replace or current.subject(entry.subject.subject_id) is None:
                probes[entry.subject.subject_id], refused = encode_entry(entry, recognizer, which)
                outcomes += refused
        with store.edit(recognizer.embedder.model_id, recognizer.embedder.dim) as edit:
            gallery = edit.gallery
            # A list of look-alikes raises the threshold by which its later entries are judged.
            judge = recognizer.with_gallery(gallery)
            for entry in batch:
                gallery, found = _enroll(
                    entry,
                    probes.get(entry.subject.subject_id),
                    judge,
                    gallery,
                    at(),
                    max_prototypes,
                    force,
                )
                outcomes += found
            if gallery is not edit.gallery:
                edit.commit(gallery)
    told("photos", len(entries), len(entries))
    return outcomes


def write_outcomes(outcomes: Iterable[EnrolmentOutcome], path: Path) -> None:
    """Write what became of everybody as a CSV file.

    Raises:
        MediaError: It cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("subject", "photo", "status", "reason"))
            for each in outcomes:
                writer.writerow(map(cell, (each.subject_id, each.photo, each.status, each.reason)))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise MediaError(f"{path}: the report cannot be written: {why}") from None


def tell_refusals(outcomes: Iterable[EnrolmentOutcome], told: Callable[[str], None]) -> None:
    """Tell, a line each, who was refused and why, and what the others are to know."""
    for each in outcomes:
        if each.status in ("refused", "warning"):
            told(printable(f"{each.subject_id}: {each.status}: {each.reason}"))


def encode_entry(
    entry: Entry, recognizer: Recognizer, which: Which = None
) -> tuple[list[Probe], list[EnrolmentOutcome]]:
    """Return the probes of the photos that can be used, and why the others cannot."""
    probes, refused = [], []
    for photo in entry.photos:
        try:
            probes.append(encode_photo(read_photo(photo), photo.name, recognizer, which))
        except (EnrollmentError, MediaError) as error:
            refused.append(EnrolmentOutcome(entry.subject.subject_id, str(photo), "refused", str(error)))
    return probes, refused


def _spelled_as_enrolled(entries: Iterable[Entry], gallery: Gallery) -> list[Entry]:
    """Return the entries, with the ids of who is enrolled already spelled as they are there."""
    spelled = {composed(each): each for each in gallery.ids}
    return [
        replace(entry, subject=replace(entry.subject, subject_id=spelled.get(subject_id, subject_id)))
        for entry in entries
        for subject_id in (composed(entry.subject.subject_id),)
    ]


def _enroll(
    entry: Entry,
    probes: Sequence[Probe] | None,
    recognizer: Recognizer,
    gallery: Gallery,
    at: datetime,
    max_prototypes: int,
    force: bool,
) -> tuple[Gallery, list[EnrolmentOutcome]]:
    subject_id = entry.subject.subject_id
    if probes is None:
        return gallery, [EnrolmentOutcome(subject_id, "", "already enrolled")]
    if not probes:
        why = "none of its photos can be used" if entry.photos else "its folder holds no photo"
        return gallery, [EnrolmentOutcome(subject_id, "", "refused", why)]
    try:
        done = enroll(
            entry.subject,
            probes,
            recognizer,
            gallery,
            source="photo",
            at=at,
            max_prototypes=max_prototypes,
            force=force,
        )
    except (EnrollmentError, GalleryError) as error:
        return gallery, [EnrolmentOutcome(subject_id, "", "refused", str(error))]
    return done.gallery, [EnrolmentOutcome(subject_id, "", "enrolled"), *_warnings(subject_id, done.warnings)]


def _warnings(subject_id: str, warnings: Iterable[str]) -> Iterator[EnrolmentOutcome]:
    for warning in warnings:
        yield EnrolmentOutcome(subject_id, "", "warning", warning)
