"""Commands about the gallery as a whole: versions, roll-back, switch, doctor, deny, purge, upload."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from edge.cli.options import CohortOption, ConfigOption, JsonOption, load_settings
from edge.cli.output import Listing, progress, shift_told
from edge.cli.strangers import kept_visit
from edge.cli.subjects import tell_of_fleet
from edge.core.errors import ConfigError, EnrollmentError, GalleryError, GalleryIntegrityError, UsageError
from edge.core.ids import spellings
from edge.device.assembly.candidate import gallery_in_force, switch_gallery
from edge.device.assembly.recognizer import decision_rule
from edge.device.assembly.remote import upload_gallery
from edge.device.assembly.stores import denial_store, erased_here, gallery_store
from edge.device.checkup.recognising import examine_gallery
from edge.device.settings.load import Settings
from edge.device.upkeep.removal import purge as purge_everything
from edge.face.choice import choose
from edge.face.manifest import load_manifest
from edge.gallery.alike.doctor import Diagnosis, strangers_let_in
from edge.gallery.alike.look_alikes import named
from edge.gallery.alike.strangers import FOR_ADULTS
from edge.gallery.store.denials import Denials, DenialStore
from edge.gallery.store.erasure import ANYBODY
from edge.gallery.store.store import GalleryChange
from edge.lab.photos import tail
from edge.lab.photos.embeddings import PhotoEmbedder, first_faces

MAX_TOLD = 20
"""Subjects that a message or a list names; it counts the others."""

SHOWN_IDS = 3
"""Of the ids that a version enrolled, changed or lost."""

app = typer.Typer(help="The gallery as a whole.", no_args_is_help=True)


@app.command()
def versions(config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the versions that are kept, and which serves; `edge gallery roll-back` goes back to one."""
    store = gallery_store(load_settings(config_file))
    kept, fallen = store.history(), store.fallen()
    if as_json:
        rows = [asdict(each) | {"at": each.at.isoformat() if each.at else None} for each in kept]
        told = None if fallen is None else fallen.model_dump()
        versions = [{"subjects": row.pop("size"), **row} for row in rows]
        typer.echo(json.dumps({"versions": versions, "fallback": told}))
        return
    if not kept:
        typer.echo("nobody was ever enrolled here")
        return
    table = Listing(
        "version", "made at", "subjects", "what changed", "embedder", "", copied=("version", "embedder")
    )
    for each in kept:
        table.add_row(
            str(each.version),
            f"{each.at:%Y-%m-%d %H:%M} UTC" if each.at else "",
            "unreadable" if each.size is None else str(each.size),
            _changes(each.change),
            each.model_id or "",
            "serves" if each.serves else "",
        )
    table.print()
    if fallen is not None:
        lost = ", ".join(map(str, fallen.lost))
        typer.echo(
            f"version {lost} cannot be read; what version {fallen.source} held serves as version "
            f"{fallen.version}, with no more rights than version {lost} granted; enrol or synchronise again"
        )


def _changes(change: GalleryChange | None) -> str:
    """Say what a version changed; nothing where that is not known."""
    if change is None:
        return ""
    by_verb = {"enrolled": change.enrolled, "changed": change.changed, "without": change.gone}
    told = [f"{verb} {_few(ids)}" for verb, ids in by_verb.items() if ids]
    told += [f"removed {change.removed}"] if change.removed else []
    return "; ".join(told) or "nobody"


