"""What the commands do that move to another embedder: embed the photos anew, switch, and switch back."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import typer

from edge.cli.progress import progress
from edge.core.clock import SystemClock
from edge.core.errors import GalleryError
from edge.device.assembly.recognizer import choose_embedder, embedding_dim
from edge.device.assembly.stores import beside_store, gallery_store
from edge.device.settings.load import Settings
from edge.face import manifest as manifests
from edge.face.choice import choose
from edge.face.manifest import Manifest
from edge.fleet.reembed import reembed as reembed_all
from edge.gallery.gallery import Gallery
from edge.recognition.enrolment.bulk import tell_refusals, write_outcomes
from edge.recognition.enrolment.roster import from_folder


def reembed_gallery(settings: Settings, photos: Path, model: str, processes: int, report: Path | None) -> int:
    """Fill the store beside with the gallery in force, embedded by `model`; returns the exit code.

    Raises:
        EdgeError: The photos, the model or a store cannot be used.
    """
    recognition = settings.recognition.model_copy(update={"embedder": model})
    current = gallery_in_force(settings)[0]
    with progress("reembed") as told:
        outcomes = reembed_all(
            current,
            from_folder(photos),
            settings.model_copy(update={"recognition": recognition}),
            beside_store(settings),
            processes=processes,
            at=SystemClock().now,
            told=told,
        )
    tell_refusals(outcomes, partial(typer.echo, err=True))
    if report:
        write_outcomes(outcomes, report)
    counts = Counter(each.status for each in outcomes if not each.photo)
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()) or "nobody is enrolled")
    return 1 if counts["refused"] else 0


def switch_gallery(settings: Settings) -> str:
    """Exchange the gallery in force and the one beside it; returns what was done.

    Raises:
        GalleryError: There is none beside it, or this device may not embed with its model.
    """
    (current, _), (beside, manifest) = gallery_in_force(settings), beside_gallery(settings)
    if settings.recognition.embedder not in ("auto", manifest.name):
        raise GalleryError(
            f"recognition.embedder: {settings.recognition.embedder!r} is configured, the gallery beside is "
            f'of {manifest.name!r}; set it to "auto"'
        )
    store, other = gallery_store(settings), beside_store(settings)
    committed = store.commit(replace(beside, version=current.version))
    other.commit(replace(current, version=beside.version))
    return (
        f"gallery version {committed.version} with {committed.size} subject(s) of {manifest.name} serves; "
        "switch again to go back"
    )


def beside_gallery(settings: Settings) -> tuple[Gallery, Manifest]:
    """Return the gallery that lies beside the one in force, and the manifest of its embedder.

    Raises:
        GalleryError: There is none, or it cannot be read.
    """
    store = beside_store(settings)
    model_id = store.enrolled_with()
    if model_id is None:
        raise GalleryError("nothing lies beside the gallery; make it with `edge fleet reembed`")
    choice = choose("auto", model_id, settings.models_path, threads=settings.recognition.threads)
    manifest = manifests.load(choice.name, settings.models_path)
    return store.load(manifest.model_id, embedding_dim(manifest)), manifest


def gallery_in_force(settings: Settings) -> tuple[Gallery, Manifest]:
    """Return the gallery that serves, and the manifest of its embedder.

    Raises:
        GalleryError, ModelError: It cannot be read.
    """
    manifest = manifests.load(choose_embedder(settings).name, settings.models_path)
    return gallery_store(settings).load(manifest.model_id, embedding_dim(manifest)), manifest
