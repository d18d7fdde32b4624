"""Commands about faces: enroll, identify, verify."""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edge.camera.photo import MAX_JPEG_PIXELS, read_photo
from edge.camera.sources import Camera, frames_of
from edge.cli.options import (
    ConfigOption,
    ConsentOption,
    FaceOption,
    FromOption,
    GroupOption,
    JsonOption,
    LabelOption,
    LargestOption,
    NotesOption,
    ReportOption,
    ShowOption,
    UntilOption,
    WindowOption,
    ZoneOption,
    load_settings,
)
from edge.cli.output import progress
from edge.cli.strangers import strangers_visits
from edge.cli.subjects import details, tell_of_fleet, when
from edge.core import files
from edge.core.access import SubjectState
from edge.core.clock import FloorClock, SystemClock
from edge.core.errors import (
    ConfigError,
    EdgeError,
    EnrollmentError,
    ErasureOwedError,
    GalleryError,
    MediaError,
)
from edge.core.types import Decision, EventType, Probe, Reason, Score
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_camera, build_recognizer
from edge.device.assembly.stores import candidate_store, crop_store, gallery_store, visit_store
from edge.device.assembly.time import device_clock, time_known
from edge.device.settings.load import Settings
from edge.gallery.store.crops import encode_picture
from edge.recognition.enrolment.bulk import enroll_all, tell_refusals, write_outcomes
from edge.recognition.enrolment.enrol import (
    Which,
    choose_face,
    crop_photo,
    encode_face,
    encode_photo,
    faces_in,
    fit_to_enrol,
    numbered,
    walk_up,
)
from edge.recognition.enrolment.enrol import enroll as enroll_probes
from edge.recognition.enrolment.roster import COLUMNS, Details, describe, from_csv, from_folder
from edge.recognition.recognizer import Recognizer

MAX_LABEL_BYTES = 1024

PixelsOption = Annotated[int, typer.Option("--max-pixels", hidden=True)]

WHY = {
    Reason.BELOW_THRESHOLD: "nobody enrolled is alike enough",
    Reason.AMBIGUOUS: "two subjects are too alike to tell",
    Reason.GALLERY_EMPTY: "nobody is enrolled who may pass here now",
    Reason.GALLERY_STALE: "the gallery is past its last day",
}
"""Why a face is nobody's."""


