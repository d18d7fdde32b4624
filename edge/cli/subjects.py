"""Commands about who is enrolled: subjects list, show, set, remove."""

import json
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.console import Console
from rich.table import Table

from edge.access import SubjectState
from edge.assembly import choose_embedder, embedding_dim
from edge.cli.operate import ConfigOption, load_settings
from edge.config import Settings
from edge.errors import EnrollmentError
from edge.face import manifest as manifests
from edge.gallery.crops import contact_sheet
from edge.gallery.gallery import Gallery
from edge.roster import Details, describe
from edge.stores import crop_store, denial_store, gallery_store
from edge.types import Subject

app = typer.Typer(help="The enrolled subjects of this device.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SubjectArgument = Annotated[str, typer.Argument(help="Opaque id of the subject.")]
LabelOption = Annotated[str | None, typer.Option(help="What people read; the id when left out.")]
GroupOption = Annotated[
    list[str] | None, typer.Option(help="Door group; may be given several times; '' for none.")
]
FromOption = Annotated[
    str | None, typer.Option("--valid-from", help="First good day, 2026-12-31; '' for none.")
]
UntilOption = Annotated[str | None, typer.Option("--valid-until", help="Last good day; '' for none.")]
WindowOption = Annotated[
    list[str] | None,
    typer.Option(help="Weekly window, 'mon-fri 07:00-18:00'; may be given several times; '' for none."),
]
ZoneOption = Annotated[str | None, typer.Option(help="Time zone of the windows; the door's when left out.")]
ConsentOption = Annotated[str | None, typer.Option(help="Where the subject's consent is filed.")]
NotesOption = Annotated[str | None, typer.Option(help="One line for yourself.")]


@app.command("list")
def list_subjects(config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List who is enrolled."""
    gallery = _gallery(load_settings(config_file))
    if as_json:
        rows = [
            {**_told(subject), "templates": count}
            for subject, count in zip(gallery.subjects, gallery.counts, strict=True)
        ]
        typer.echo(json.dumps({"version": gallery.version, "model_id": gallery.model_id, "subjects": rows}))
        return
    table = Table(
        "id", "label", "groups", "may pass", "templates", title=f"gallery version {gallery.version}"
    )
    for subject, count in zip(gallery.subjects, gallery.counts, strict=True):
        table.add_row(
            subject.subject_id, subject.label, ", ".join(subject.groups), _when(subject), str(count)
        )
    Console(markup=False, emoji=False).print(table)


@app.command()
def show(
    subject: SubjectArgument,
    sheet: Annotated[
        Path | None, typer.Option(help="Write the kept faces as one picture (`gallery.keep_crops`).")
    ] = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one subject and its templates' quality."""
    settings = load_settings(config_file)
    gallery = _gallery(settings)
    known = gallery.subject(subject)
    if known is None:
        raise EnrollmentError(
            f"no subject {subject!r} in gallery version {gallery.version}; see `edge subjects list`"
        )
    if sheet is not None:
        crops = crop_store(settings).load(subject)
        if not crops:
            raise EnrollmentError(
                f"no faces of {subject!r} are kept; see gallery.keep_crops, and enrol again"
            )
        if not cv2.imwrite(str(sheet), contact_sheet(crops)):
            raise EnrollmentError(f"{sheet}: cannot be written; name a .png or .jpg file")
    if as_json:
        typer.echo(json.dumps({**_told(known), "templates": gallery.counts[gallery.subjects.index(known)]}))
        return
    typer.echo(f"id      {known.subject_id}\nlabel   {known.label}\ngroups  {', '.join(known.groups) or '-'}")
    typer.echo(f"passes  {_when(known)}\nconsent {known.consent or '-'}\nnotes   {known.notes or '-'}")
    for template in gallery.templates_of(subject):
        quality = template.quality
        typer.echo(
            f"template from {template.source}, {template.created_at:%Y-%m-%d %H:%M} UTC: "
            f"face {quality.face_px:.0f} px, sharpness {quality.sharpness:.2f}, "
            f"yaw {quality.yaw_deg:.0f} deg, weight {quality.weight:.2f}"
        )


@app.command("set")
def change(
    subject: SubjectArgument,
    label: LabelOption = None,
    group: GroupOption = None,
    state: Annotated[SubjectState | None, typer.Option(help="Whether it may pass at all.")] = None,
    valid_from: FromOption = None,
    valid_until: UntilOption = None,
    window: WindowOption = None,
    time_zone: ZoneOption = None,
    consent: ConsentOption = None,
    notes: NotesOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Change what is known of a subject, not its face; a running daemon follows at once."""
    settings = load_settings(config_file)
    said = details(label, group, valid_from, valid_until, window, time_zone, consent, notes, state)
    manifest = manifests.load(choose_embedder(settings).name, settings.models_path)
    with gallery_store(settings).edit(manifest.model_id, embedding_dim(manifest)) as edit:
        known = edit.gallery.subject(subject)
        if known is None:
            raise EnrollmentError(f"no subject {subject!r} in the gallery; see `edge subjects list`")
        changed = describe(subject, known, said, settings.access.time_zone)
        gallery = edit.commit(edit.gallery.with_subject(changed, edit.gallery.templates_of(subject)))
    typer.echo(f"{subject} may pass: {_when(changed)}; gallery version {gallery.version}")


@app.command()
def remove(subject: SubjectArgument, config_file: ConfigOption = None) -> None:
    """Remove one subject; a running daemon follows at once."""
    settings = load_settings(config_file)
    manifest = manifests.load(choose_embedder(settings).name, settings.models_path)
    with gallery_store(settings).edit(manifest.model_id, embedding_dim(manifest)) as edit:
        if edit.gallery.subject(subject) is None:
            raise EnrollmentError(f"no subject {subject!r} in the gallery; see `edge subjects list`")
        gallery = edit.commit(edit.gallery.without_subject(subject))
    crop_store(settings).remove([subject])
    store = denial_store(settings)
    denials = store.load()
    if subject in denials.rows:
        store.save(denials.of(denials.rows.keys() - {subject}))
    typer.echo(f"removed {subject}; gallery version {gallery.version} has {gallery.size} subject(s)")


def details(
    label: str | None,
    group: list[str] | None,
    valid_from: str | None,
    valid_until: str | None,
    window: list[str] | None,
    time_zone: str | None,
    consent: str | None,
    notes: str | None,
    state: SubjectState | None = None,
) -> Details:
    """Return what was said on the command line; an option that was not given says nothing."""
    return Details(
        label,
        tuple(group) if group else None,
        valid_from,
        valid_until,
        tuple(window) if window else None,
        time_zone,
        consent,
        notes,
        state,
    )


def _gallery(settings: Settings) -> Gallery:
    manifest = manifests.load(choose_embedder(settings).name, settings.models_path)
    return gallery_store(settings).load(manifest.model_id, embedding_dim(manifest))


def _when(subject: Subject) -> str:
    """Say in words when a subject may pass."""
    access = subject.access
    if access.state != SubjectState.ACTIVE:
        return f"no: {access.state}"
    parts = [
        f"from {access.not_before:%Y-%m-%d %H:%M} UTC" if access.not_before else "",
        f"until {access.not_after:%Y-%m-%d %H:%M} UTC" if access.not_after else "",
        "; ".join(map(str, access.windows)),
        access.time_zone if access.windows else "",
    ]
    return " ".join(part for part in parts if part) or "always"


def _told(subject: Subject) -> dict[str, object]:
    access = subject.access
    return {
        "id": subject.subject_id,
        "label": subject.label,
        "groups": subject.groups,
        "state": access.state,
        "not_before": access.not_before.isoformat() if access.not_before else None,
        "not_after": access.not_after.isoformat() if access.not_after else None,
        "windows": [str(window) for window in access.windows],
        "time_zone": access.time_zone or None,
        "consent": subject.consent or None,
        "notes": subject.notes or None,
    }
