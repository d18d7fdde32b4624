"""Where the threshold comes from, and whether it fits: calibrate, gallery doctor."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edge.cli.gallery import gallery
from edge.cli.lab.embedding import embed_all
from edge.cli.options import ConfigOption, JsonFileOption, JsonOption, PlotsOption, load_settings
from edge.cli.output import Listing, progress, write_report
from edge.core.clock import SystemClock
from edge.core.errors import MediaError, ModelError
from edge.core.types import FloatArray
from edge.device.assembly.recognizer import admission, choose_embedder, decision_rule
from edge.device.assembly.stores import gallery_store
from edge.device.settings.load import Settings
from edge.face import manifest as manifests
from edge.face.manifest import embedding_dim
from edge.gallery.doctor import Diagnosis, examine, strangers_let_in
from edge.lab.photos import calibration, tail
from edge.lab.photos.plots import plot_fmr
from edge.lab.photos.protocol import subjects

CohortOption = Annotated[
    Path | None,
    typer.Option(help="Photos of people of this site who are not enrolled, one sub-folder each; 20 or more."),
]

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
def doctor(
    cohort: CohortOption = None,
    pairs: Annotated[int, typer.Option(min=1, max=1000, help="Closest pairs to show.")] = 10,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Examine the gallery in hand: threshold, expected FPIR, look-alikes, duplicates, poor templates."""
    settings = load_settings(config_file)
    name = choose_embedder(settings).name
    manifest = manifests.load(name, settings.models_path)
    current = gallery_store(settings).load(manifest.model_id, embedding_dim(manifest))
    allowed = admission(settings, current).allowed(SystemClock().now())
    diagnosis = examine(current, decision_rule(settings, manifest), allowed, pairs=pairs)
    report: dict[str, Any] = {"schema": "edge.gallery.doctor/1", "gallery_version": current.version}
    report |= asdict(diagnosis)
    if cohort is not None:
        strangers = _first_faces(cohort, name, settings)
        share, taken = strangers_let_in(current, strangers, diagnosis.threshold, allowed)
        report["cohort"] = {"strangers": len(strangers), "fpir": round(share, 5), "taken_for": taken}
        if manifest.calibration is not None and len(strangers) >= tail.MIN_COHORT:
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
    table = manifests.load(name, settings.models_path).calibration
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
    shown = Listing(
        "promised", "obtained on the other half / promised", "10th-90th percentile", "within factor 2"
    )
    for kind in ("fmr", "fpir"):
        for promise, ratio in halves[kind].items():
            spread = f"{ratio['p10']:.2f}-{ratio['p90']:.2f}"
            cells = (f"{ratio['median']:.2f}", spread, f"{ratio['within_factor_2']:.0%} of splits")
            shown.add_row(f"{kind.upper()} {promise}", *cells)
    shown.print()
    for photos_each, ratios in several.items():
        told = ", ".join(f"{ratio} times at {rate}" for rate, ratio in ratios.items())
        typer.echo(f"a mean of {photos_each} photos is passed by impostors {told}")
    if plots is not None:
        plot_fmr(tail.impostor_scores(first), table, plots / "fmr.png")
    if write:
        calibration.write_table(table, manifests.load(name, settings.models_path).directory / "manifest.toml")
        typer.echo(f"{name}: calibration written")
    figures = {"table": asdict(table), "halves": halves, "several_photos": several}
    return {"schema": "edge.calibrate/1", "model": name, **figures}


def _tell(diagnosis: Diagnosis, report: dict[str, Any], settings: Settings) -> None:
    expected = diagnosis.expected_fpir
    typer.echo(
        f"gallery version {report['gallery_version']}: {diagnosis.subjects} subjects, "
        f"{diagnosis.templates} templates; {diagnosis.admitted} may pass here now, worth "
        f"{diagnosis.comparisons:.0f} comparisons\n"
        f"threshold {diagnosis.threshold:.3f}, expected FPIR "
        + ("unknown (embedder not calibrated)" if expected is None else f"{expected:.2g}")
        + (f" (target {settings.decision.target_fpir:g})" if settings.decision.threshold is None else "")
    )
    if diagnosis.duplicates or diagnosis.look_alikes:
        table = Listing("subject", "other subject", "score", "", copied=("subject", "other subject"))
        for pair in diagnosis.duplicates:
            table.add_row(
                pair.first, pair.second, f"{pair.score:.3f}", "one person twice, or twins: both match"
            )
        for pair in diagnosis.look_alikes:
            table.add_row(pair.first, pair.second, f"{pair.score:.3f}", "")
        table.print()
    for complaint in diagnosis.poor:
        typer.echo(f"{complaint.subject_id}: {complaint.problem}")
    if found := report.get("cohort"):
        typer.echo(f"cohort: {found['fpir']:.2%} of {found['strangers']} strangers would be let in")
        for subject_id, count in list(found["taken_for"].items())[:10]:
            typer.echo(f"  {subject_id}: {count}")
        if "site_shift" in found:
            typer.echo(f"  decision.site_shift measured here: {found['site_shift']:+.4f}")
        elif found["strangers"] < tail.MIN_COHORT:
            typer.echo(f"  decision.site_shift is measured from photos of {tail.MIN_COHORT} people or more")
