"""Make the gallery for another embedder: the same subjects, their photos embedded anew by the operator.

Several processes embed, or the workers of a cluster. This process enrols and commits as it goes: run again
after an interruption, it goes on where it stopped. The gallery in force is only read.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from multiprocessing import get_context

from edge.core.errors import ClusterError, EdgeError
from edge.core.ids import composed
from edge.core.types import Probe, Subject, Template
from edge.fleet.cluster import Cluster
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from edge.recognition.enrolment.bulk import EnrolmentOutcome, encode_entry
from edge.recognition.enrolment.enrol import enroll
from edge.recognition.enrolment.roster import Entry
from edge.recognition.recognizer import Recognizer

CHUNK = 64
"""Subjects for one process at a time. Measured: it loads its models in .4 s and embeds 64 photos in 2 s."""

Encoded = list[tuple[list[Probe], list[EnrolmentOutcome]]]


def reembed(
    current: Gallery,
    photos: Sequence[Entry],
    load: Callable[[], Recognizer],
    store: GalleryStore,
    *,
    max_prototypes: int,
    processes: int,
    at: Callable[[], datetime],
    told: Callable[[str, float, float], None],
    cluster: Cluster | None = None,
) -> list[EnrolmentOutcome]:
    """Fill `store` with the subjects of `current`, embedded by what `load` returns.

    Who has templates there already keeps them, who is not in `current` leaves. What is known of a subject
    besides its face comes from `current`, whatever `photos` say. A subject gets at most `max_prototypes`
    templates. Each of the `processes` calls `load` for itself, so it must be picklable; with a `cluster` its
    workers embed instead. `told` hears what is done, of how much.

    Returns:
        What became of each subject, and of each photo that was refused.

    Raises:
        ModelError, GalleryError, ConfigError: The embedder cannot be used, or a version cannot be written.
        ClusterError: The cluster is lost, or is not what is needed.
    """
    recognizer = load().for_enrolment()
    done = _aligned(store, current, recognizer)
    entries = {composed(entry.subject.subject_id): entry for entry in photos}
    missing = [subject for subject in current.subjects if subject.subject_id not in done]
    owed = [
        Entry(subject, entries[composed(subject.subject_id)].photos)
        for subject in missing
        if composed(subject.subject_id) in entries
    ]
    outcomes = [
        EnrolmentOutcome(subject.subject_id, "", "refused", "there is no photo of it")
        for subject in missing
        if composed(subject.subject_id) not in entries
    ]
    outcomes += [EnrolmentOutcome(subject_id, "", "already enrolled") for subject_id in sorted(done)]
    number = 0
    for chunk, encoded in _encoded(owed, load, processes, cluster):
        told("subjects", number, len(owed))
        with store.edit(recognizer.embedder.model_id, recognizer.embedder.dim) as edit:
            gallery = edit.gallery
            for entry, (probes, refused) in zip(chunk, encoded, strict=True):
                outcomes += refused
                templates, outcome = _templates(entry.subject, probes, recognizer, at(), max_prototypes)
                outcomes.append(outcome)
                if templates:
                    gallery = gallery.with_subject(entry.subject, templates)
            if gallery is not edit.gallery:
                edit.commit(gallery)
        number += len(chunk)
    told("subjects", len(owed), len(owed))
    return outcomes


def _aligned(store: GalleryStore, current: Gallery, recognizer: Recognizer) -> set[str]:
    """Let the store hold nobody who is not in `current`, and return who is in it."""
    model_id, dim = recognizer.embedder.model_id, recognizer.embedder.dim
    if store.enrolled_with() not in (None, model_id):
        store.commit(Gallery.empty(model_id, store.current_version(), dim))
    if not store.current_version():
        return set()
    with store.edit(model_id, dim) as edit:
        known = {subject.subject_id: subject for subject in current.subjects}
        gone = edit.gallery.ids - known.keys()
        kept = edit.gallery.without_subjects(gone)
        said = tuple(known[subject.subject_id] for subject in kept.subjects)
        if gone or said != kept.subjects:
            edit.commit(replace(kept, subjects=said))
    return {subject.subject_id for subject in said}


def _templates(
    subject: Subject, probes: Sequence[Probe], recognizer: Recognizer, at: datetime, max_prototypes: int
) -> tuple[tuple[Template, ...], EnrolmentOutcome]:
    """Return the templates of one subject; who looks like whom was settled when it was enrolled first."""
    if not probes:
        return (), EnrolmentOutcome(subject.subject_id, "", "refused", "none of its photos can be used")
    alone = Gallery.empty(recognizer.embedder.model_id)
    try:
        done = enroll(
            subject,
            probes,
            recognizer,
            alone,
            source="photo",
            at=at,
            max_prototypes=max_prototypes,
        )
    except EdgeError as error:
        return (), EnrolmentOutcome(subject.subject_id, "", "refused", str(error))
    return done.templates, EnrolmentOutcome(subject.subject_id, "", "enrolled")


def _encoded(
    entries: Sequence[Entry], load: Callable[[], Recognizer], processes: int, cluster: Cluster | None
) -> Iterator[tuple[Sequence[Entry], Encoded]]:
    """Yield the entries in chunks, each with its probes, in order."""
    chunks = [entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK)]
    if cluster is not None:
        for chunk, answers in cluster.map(_encode_chunk, chunks):
            yield chunk, [_encoded_or_refused(*pair) for pair in zip(chunk, answers, strict=True)]
        return
    if processes == 1 or len(chunks) <= 1:
        yield from ((chunk, _encode_chunk(load, chunk)) for chunk in chunks)
        return
    with ProcessPoolExecutor(min(processes, len(chunks)), get_context("spawn")) as pool:
        try:
            yield from zip(chunks, pool.map(partial(_encode_chunk, load), chunks), strict=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _encoded_or_refused(
    entry: Entry, answer: tuple[list[Probe], list[EnrolmentOutcome]] | ClusterError
) -> tuple[list[Probe], list[EnrolmentOutcome]]:
    if not isinstance(answer, ClusterError):
        return answer
    photo = str(entry.photos[0]) if len(entry.photos) == 1 else ""
    return [], [EnrolmentOutcome(entry.subject.subject_id, photo, "refused", str(answer))]


def _encode_chunk(load: Callable[[], Recognizer], entries: Sequence[Entry]) -> Encoded:
    """Return the probes of each entry and why photos were refused; loads its own models.

    Raises:
        GalleryError: A photo made a probe that is not finite.
    """
    recognizer = load().for_enrolment()
    return [encode_entry(entry, recognizer) for entry in entries]