def enroll(
    subject: Annotated[
        str | None, typer.Argument(help="Opaque id of the subject, unique in the gallery.")
    ] = None,
    photos: Annotated[
        list[Path] | None, typer.Argument(help="One photo is enough; more make it better.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Enrol many: each a photo, or a folder of them, of that name."),
    ] = None,
    roster: Annotated[
        Path | None, typer.Option("--csv", help=f"Enrol many: columns {', '.join(COLUMNS)}.")
    ] = None,
    report: ReportOption = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Enrol a subject although it is enrolled with another face. With many: enrol those again "
            "who are enrolled; another face is refused all the same.",
        ),
    ] = False,
    visit: Annotated[
        str, typer.Option(help="Enrol a past visit of a stranger instead (`edge strangers`).")
    ] = "",
    all_visits: Annotated[
        bool, typer.Option(help="With --visit: use all visits of the same stranger.")
    ] = False,
    camera: Annotated[str, typer.Option(help="Enrol whoever walks up to this camera instead.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for a walk-up.")] = 30.0,
    force: Annotated[bool, typer.Option(help="Enrol although another subject looks the same.")] = False,
    largest: LargestOption = False,
    face: FaceOption = None,
    show: ShowOption = None,
    label: LabelOption = None,
    label_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
    max_pixels: PixelsOption = MAX_JPEG_PIXELS,
    group: GroupOption = None,
    valid_from: FromOption = None,
    valid_until: UntilOption = None,
    window: WindowOption = None,
    time_zone: ZoneOption = None,
    consent: ConsentOption = None,
    notes: NotesOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Enrol a subject from a photo or a camera, or many; nothing is retrained, a running daemon follows.

    With many, exits 1 if somebody could not be enrolled; run it again to go on where it stopped.
    """
    settings = load_settings(config_file)
    if label_file is not None:  # what other processes must not see
        label = (files.read_bounded(label_file, MAX_LABEL_BYTES) or b"").decode(errors="replace")
    said = details(label, group, valid_from, valid_until, window, time_zone, consent, notes)
    tell_of_fleet(settings)
    which = _which(largest, face, show, photos or [])
    if folder or roster:
        if subject is not None or camera or visit or said != Details() or (folder and roster):
            raise typer.BadParameter("--folder or --csv stands alone; a CSV file may say more of each")
        _enroll_many(settings, folder, roster, report, force, replace, which)
        return
    if subject is None or bool(photos) + bool(camera) + bool(visit) != 1:
        raise typer.BadParameter(
            "give a subject and one or more photos, or --camera NAME, --visit ID, --folder or --csv"
        )
    if report:
        raise typer.BadParameter("--report is for --folder and --csv")
    if largest and not photos:
        raise typer.BadParameter("--largest is for photos")
    source = _camera(camera, settings) if camera else None
    recognizer = build_recognizer(settings, side_px=PHOTO_SIDE_PX if photos else None).for_enrolment()
    visits: list[str] = []
    if visit:
        model_id = recognizer.embedder.model_id
        kept = strangers_visits(settings, visit, all_visits=all_visits, model_id=model_id)
        probes = fit_to_enrol([each.probe for each in kept], recognizer, f"visit {visit}")
        visits = [each.visit_id for each in kept]
    elif photos:
        probes = [_probe(photo, recognizer, which, show, max_pixels) for photo in photos]
    else:
        assert source is not None
        typer.echo(f"stand alone before camera {camera!r} and look at it ...", err=True)
        live_from = settings.liveness.threshold
        probes = walk_up(frames_of(source), recognizer, timeout_s=timeout, live_from=live_from)
    with gallery_store(settings).edit(recognizer.embedder.model_id, recognizer.embedder.dim) as edit:
        subject = edit.gallery.id_of(subject)
        enrolment = enroll_probes(
            describe(subject, edit.gallery.subject(subject), said, settings.access.time_zone),
            probes,
            recognizer,
            edit.gallery,
            source=f"camera:{camera}" if camera else "visit" if visit else "photo",
            at=SystemClock().now(),
            max_prototypes=settings.gallery.prototypes,
            force=force,
            replace=replace,
        )
        owed = edit.commit_owing(enrolment.gallery)
    visit_store(settings).remove(visits)
    _keep_crops(settings, recognizer, {subject: photos or []}, which)
    warnings = list(enrolment.warnings)
    try:
        if enrolment.other_face and _left_candidate(settings, subject):
            warnings.append(
                f"{subject!r} left the candidate, which had the face of before: `edge fleet reembed`"
            )
    except EnrollmentError:
        if owed is not None:
            typer.echo(f"warning: {owed}", err=True)
        raise
    if owed is not None:
        raise owed
    gallery = edit.gallery
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    best = max(template.quality.weight for template in enrolment.templates)
    typer.echo(
        f"enrolled {subject} from {len(probes)} shot(s) as {len(enrolment.templates)} template(s), "
        f"best quality {best:.2f}; gallery version {gallery.version} has {gallery.size} subject(s)"
    )


def _left_candidate(settings: Settings, subject: str) -> bool:
    """Take a subject with another face than before out of the candidate; returns whether it was there.

    Raises:
        EnrollmentError: The candidate cannot be changed; a switch would let the face of before pass.
    """
    store = candidate_store(settings)
    try:
        model_id = store.enrolled_with()
        if model_id is None:
            return False
        with store.edit(model_id) as edit:
            subject = edit.gallery.id_of(subject)
            if subject not in edit.gallery.ids:
                return False
            edit.commit(edit.gallery.without_subject(subject))
    except ErasureOwedError:
        raise
    except EdgeError as error:
        raise EnrollmentError(
            f"{subject!r} is enrolled, but its face of before is still in the candidate: {error}"
        ) from None
    return True


def _enroll_many(
    settings: Settings,
    folder: Path | None,
    roster: Path | None,
    report: Path | None,
    force: bool,
    replace: bool,
    which: Which,
) -> None:
    entries = from_folder(folder) if folder else from_csv(roster or Path(), settings.access.time_zone)
    recognizer = build_recognizer(settings, side_px=PHOTO_SIDE_PX).for_enrolment()
    with progress("enrol") as told:
        outcomes = enroll_all(
            entries,
            recognizer,
            gallery_store(settings),
            at=SystemClock().now,
            max_prototypes=settings.gallery.prototypes,
            force=force,
            replace=replace,
            which=which,
            told=told,
        )
    enrolled = {each.subject_id for each in outcomes if each.status == "enrolled"}
    used = {each.subject.subject_id: each.photos for each in entries if each.subject.subject_id in enrolled}
    _keep_crops(settings, recognizer, used, which)
    tell_refusals(outcomes, partial(typer.echo, err=True))
    if report:
        write_outcomes(outcomes, report)
    counts = Counter(each.status for each in outcomes if not each.photo)
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    raise typer.Exit(1 if any(each.status == "refused" for each in outcomes) else 0)


def _which(largest: bool, face: int | None, show: Path | None, photos: Sequence[Path]) -> Which:
    """Return which face of the photos is meant, by what was said on the command line."""
    if largest and face is not None:
        raise typer.BadParameter("--largest, --face: choose one")
    if (face is not None or show is not None) and len(photos) != 1:
        raise typer.BadParameter("--face and --show are for one photo")
    if show is not None and show.exists() and show.samefile(photos[0]):
        raise typer.BadParameter("--show: this is the photo itself; name another file")
    return "largest" if largest else face


def _probe(
    photo: Path, recognizer: Recognizer, which: Which, show: Path | None, max_pixels: int = MAX_JPEG_PIXELS
) -> Probe:
    """Return the probe of the face in a photo that is meant; writes the photo with its numbers to `show`."""
    image = read_photo(photo, max_pixels=max_pixels)
    if show is None:
        return encode_photo(image, str(photo), recognizer, which)
    faces = faces_in(image, recognizer)
    try:
        chosen = choose_face(faces, image, str(photo), which)
    except EnrollmentError:
        if faces:
            files.write_whole(show, encode_picture(numbered(image, faces), show))
        raise
    files.write_whole(show, encode_picture(numbered(image, faces, chosen), show))
    return encode_face(image, chosen, str(photo), recognizer)


def _keep_crops(
    settings: Settings, recognizer: Recognizer, photos: Mapping[str, Sequence[Path]], which: Which
) -> None:
    """Keep the faces of the photos that subjects were just enrolled from, and none of those before.

    All their photos, those that were of use and others; none where they are not to be kept.
    """
    store = crop_store(settings)
    for subject_id, paths in photos.items():
        crops = []
        for path in paths if settings.gallery.keep_crops else ():
            with contextlib.suppress(EnrollmentError, MediaError):  # told when it was enrolled
                crops.append(crop_photo(read_photo(path), str(path), recognizer, which))
        if crops:
            store.save(subject_id, crops)
        else:
            store.remove([subject_id])


def identify(
    photo: Path,
    largest: LargestOption = False,
    face: FaceOption = None,
    show: ShowOption = None,
    max_pixels: PixelsOption = MAX_JPEG_PIXELS,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whose face a photo shows, or that it is nobody's. Exits 1 for a reject, 3 for no usable face."""
    which = _which(largest, face, show, [photo])
    settings = load_settings(config_file)
    clock = device_clock(settings)
    recognizer = _recognizer(settings, clock)
    probe = _probe(photo, recognizer, which, show, max_pixels)
    decision = recognizer.identify(probe, clock.now())
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
        typer.echo(f"{decision.event_type}: {_who_or_why(decision, settings)}{_numbers(decision.score)}")
    raise typer.Exit(0 if decision.event_type == EventType.MATCH else 1)