def _few(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return ", ".join(ids[:SHOWN_IDS]) + more


@app.command("roll-back")
def roll_back(
    version: Annotated[int, typer.Argument(min=1, help="A kept version; see `edge gallery versions`.")],
    confirm: Annotated[
        str, typer.Option(help="The device's name, where somebody has rights back by it.")
    ] = "",
    config_file: ConfigOption = None,
) -> None:
    """Make what an earlier version holds the next version; a running daemon follows at once.

    Who was removed since stays removed. States, validity and windows are those of then: where somebody has
    rights back that were taken, it says who, and asks for --confirm.
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
        if load_manifest(name, settings.models_path).model_id != target.model_id:
            raise GalleryError(
                f"version {version} was enrolled with {target.model_id!r}, recognition.embedder is "
                f'{chosen!r}; set it to "auto"'
            )
    returning = store.regained(version)
    if returning and confirm != settings.device:
        more = f" and {len(returning) - MAX_TOLD} more" if len(returning) > MAX_TOLD else ""
        raise ConfigError(
            f"--confirm: version {version} gives rights back to {', '.join(returning[:MAX_TOLD])}{more}; if "
            f"that is meant, add --confirm {settings.device}"
        )
    done = store.roll_back(version, returning)
    typer.echo(
        f"gallery version {done.version} with {done.size} subject(s) is what version {version} was, without "
        "who was removed since; states and windows are those of then"
    )


@app.command()
def upload(config_file: ConfigOption = None) -> None:
    """Make the remote collection hold exactly this gallery, rotated by the site's secret."""
    settings = load_settings(config_file)
    found, manifest = gallery_in_force(settings)
    own_shifts = decision_rule(settings, manifest, found).own_shifts
    with progress(settings.remote.collection) as step:
        upload_gallery(settings, found, own_shifts, step)
    typer.echo(f"{settings.remote.collection}: {found.size} subject(s), {len(found.matrix)} template(s)")


@app.command()
def switch(config_file: ConfigOption = None) -> None:
    """Exchange this device's gallery and its candidate: the next switch is the way back.

    A running daemon follows at once, with model, gallery and threshold together; it needs embedder = "auto".
    """
    serves, manifest = switch_gallery(load_settings(config_file))
    typer.echo(
        f"gallery version {serves.version} with {serves.size} subject(s) of {manifest.name} serves; "
        "switch again to go back"
    )


@app.command()
def doctor(
    cohort: CohortOption = None,
    pairs: Annotated[int, typer.Option(min=1, max=1000, help="Closest pairs to show.")] = 10,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Examine the gallery in hand: threshold, expected FPIR, look-alikes, duplicates, poor templates."""
    settings = load_settings(config_file)
    found = examine_gallery(settings, pairs)
    current, manifest, diagnosis, taken_here = found.gallery, found.manifest, found.diagnosis, found.taken
    report: dict[str, Any] = {"schema": "edge.gallery.doctor/1", "gallery_version": current.version}
    report |= asdict(diagnosis)
    report["strangers_taken"] = asdict(taken_here) if taken_here is not None else None
    if cohort is not None:
        with progress(manifest.name) as step:
            strangers = first_faces(cohort, PhotoEmbedder(manifest.name, settings), step)
        share, taken = strangers_let_in(current, strangers, found.rule, found.allowed)
        report["cohort"] = {"strangers": len(strangers), "fpir": round(share, 5), "taken_for": taken}
        table = manifest.calibration
        if table is not None and len(strangers) >= tail.MIN_COHORT:
            shift = tail.site_shift(strangers, table.thresholds, table.fmr)
            report["cohort"]["site_shift"] = round(shift, 4)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _tell(diagnosis, report, settings)
        if taken_here is not None:
            typer.echo(taken_here.sentence())


@app.command()
def deny(
    subject: Annotated[str | None, typer.Argument(help="Opaque id of the subject.")] = None,
    visit: Annotated[
        str,
        typer.Option(help="A kept visit that was not this subject's; see `edge strangers list --matched`."),
    ] = "",
    remove: Annotated[bool, typer.Option(help="Forget what was denied of the subject.")] = False,
    forget_lost: Annotated[
        bool,
        typer.Option(
            help="Match the subject again (without one: everybody) whose denials were damaged or deleted."
        ),
    ] = False,
    config_file: ConfigOption = None,
) -> None:
    """Say that the face of a visit is not this subject's; without arguments: of whom how many were denied."""
    settings = load_settings(config_file)
    store = denial_store(settings)
    if forget_lost:
        _forget_lost(store, subject)
        return
    if subject is None:
        _tell_denials(settings, store)
        return
    if remove:
        gone = spellings(subject)
        store.change(lambda denials: denials.without(gone))
        typer.echo(f"nothing is denied of {subject} any more")
        return
    found, manifest = gallery_in_force(settings)
    subject = found.id_of(subject)
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


def _tell_denials(settings: Settings, store: DenialStore) -> None:
    """Print of whom how many faces were denied, and whose denials are lost.

    Raises:
        GalleryIntegrityError: They are damaged; names who is rejected because of it.
    """
    try:
        denials = store.load()
    except GalleryIntegrityError as error:
        raise GalleryIntegrityError(f"{error}; {_lost(settings, store.lost())}") from None
    for subject_id, count in denials.counts().items():
        typer.echo(f"{subject_id}: {count} face(s)")
    if denials.lost:
        typer.echo(_lost(settings, denials))


def _lost(settings: Settings, denials: Denials) -> str:
    """Say who is rejected because its denials are lost."""
    subjects = gallery_in_force(settings)[0].subjects
    who = [each.subject_id for each in subjects if denials.is_lost(each.subject_id)]
    more = f" and {len(who) - MAX_TOLD} more" if len(who) > MAX_TOLD else ""
    return (
        f"lost: {', '.join(who[:MAX_TOLD]) or 'nobody who is enrolled'}{more}; rejected as ambiguous until "
        "denials.sealed is restored, or `edge gallery deny --forget-lost`"
    )


def _forget_lost(store: DenialStore, subject: str | None) -> None:
    """Let whoever had denials that are lost be matched again; damaged ones are set aside.

    Raises:
        EdgeError: They cannot be written, or nobody knows whether this subject's are among them.
    """
    aside = store.set_aside()
    if aside is not None:
        typer.echo(f"damaged denials are kept as {aside}")
    lost = store.load().lost
    if subject is not None and ANYBODY in lost:
        raise GalleryError(
            "nobody knows whose denials are lost; `edge gallery deny --forget-lost` drops all of them"
        )
    store.change(lambda denials: denials.found(None if subject is None else spellings(subject)))
    typer.echo(f"what was lost of {subject or 'anybody'} is dropped; deny again what is known of it")


@app.command()
def purge(
    confirm: Annotated[str, typer.Option(help="The device's name, so that it is meant.")],
    config_file: ConfigOption = None,
) -> None:
    """Erase everybody who is enrolled here, and all that is kept of anybody: faces, denials, visits."""
    settings = load_settings(config_file)
    if confirm != settings.device:
        raise UsageError(f"--confirm: this device is {settings.device!r}; nothing was erased")
    tell_of_fleet(settings)
    removal = purge_everything(settings)
    done = f"erased {removal.size} subject(s)"
    if removal.problems:
        raise GalleryError(f"{done}; but {'; '.join(removal.problems)}")
    typer.echo(done)


def _tell(diagnosis: Diagnosis, report: dict[str, Any], settings: Settings) -> None:
    expected = diagnosis.expected_fpir
    typer.echo(
        f"gallery version {report['gallery_version']}: {diagnosis.subjects} subjects, "
        f"{diagnosis.templates} templates; {diagnosis.admitted} may pass here now, worth "
        f"{diagnosis.comparisons:.0f} comparisons\n"
        f"threshold {diagnosis.threshold:.3f}, expected FPIR "
        + ("unknown (embedder not calibrated)" if expected is None else f"{expected:.2g}")
        + (f" (target {settings.decision.target_fpir:g})" if settings.decision.threshold is None else "")
        + f"\nshift {shift_told(diagnosis.shift)}\n{FOR_ADULTS}"
    )
    if diagnosis.duplicates or diagnosis.look_alikes:
        table = Listing("subject", "other subject", "score", "", copied=("subject", "other subject"))
        for pair in diagnosis.duplicates:
            table.add_row(pair.first, pair.second, f"{pair.score:.3f}", "one person twice, or twins")
        for pair in diagnosis.look_alikes:
            table.add_row(pair.first, pair.second, f"{pair.score:.3f}", "")
        table.print()
    if diagnosis.more:
        typer.echo(f"and {diagnosis.more} more pairs as alike as one person twice; see --pairs")
    if diagnosis.duplicates:
        typer.echo(
            "whoever is like both of a pair is rejected as ambiguous: remove one, or enrol better photos"
        )
    if diagnosis.own:
        typer.echo(
            f"{len(diagnosis.own)} look like several others and need a higher score: "
            f"{named(diagnosis.own, MAX_TOLD)}"
        )
    for group in diagnosis.groups:
        typer.echo(
            f"{len(group)} subjects look alike: {named(group, MAX_TOLD)}; strangers like them may be taken "
            "for one of them more often than promised, as is so with children: let a person open for them"
        )
    for complaint in diagnosis.poor:
        typer.echo(f"{complaint.subject_id}: {complaint.problem}")
    if diagnosis.unmeasured:
        typer.echo(
            f"{diagnosis.unmeasured} of {diagnosis.templates} templates are of an earlier release: whether "
            "their photos were upright and uncovered is not known; enrol the photos again to know"
        )
    if found := report.get("cohort"):
        typer.echo(f"cohort: {found['fpir']:.2%} of {found['strangers']} strangers would be let in")
        taken = list(found["taken_for"].items())
        for subject_id, count in taken[:MAX_TOLD]:
            typer.echo(f"  {subject_id}: {count}")
        if len(taken) > MAX_TOLD:
            typer.echo(f"  and {len(taken) - MAX_TOLD} more subjects")
        if "site_shift" in found:
            typer.echo(f"  decision.site_shift measured here: {found['site_shift']:+.4f}")
        elif found["strangers"] < tail.MIN_COHORT:
            typer.echo(f"  decision.site_shift is measured from photos of {tail.MIN_COHORT} people or more")
