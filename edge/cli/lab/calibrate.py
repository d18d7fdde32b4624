"""Where the threshold comes from: calibrate."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edge.cli.lab.study import EmbedderStudyOptions, embedded
from edge.cli.options import CohortOption, PlotsOption, photos_option, with_option_groups
from edge.cli.output import Listing, progress
from edge.core.errors import ModelError
from edge.face.manifest import RecognisabilityScale, load_manifest
from edge.lab.photos import calibration, recognisability, tail
from edge.lab.photos.degrade import damages
from edge.lab.photos.embeddings import PhotoEmbedder, first_faces
from edge.lab.photos.plots import plot_fmr
from edge.lab.photos.protocol import subjects
from edge.lab.photos.shots import take_shots

SEVERAL = (2, 3, 5, 10)
"""Photos per template whose effect on the false match rate is measured."""

SPOILED_PHOTOS = 500
"""Subjects of whom one photo is spoiled for the recognisability; each costs a third of a second."""

LEAST_EXAMPLES = 20
"""Subjects with that many photos from which the effect is told."""


@with_option_groups
def calibrate(
    images: Annotated[
        Path | None,
        photos_option("Photos of many subjects, one sub-folder each: a table for the embedder."),
    ] = None,
    cohort: CohortOption = None,
    source: Annotated[str, typer.Option(help="What the photos are; goes into the table.")] = "",
    write: Annotated[bool, typer.Option(help="Write the table into the embedder's manifest.")] = False,
    plots: PlotsOption = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Measure the false match rate over threshold: for an embedder (--images) or for a site (--cohort).

    For an embedder it also measures how long raw embeddings of plain and of spoiled faces are.
    """
    embedder = options.begin()
    name, settings = embedder.name, embedder.settings
    if (images is None) == (cohort is None):
        raise typer.BadParameter(
            "give --images DIR for an embedder's table, or --cohort DIR for a site's shift"
        )
    if cohort is not None:
        report = _shift(cohort, embedder)
        options.tell(report, partial(_show_shift, report))
        return
    assert images is not None
    source = source or images.name
    table, report = _table(images, embedder, source, plots)
    scale, lengths = _scale(images, embedder, source)
    report["recognisability"] = lengths
    options.tell(report, partial(_show_table, table, scale, report))
    if write:
        manifest = load_manifest(name, settings.models_path).directory / "manifest.toml"
        for text in (calibration.as_toml(table), recognisability.as_toml(scale)):
            calibration.write_table(text, manifest)
        typer.echo(f"{name}: calibration and recognisability written", err=True)


def _shift(cohort: Path, embedder: PhotoEmbedder) -> dict[str, Any]:
    name = embedder.name
    table = load_manifest(name, embedder.settings.models_path).calibration
    if table is None:
        raise ModelError(f"{name}: not calibrated, so a site cannot differ from it; give --images first")
    with progress(name) as step:
        rows = first_faces(cohort, embedder, step)
    shift = tail.site_shift(rows, table.thresholds, table.fmr)
    return {"schema": "edge.calibrate.cohort/1", "model": name, "subjects": len(rows), "site_shift": shift}


def _show_shift(report: dict[str, Any]) -> None:
    shift = report["site_shift"]
    typer.echo(
        f"{report['subjects']} subjects: strangers score {shift:+.4f} against the calibration of "
        f"{report['model']}\nput into the settings:\n\n[decision]\nsite_shift = {max(0.0, shift):.4f}"
    )


def _table(
    images: Path, embedder: PhotoEmbedder, source: str, plots: Path | None
) -> tuple[calibration.FittedRates, dict[str, Any]]:
    everybody = subjects(images)
    photos = [path for paths in everybody.values() for path in paths[: max(SEVERAL)]]
    embeddings = embedded(embedder, photos)
    examples = [
        np.stack(rows)
        for paths in everybody.values()
        if (rows := [row for path in paths[: max(SEVERAL)] if (row := embeddings[path]) is not None])
    ]
    first = np.stack([rows[0] for rows in examples])
    with progress(embedder.name) as step:
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
    if plots is not None:
        plot_fmr(tail.impostor_scores(first), table, plots / "fmr.png")
    figures = {"table": asdict(table), "halves": halves, "several_photos": several}
    return table, {"schema": "edge.calibrate/1", "model": embedder.name, **figures}


def _scale(images: Path, embedder: PhotoEmbedder, source: str) -> tuple[RecognisabilityScale, dict[str, Any]]:
    everybody = [paths[0] for paths in subjects(images).values()]
    photos = recognisability.spread_over(everybody, SPOILED_PHOTOS)
    with progress("spoiled photos") as step:
        shots = take_shots(photos, damages(), embedder, step)
    scale, report = recognisability.fit(shots, f"{source}; first photo of {len(photos)} subjects")
    with progress("lower halves") as step:
        lengths = recognisability.lower_half_lengths(everybody, embedder, step)
    least = recognisability.lower_half(lengths)
    return scale.model_copy(update={"lower_half": least}), {**report, "lower_half": least}


def _show_table(table: calibration.FittedRates, scale: RecognisabilityScale, report: dict[str, Any]) -> None:
    typer.echo(calibration.as_toml(table))
    typer.echo(recognisability.as_toml(scale))
    lengths = Listing("condition", "faces", *(f"p{share * 100:g}" for share in recognisability.SHARES))
    for condition, told in report["recognisability"]["lengths"].items():
        quantiles = [str(told.get(str(share), "-")) for share in recognisability.SHARES]
        lengths.add_row(condition, str(told["faces"]), *quantiles)
    lengths.print()
    shown = Listing(
        "promised", "obtained on the other half / promised", "10th-90th percentile", "within factor 2"
    )
    for kind, told in (("fmr", "FMR"), ("fpir", "FPIR"), ("fpir_with_shift", "FPIR, with the shift")):
        for promise, ratio in report["halves"][kind].items():
            spread = f"{ratio['p10']:.2f}-{ratio['p90']:.2f}"
            cells = (f"{ratio['median']:.2f}", spread, f"{ratio['within_factor_2']:.0%} of splits")
            shown.add_row(f"{told} {promise}", *cells)
    shown.print()
    for photos_each, ratios in report["several_photos"].items():
        told = ", ".join(f"{ratio} times at {rate}" for rate, ratio in ratios.items())
        typer.echo(f"a mean of {photos_each} photos is passed by impostors {told}")