def _who_or_why(decision: Decision, settings: Settings) -> str:
    """Say who it is, and of a reject why: also of somebody who is known and may not pass."""
    subject, reason = decision.subject, decision.reason
    if reason is None:
        return subject.label if subject else "nobody"
    if subject is None:
        return f"{reason}, {WHY[reason]}" if reason in WHY else reason
    access = subject.access
    if reason != Reason.NOT_ALLOWED_HERE:
        why = f"may pass {when(subject)}"
    elif access.state != SubjectState.ACTIVE:
        why = f"is {access.state}"
    else:
        groups = ", ".join(subject.groups) or "none"
        why = f"has the groups {groups}; this door serves {', '.join(settings.access.groups)}"
    return f"{subject.label} is known, and {why}: {reason}"


def _numbers(score: Score | None) -> str:
    if score is None:
        return ""
    told = [
        *([f"best {score.best:.3f}"] if score.best is not None else []),
        *([f"second {score.second:.3f}"] if score.second is not None else []),
        f"threshold {score.threshold:.3f}",
        f"{score.gallery_size} subjects may pass",
    ]
    return f" ({', '.join(told)})"


def verify(
    first: Path,
    second: Path,
    largest: LargestOption = False,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the faces of two photos 1:1. Exits 1 when they are different, 3 for no usable face."""
    settings = load_settings(config_file)
    recognizer = _recognizer(settings, device_clock(settings))
    score = recognizer.verify(
        *(_probe(photo, recognizer, "largest" if largest else None, None) for photo in (first, second))
    )
    threshold = recognizer.rule.threshold_for(1)
    same = score >= threshold
    if as_json:
        typer.echo(json.dumps({"same": same, "score": round(score, 4), "threshold": round(threshold, 4)}))
    else:
        verdict = "same subject" if same else "different subjects"
        typer.echo(f"{verdict} (score {score:.3f}, threshold {threshold:.3f})")
    raise typer.Exit(0 if same else 1)


def _recognizer(settings: Settings, clock: FloorClock) -> Recognizer:
    """Return what judges photos; where the gallery cannot be used that is no reject, as 1 would say.

    Raises:
        ConfigError, ModelError: The settings, a model or the gallery cannot be used.
    """
    try:
        return build_recognizer(
            settings, side_px=PHOTO_SIDE_PX, time_known=time_known(clock, lambda: settings)
        )
    except GalleryError as error:
        raise ConfigError(str(error)) from None


def _camera(name: str, settings: Settings) -> Camera:
    if name not in settings.cameras:
        known = ", ".join(settings.cameras) or "none"
        raise ConfigError(
            f"no camera {name!r} is configured (configured: {known}); add a table [cameras.{name}]"
        )
    return build_camera(name, settings, SystemClock())
