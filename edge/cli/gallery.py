"""Commands about subjects: enroll, identify, verify, subjects list|show|remove."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge.assembly import (
    PHOTO_SIDE_PX,
    build_camera,
    build_recognizer,
    choose_embedder,
    embedding_dim,
    gallery_store,
)
from edge.camera.sources import Camera
from edge.cli.operate import ConfigOption, load_settings
from edge.clock import SystemClock
from edge.config import Settings
from edge.enroll import encode_photo, walk_up
from edge.enroll import enroll as enroll_probes
from edge.errors import ConfigError, EnrollmentError
from edge.face import manifest as manifests
from edge.gallery.gallery import Gallery
from edge.photo import read_photo
from edge.types import EventType, Frame, Subject

subjects = typer.Typer(help="The enrolled subjects of this device.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def enroll(
    subject: Annotated[str, typer.Argument(help="Opaque id of the subject, unique in the gallery.")],
    photos: Annotated[
        list[Path] | None, typer.Argument(help="One photo is enough; more make it better.")
    ] = None,
    label: Annotated[str, typer.Option(help="What people read; the id when left out.")] = "",
    group: Annotated[list[str] | None, typer.Option(help="Door group; may be given several times.")] = None,
    camera: Annotated[str, typer.Option(help="Enrol whoever walks up to this camera instead.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a walk-up.")] = 30.0,
    force: Annotated[bool, typer.Option(help="Enrol although another subject looks the same.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Enrol a subject from a photo or a camera. Nothing is retrained; a running daemon follows at once."""
    if bool(photos) == bool(camera):
        raise typer.BadParameter("give one or more photos, or --camera NAME")
    settings = load_settings(config_file)
    recognizer = build_recognizer(settings, side_px=PHOTO_SIDE_PX if photos else None).for_enrolment()
    if photos:
        probes = [encode_photo(read_photo(photo), str(photo), recognizer) for photo in photos]
    else:
        typer.echo(f"stand alone before camera {camera!r} and look at it ...", err=True)
        probes = walk_up(_frames(_camera(camera, settings)), recognizer, timeout_s=timeout)
    who = Subject(subject, label or subject, tuple(group or ()))
    store = gallery_store(settings)
    with store.edit(recognizer.embedder.model_id, recognizer.embedder.dim) as edit:
        enrolment = enroll_probes(
            who,
            probes,
            recognizer,
            edit.gallery,
            source=f"camera:{camera}" if camera else "photo",
            at=SystemClock().now(),
            max_prototypes=settings.gallery.prototypes,
            force=force,
        )
        gallery = edit.commit(enrolment.gallery)
    for warning in enrolment.warnings:
        typer.echo(f"warning: {warning}", err=True)
    best = max(template.quality.weight for template in enrolment.templates)
    typer.echo(
        f"enrolled {subject} from {len(probes)} shot(s) as {len(enrolment.templates)} template(s), "
        f"best quality {best:.2f}; gallery version {gallery.version} has {gallery.size} subject(s)"
    )


def identify(photo: Path, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whose face a photo shows, or that it is nobody's. Exits 1 for a reject."""
    settings = load_settings(config_file)
    recognizer = build_recognizer(settings, side_px=PHOTO_SIDE_PX)
    probe = encode_photo(read_photo(photo), str(photo), recognizer)
    decision = recognizer.identify(probe, SystemClock().now())
    score = decision.score
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "decision": decision.event_type,
                    "reason": decision.reason,
                    "subject": decision.subject.subject_id if decision.subject else None,
                    "best": score.best if score else None,
                    "second": score.second if score else None,
                    "threshold": score.threshold if score else None,
                    "gallery_size": score.gallery_size if score else 0,
                }
            )
        )
    else:
        who = decision.subject.label if decision.subject else decision.reason
        numbers = f"best {score.best:.3f}, " if score and score.best is not None else ""
        limit = f"threshold {score.threshold:.3f}, {score.gallery_size} subjects" if score else ""
        typer.echo(f"{decision.event_type}: {who} ({numbers}{limit})")
    raise typer.Exit(0 if decision.event_type == EventType.MATCH else 1)


