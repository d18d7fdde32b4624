"""Where the threshold comes from, and whether it fits: calibrate, gallery doctor."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from edge.assembly import choose_embedder, decision_rule, embedding_dim
from edge.cli.embedding import embed_all
from edge.cli.migrate import gallery_in_force, switch_gallery
from edge.cli.operate import ConfigOption, load_settings
from edge.cli.progress import progress
from edge.cli.reports import JsonFileOption, PlotsOption, write_report
from edge.cli.strangers import kept_visits
from edge.clock import SystemClock
from edge.config import Settings
from edge.errors import ConfigError, EnrollmentError, MediaError, ModelError
from edge.evaluate import calibration, tail
from edge.evaluate.plots import plot_fmr
from edge.evaluate.protocol import subjects
from edge.face import manifest as manifests
from edge.gallery.denials import Denials
from edge.gallery.doctor import Diagnosis, examine, strangers_let_in
from edge.gallery.gallery import Gallery
from edge.remoting import upload_gallery
from edge.stores import beside_store, crop_store, denial_store, gallery_store, visit_store
from edge.types import FloatArray

gallery = typer.Typer(help="The gallery as a whole.", no_args_is_help=True)

CohortOption = Annotated[
    Path | None,
    typer.Option(help="Photos of people of this site who are not enrolled, one sub-folder each; 20 or more."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]

SEVERAL = (2, 3, 5, 10)
"""Photos per template whose effect on the false match rate is measured."""

LEAST_EXAMPLES = 20
"""Subjects with that many photos from which the effect is told."""


def calibrate(
    images: Annotated[
        Path | None,
        typer.Option(help="Photos of many subjects, one sub-folder each: a table for the embedder."),
    ] = None,
    cohort: CohortOption = None,
    model: Annotated[str, typer.Option(help="Embedder; the configured one when left out.")] = "",
    source: Annotated[str, typer.Option(help="What the photos are; goes into the table.")] = "",
    write: Annotated[bool, typer.Option(help="Write the table into the embedder's manifest.")] = False,
    json_file: JsonFileOption = None,
    plots: PlotsOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Measure the false match rate over threshold: for an embedder (--images) or for a site (--cohort)."""
    settings = load_settings(config_file)
    name = model or choose_embedder(settings).name
    if (images is None) == (cohort is None):
        raise typer.BadParameter(
            "give --images DIR for an embedder's table, or --cohort DIR for a site's shift"
        )
    if cohort is not None:
        report = _shift(cohort, name, settings)
    else:
        assert images is not None
        report = _table(images, name, source or images.name, write, plots, settings)
    write_report(report, json_file)


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
    visit: Annotated[str, typer.Option(help="A kept visit that was not this subject's.")] = "",
    remove: Annotated[bool, typer.Option(help="Forget what was denied of the subject.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Say that the face of a visit is not this subject's; without arguments: of whom how many were denied."""
    settings = load_settings(config_file)
    store = denial_store(settings)
    denials = store.load()
    if subject is None:
        for subject_id, rows in denials.rows.items():
            typer.echo(f"{subject_id}: {len(rows)} face(s)")
        return
    if remove:
        store.save(denials.of(denials.rows.keys() - {subject}))
        typer.echo(f"nothing is denied of {subject} any more")
        return
    found, manifest = gallery_in_force(settings)
    if found.subject(subject) is None:
        raise EnrollmentError(f"no subject {subject!r} in the gallery; see `edge subjects list`")
    kept = kept_visits(settings, visit, all_visits=False, model_id=manifest.model_id)
    store.save(denials.plus(subject, kept[0].probe))
    typer.echo(f"the face of {visit} is not taken for {subject} any more")


@gallery.command()
def purge(
    confirm: Annotated[str, typer.Option(help="The device's name, so that it is meant.")],
    config_file: ConfigOption = None,
) -> None:
    """Erase everybody who is enrolled here, from every kept version and from what lies beside."""
    settings = load_settings(config_file)
    if confirm != settings.device:
        raise ConfigError(f"--confirm: this device is {settings.device!r}; nothing was erased")
    number = 0
    for store in (gallery_store(settings), beside_store(settings)):
        model_id = store.enrolled_with()
        if model_id is not None:
            gone = store.load(model_id)
            crop_store(settings).remove(each.subject_id for each in gone.subjects)
            number = max(number, gone.size)
            store.commit(Gallery.empty(model_id, store.current_version()))
    visits = visit_store(settings)
    visits.remove(each.visit_id for each in visits.load(SystemClock().now()))
    denial_store(settings).save(Denials.none())
    typer.echo(f"erased {number} subject(s)")


@gallery.command()
def doctor(
    cohort: CohortOption = None,
    pairs: Annotated[int, typer.Option(min=1, max=1000, help="Closest pairs to show.")] = 10,
    as_json: JsonFlag = False,
    config_file: ConfigOption = None,
) -> None:
    """Examine the gallery in hand: threshold, expected FPIR, look-alikes, duplicates, poor templates."""
    settings = load_settings(config_file)
    name = choose_embedder(settings).name
    manifest = manifests.load(name)
    current = gallery_store(settings).load(manifest.model_id, embedding_dim(manifest))
    diagnosis = examine(current, decision_rule(settings, manifest), pairs=pairs)
    report: dict[str, Any] = {"schema": "edge.gallery.doctor/1", "gallery_version": current.version}
    report |= asdict(diagnosis)
    if cohort is not None:
        strangers = _first_faces(cohort, name, settings)
        share, taken = strangers_let_in(current, strangers, diagnosis.threshold)
        report["cohort"] = {"strangers": len(strangers), "fpir": round(share, 5), "taken_for": taken}
        if manifest.calibration is not None:
            table = manifest.calibration
            shift = tail.site_shift(strangers, table.thresholds, table.fmr)
            report["cohort"]["site_shift"] = round(shift, 4)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _tell(diagnosis, report, settings)


def _first_faces(images: Path, name: str, settings: Settings) -> FloatArray:
    """Return the embedding of one photo per subject, (n, D)."""
    photos = [paths[0] for paths in subjects(images).values()]
    _, embeddings = embed_all(photos, name, settings)
    found = [row for path in photos if (row := embeddings[path]) is not None]
    if not found:
        raise MediaError(f"{images}: no face found in any photo")
    return np.stack(found)


def _shift(cohort: Path, name: str, settings: Settings) -> dict[str, Any]:
    table = manifests.load(name).calibration
    if table is None:
        raise ModelError(f"{name}: not calibrated, so a site cannot differ from it; give --images first")
    rows = _first_faces(cohort, name, settings)
    shift = tail.site_shift(rows, table.thresholds, table.fmr)
    typer.echo(
        f"{len(rows)} subjects: strangers score {shift:+.4f} against the calibration of {name}\n"
        f"put into the settings:\n\n[decision]\nsite_shift = {shift:.4f}"
    )
    return {"schema": "edge.calibrate.cohort/1", "model": name, "subjects": len(rows), "site_shift": shift}


def _table(
    images: Path, name: str, source: str, write: bool, plots: Path | None, settings: Settings
) -> dict[str, Any]:
    everybody = subjects(images)
    photos = [path for paths in everybody.values() for path in paths[: max(SEVERAL)]]
    _, embeddings = embed_all(photos, name, settings)
    examples = [
        np.stack(rows)
        for paths in everybody.values()
        if (rows := [row for path in paths[: max(SEVERAL)] if (row := embeddings[path]) is not None])
    ]
    first = np.stack([rows[0] for rows in examples])
    with progress(name) as step:
        step("fitting", 0, 2)
        table = calibration.calibrate(first, source)
        step("checking halves", 1, 2)
        halves = calibration.check_halves(first)
        step("done", 2, 2)
    strangers = np.stack([rows[0] for rows in examples if len(rows) == 1] or [first[0]])
    several = {
        str(photos): calibration.several_photos(examples, strangers, photos, table.calibration)
        for photos in SEVERAL
        if sum(len(rows) >= photos for rows in examples) >= LEAST_EXAMPLES
    }
    typer.echo(calibration.as_toml(table))
    shown = Table(
        "promised", "obtained on the other half / promised", "10th-90th percentile", "within factor 2"
    )
    for kind in ("fmr", "fpir"):
        for promise, ratio in halves[kind].items():
            spread = f"{ratio['p10']:.2f}-{ratio['p90']:.2f}"
            cells = (f"{ratio['median']:.2f}", spread, f"{ratio['within_factor_2']:.0%} of splits")
            shown.add_row(f"{kind.upper()} {promise}", *cells)
    Console(markup=False, emoji=False).print(shown)
    for photos_each, ratios in several.items():
        told = ", ".join(f"{ratio} times at {rate}" for rate, ratio in ratios.items())
        typer.echo(f"a mean of {photos_each} photos is passed by impostors {told}")
    if plots is not None:
        plot_fmr(tail.impostor_scores(first), table, plots / "fmr.png")
    if write:
        calibration.write_table(table, manifests.load(name).directory / "manifest.toml")
        typer.echo(f"{name}: calibration written")
    figures = {"table": asdict(table), "halves": halves, "several_photos": several}
    return {"schema": "edge.calibrate/1", "model": name, **figures}


def _tell(diagnosis: Diagnosis, report: dict[str, Any], settings: Settings) -> None:
    expected = diagnosis.expected_fpir
    typer.echo(
        f"gallery version {report['gallery_version']}: {diagnosis.subjects} subjects, "
        f"{diagnosis.templates} templates, worth {diagnosis.comparisons:.0f} comparisons\n"
        f"threshold {diagnosis.threshold:.3f}, expected FPIR "
        + ("unknown (embedder not calibrated)" if expected is None else f"{expected:.2g}")
        + (f" (target {settings.decision.target_fpir:g})" if settings.decision.threshold is None else "")
    )
    if diagnosis.duplicates or diagnosis.look_alikes:
        table = Table("subject", "subject", "score", "")
        for pair in diagnosis.duplicates:
            table.add_row(
                pair.first, pair.second, f"{pair.score:.3f}", "one person twice, or twins: both match"
            )
        for pair in diagnosis.look_alikes:
            table.add_row(pair.first, pair.second, f"{pair.score:.3f}", "")
        Console(markup=False, emoji=False).print(table)
    for complaint in diagnosis.poor:
        typer.echo(f"{complaint.subject_id}: {complaint.problem}")
    if found := report.get("cohort"):
        typer.echo(f"cohort: {found['fpir']:.2%} of {found['strangers']} strangers would be let in")
        for subject_id, count in list(found["taken_for"].items())[:10]:
            typer.echo(f"  {subject_id}: {count}")
        if "site_shift" in found:
            typer.echo(f"  decision.site_shift measured here: {found['site_shift']:+.4f}")
