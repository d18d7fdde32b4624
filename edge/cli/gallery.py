"""Commands about the gallery as a whole: versions, roll-back, switch, deny, purge, upload.

What the commands do that move to another embedder: embed the photos anew, switch, and switch back.
"""

import json
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.options import ConfigOption, JsonOption, load_settings
from edge.cli.output import Listing, progress
from edge.cli.strangers import kept_visit
from edge.cli.subjects import tell_of_fleet
from edge.core.clock import SystemClock
from edge.core.errors import ConfigError, EnrollmentError, GalleryError
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer, choose_embedder
from edge.device.assembly.remote import upload_gallery
from edge.device.assembly.stores import candidate_store, denial_store, erased_here, gallery_store
from edge.device.removal import purge as purge_everything
from edge.device.settings.load import Settings
from edge.face import manifest as manifests
from edge.face.choice import choose
from edge.face.manifest import Manifest, embedding_dim
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
    chosen = settings.model_copy(update={"recognition": recognition})
    current = gallery_in_force(settings)[0]
    with progress("reembed") as told:
        outcomes = reembed_all(
            current,
            from_folder(photos),
            partial(build_recognizer, chosen, Gallery.empty("none"), side_px=PHOTO_SIDE_PX),
            candidate_store(settings),
            max_prototypes=settings.gallery.prototypes,
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
    store, other = gallery_store(settings), candidate_store(settings)
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
    store = candidate_store(settings)
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


gallery = typer.Typer(help="The gallery as a whole.", no_args_is_help=True)


@gallery.command()
def versions(config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the versions that are kept, and which serves; `edge gallery roll-back` goes back to one."""
    kept = gallery_store(load_settings(config_file)).history()
    if as_json:
        rows = [asdict(each) | {"at": each.at.isoformat() if each.at else None} for each in kept]
        typer.echo(json.dumps({"versions": [{"subjects": row.pop("size"), **row} for row in rows]}))
        return
    if not kept:
        typer.echo("nobody was ever enrolled here")
        return
    table = Listing("version", "made at", "subjects", "embedder", "", copied=("version", "embedder"))
    for each in kept:
        table.add_row(
            str(each.version),
            f"{each.at:%Y-%m-%d %H:%M} UTC" if each.at else "",
            "unreadable" if each.size is None else str(each.size),
            each.model_id or "",
            "serves" if each.serves else "",
        )
    table.print()


@gallery.command("roll-back")
def roll_back(
    version: Annotated[int, typer.Argument(min=1, help="A kept version; see `edge gallery versions`.")],
    config_file: ConfigOption = None,
) -> None:
    """Make what an earlier version holds the next version; a running daemon follows at once.

    Who was removed since stays removed. States, validity and windows are those of then.
    """
    settings = load_settings(config_file)
    if settings.sync.url is not None:
        raise ConfigError(
            "sync.url: this door's gallery comes from a fleet, which would undo it; publish the earlier "
            "gallery with `edge fleet publish`"
        )
    store = gallery_store(settings)
    target = next((each for each in store.history() if each.version == version), None)
    if target is not None and target.size:
        chosen = settings.recognition.embedder
        name = choose(chosen, target.model_id, settings.models_path, threads=1).name
        if manifests.load(name, settings.models_path).model_id != target.model_id:
            raise GalleryError(
                f"version {version} was enrolled with {target.model_id!r}, recognition.embedder is "
                f'{chosen!r}; set it to "auto"'
            )
    done = store.roll_back(version)
    typer.echo(
        f"gallery version {done.version} with {done.size} subject(s) is what version {version} was, without "
        "who was removed since; states and windows are those of then"
    )


@gallery.command()
def upload(config_file: ConfigOption = None) -> None:
    """Make the configured Qdrant collection hold exactly this gallery, rotated by the site's secret."""
    settings = load_settings(config_file)
    manifest = manifests.load(choose_embedder(settings).name, settings.models_path)
    found = gallery_store(settings).load(manifest.model_id, embedding_dim(manifest))
    upload_gallery(settings, found)
    typer.echo(f"{settings.remote.collection}: {found.size} subject(s), {len(found.matrix)} template(s)")


@gallery.command("switch")
def switch(config_file: ConfigOption = None) -> None:
    """Exchange this device's gallery and the one beside it: the next switch is the way back.

    A running daemon follows at once, with model, gallery and threshold together; it needs embedder = "auto".
    """
    typer.echo(switch_gallery(load_settings(config_file)))


@gallery.command()
def deny(
    subject: Annotated[str | None, typer.Argument(help="Opaque id of the subject.")] = None,
    visit: Annotated[
        str,
        typer.Option(help="A kept visit that was not this subject's; see `edge strangers list --matched`."),
    ] = "",
    remove: Annotated[bool, typer.Option(help="Forget what was denied of the subject.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Say that the face of a visit is not this subject's; without arguments: of whom how many were denied."""
    settings = load_settings(config_file)
    store = denial_store(settings)
    if subject is None:
        for subject_id, count in store.load().counts().items():
            typer.echo(f"{subject_id}: {count} face(s)")
        return
    if remove:
        store.change(lambda denials: denials.of(denials.counts().keys() - {subject}))
        typer.echo(f"nothing is denied of {subject} any more")
        return
    found, manifest = gallery_in_force(settings)
    enrolled, asked = found.subject(subject) is not None, settings.remote.policy != "off"
    if not enrolled and (not asked or subject in erased_here(settings)):
        raise EnrollmentError(f"no subject {subject!r} in the gallery; see `edge subjects list`")
    kept = kept_visit(settings, visit, manifest.model_id)
    if not enrolled and kept.taken_for != subject:
        raise EnrollmentError(
            f"no subject {subject!r} in the gallery, and the remote one did not take {visit} for it; see "
            "`edge strangers list --matched`"
        )
    store.change(lambda denials: denials.plus(subject, kept.probe))
    typer.echo(f"the face of {visit} is not taken for {subject} any more")


@gallery.command()
def purge(
    confirm: Annotated[str, typer.Option(help="The device's name, so that it is meant.")],
    config_file: ConfigOption = None,
) -> None:
    """Erase everybody who is enrolled here, and all that is kept of anybody: faces, denials, visits."""
    settings = load_settings(config_file)
    if confirm != settings.device:
        raise ConfigError(f"--confirm: this device is {settings.device!r}; nothing was erased")
    tell_of_fleet(settings)
    removal = purge_everything(settings)
    done = f"erased {removal.size} subject(s)"
    if removal.problems:
        raise GalleryError(f"{done}; but {'; '.join(removal.problems)}")
    typer.echo(done)