def verify(first: Path, second: Path, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Compare the faces of two photos 1:1. Exits 1 when they are different."""
    settings = load_settings(config_file)
    recognizer = build_recognizer(settings, side_px=PHOTO_SIDE_PX)
    score = recognizer.verify(
        *(encode_photo(read_photo(photo), str(photo), recognizer) for photo in (first, second))
    )
    threshold = recognizer.rule.threshold_for(1)
    same = score >= threshold
    if as_json:
        typer.echo(json.dumps({"same": same, "score": round(score, 4), "threshold": round(threshold, 4)}))
    else:
        verdict = "same subject" if same else "different subjects"
        typer.echo(f"{verdict} (score {score:.3f}, threshold {threshold:.3f})")
    raise typer.Exit(0 if same else 1)


@subjects.command("list")
def list_subjects(config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List who is enrolled."""
    gallery = _gallery(load_settings(config_file))
    if as_json:
        rows = [
            {
                "id": subject.subject_id,
                "label": subject.label,
                "groups": subject.groups,
                "templates": len(gallery.templates_of(subject.subject_id)),
            }
            for subject in gallery.subjects
        ]
        typer.echo(json.dumps({"version": gallery.version, "model_id": gallery.model_id, "subjects": rows}))
        return
    table = Table("id", "label", "groups", "templates", title=f"gallery version {gallery.version}")
    for subject in gallery.subjects:
        templates = len(gallery.templates_of(subject.subject_id))
        table.add_row(subject.subject_id, subject.label, ", ".join(subject.groups), str(templates))
    Console().print(table)


@subjects.command()
def show(subject: str, config_file: ConfigOption = None) -> None:
    """Show one subject and its templates' quality."""
    gallery = _gallery(load_settings(config_file))
    known = gallery.subject(subject)
    if known is None:
        raise EnrollmentError(
            f"no subject {subject!r} in gallery version {gallery.version}; see `edge subjects list`"
        )
    typer.echo(f"id      {known.subject_id}\nlabel   {known.label}\ngroups  {', '.join(known.groups) or '-'}")
    for template in gallery.templates_of(subject):
        quality = template.quality
        typer.echo(
            f"template from {template.source}, {template.created_at:%Y-%m-%d %H:%M} UTC: "
            f"face {quality.face_px:.0f} px, sharpness {quality.sharpness:.2f}, "
            f"yaw {quality.yaw_deg:.0f} deg, weight {quality.weight:.2f}"
        )


@subjects.command()
def remove(subject: str, config_file: ConfigOption = None) -> None:
    """Remove one subject; a running daemon follows at once."""
    settings = load_settings(config_file)
    manifest = manifests.load(choose_embedder(settings).name)
    with gallery_store(settings).edit(manifest.model_id, embedding_dim(manifest)) as edit:
        if edit.gallery.subject(subject) is None:
            raise EnrollmentError(f"no subject {subject!r} in the gallery; see `edge subjects list`")
        gallery = edit.commit(edit.gallery.without_subject(subject))
    typer.echo(f"removed {subject}; gallery version {gallery.version} has {gallery.size} subject(s)")


def _gallery(settings: Settings) -> Gallery:
    manifest = manifests.load(choose_embedder(settings).name)
    return gallery_store(settings).load(manifest.model_id, embedding_dim(manifest))


def _camera(name: str, settings: Settings) -> Camera:
    if name not in settings.cameras:
        known = ", ".join(settings.cameras) or "none"
        raise ConfigError(
            f"no camera {name!r} is configured (configured: {known}); add a table [cameras.{name}]"
        )
    return build_camera(name, settings, SystemClock())


def _frames(camera: Camera) -> Iterator[Frame]:
    camera.open()
    try:
        while (frame := camera.read()) is not None:
            yield frame
    finally:
        camera.close()
