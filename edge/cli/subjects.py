"""Commands about who is enrolled: subjects list, show, set, remove."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.options import (
    ConfigOption,
    ConsentOption,
    FromOption,
    GroupOption,
    JsonOption,
    LabelOption,
    NotesOption,
    SubjectArgument,
    SubjectsArgument,
    UntilOption,
    WindowOption,
    ZoneOption,
    load_settings,
)
from edge.cli.output import Listing
from edge.core import files
from edge.core.access import SubjectState
from edge.core.clock import SystemClock
from edge.core.errors import EdgeError, EnrollmentError, ErasureOwedError
from edge.core.types import Subject
from edge.device.assembly.recognizer import choose_embedder
from edge.device.assembly.stores import candidate_store, crop_store, gallery_store
from edge.device.settings.load import Settings
from edge.device.upkeep.removal import remove_subject
from edge.face.manifest import embedding_dim, load_manifest
from edge.gallery.gallery import Gallery
from edge.gallery.store.crops import encode_sheet
from edge.recognition.enrolment.roster import Details, describe

app = typer.Typer(help="The enrolled subjects of this device.", no_args_is_help=True)


@app.command("list")
def list_subjects(config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List who is enrolled."""
    gallery = _gallery(load_settings(config_file))
    if as_json:
        rows = [
            {
                **_told(subject),
                "templates": count,
                "enrolled_at": enrolled_at.isoformat(timespec="seconds"),
                "photos": photos,
            }
            for subject, count, (enrolled_at, photos) in zip(
                gallery.subjects, gallery.counts, _enrolments(gallery), strict=True
            )
        ]
        typer.echo(json.dumps({"version": gallery.version, "model_id": gallery.model_id, "subjects": rows}))
        return
    table = Listing(
        *("id", "label", "groups", "may pass", "enrolled at", "photos", "templates"),
        copied=("id",),
        title=f"gallery version {gallery.version}",
    )
    for subject, count, (enrolled_at, photos) in zip(
        gallery.subjects, gallery.counts, _enrolments(gallery), strict=True
    ):
        who = (subject.subject_id, subject.label, ", ".join(subject.groups), when(subject))
        table.add_row(*who, f"{enrolled_at:%Y-%m-%d %H:%M} UTC", str(photos), str(count))
    table.print()


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
    subject = gallery.id_of(subject)
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
        files.write_whole(sheet, encode_sheet(crops, sheet))
    if as_json:
        typer.echo(json.dumps({**_told(known), "templates": gallery.counts[gallery.subjects.index(known)]}))
        return
    typer.echo(f"id      {known.subject_id}\nlabel   {known.label}\ngroups  {', '.join(known.groups) or '-'}")
    typer.echo(f"passes  {when(known)}\nconsent {known.consent or '-'}\nnotes   {known.notes or '-'}")
    for template in gallery.templates_of(subject):
        quality = template.quality
        typer.echo(
            f"template from {template.source}, {template.created_at:%Y-%m-%d %H:%M} UTC: "
            f"face {quality.face_px:.0f} px, sharpness {quality.sharpness:.2f}, "
            f"yaw {quality.yaw_deg:.0f} deg, weight {quality.weight:.2f}"
            + (
                f", recognisability {quality.recognisability:.2f}"
                if quality.recognisability is not None
                else ""
            )
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
    tell_of_fleet(settings)
    manifest = load_manifest(choose_embedder(settings).name, settings.models_path)
    with gallery_store(settings).edit(manifest.model_id, embedding_dim(manifest)) as edit:
        subject = edit.gallery.id_of(subject)
        known = edit.gallery.subject(subject)
        if known is None:
            raise EnrollmentError(f"no subject {subject!r} in the gallery; see `edge subjects list`")
        changed = describe(subject, known, said, settings.access.time_zone)
        owed = edit.commit_owing(edit.gallery.with_subject(changed, edit.gallery.templates_of(subject)))
    _change_candidate(settings, subject, said)
    if owed is not None:
        raise owed
    typer.echo(f"{subject} may pass: {when(changed)}; gallery version {edit.gallery.version}")


def _change_candidate(settings: Settings, subject: str, said: Details) -> None:
    """Say the same of a subject in the candidate."""
    store = candidate_store(settings)
    try:
        model_id = store.enrolled_with()
        if model_id is None:
            return
        with store.edit(model_id) as edit:
            subject = edit.gallery.id_of(subject)
            known = edit.gallery.subject(subject)
            if known is not None:
                changed = describe(subject, known, said, settings.access.time_zone)
                edit.commit(edit.gallery.with_subject(changed, edit.gallery.templates_of(subject)))
    except ErasureOwedError:
        raise
    except EdgeError as error:
        raise EnrollmentError(
            f"{subject!r} is changed in the gallery that serves, but not in the candidate: {error}"
        ) from None


@app.command()
def remove(subjects: SubjectsArgument, config_file: ConfigOption = None) -> None:
    """Remove subjects and all that is kept of them; a running daemon follows at once.

    With several, those that can be removed are, and what cannot is told.
    """
    settings = load_settings(config_file)
    tell_of_fleet(settings)
    refused: list[EdgeError] = []
    for subject in dict.fromkeys(subjects):
        try:
            _remove(settings, subject)
        except EnrollmentError as error:
            refused.append(error)
    if refused:
        raise EnrollmentError("; ".join(map(str, refused)))


def _remove(settings: Settings, subject: str) -> None:
    """Remove one subject and say so.

    Raises:
        EnrollmentError: There is none, or something of it is left.
    """
    removal = remove_subject(settings, subject, SystemClock().now())
    done = f"removed {subject}; " + " and ".join(
        f"{place} version {gallery.version} has {gallery.size} subject(s)"
        for place, gallery in zip(
            ("gallery", "the candidate") if not removal.candidate_only else ("the candidate",),
            removal.galleries,
            strict=False,
        )
    )
    for warning in removal.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if removal.older and not removal.galleries:
        done = f"removed {subject} from older versions; the gallery has no such subject"
    elif not removal.galleries:
        told = "; ".join(["see `edge subjects list`", *removal.problems])
        raise EnrollmentError(f"no subject {subject!r} in the gallery; {told}")
    if removal.problems:
        raise EnrollmentError(f"{done}; but {'; '.join(removal.problems)}")
    typer.echo(done)


def tell_of_fleet(settings: Settings) -> None:
    """Warn where what is changed at this door is the fleet's, which will undo it."""
    if settings.sync.url is not None:
        typer.echo(
            "warning: this door's gallery comes from a fleet, and the next synchronisation brings back what "
            "is published; use `edge fleet publish` or `edge fleet revoke`",
            err=True,
        )


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
    manifest = load_manifest(choose_embedder(settings).name, settings.models_path)
    return gallery_store(settings).load(manifest.model_id, embedding_dim(manifest))


def _enrolments(gallery: Gallery) -> list[tuple[datetime, int]]:
    """Return when each subject's first template was made, and from how many photos or shots all are."""
    return [
        (min(row.created_at for row in rows), sum(row.photos for row in rows))
        for start, count in zip(gallery.starts, gallery.counts, strict=True)
        for rows in (gallery.provenance[start : start + count],)
    ]


def when(subject: Subject) -> str:
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
