"""Commands that spoil photos and measure what is lost: evaluate gate, fusion, conditions."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from edge.cli.lab.study import EmbedderStudyOptions
from edge.cli.options import EnrolOption, ImagesOption, MinImagesOption, PlotsOption
from edge.cli.output import Listing, progress, show_table
from edge.core.errors import MediaError
from edge.lab.photos import measure
from edge.lab.photos.degrade import Degradation, damages, degradations, drawn
from edge.lab.photos.degrade import conditions as all_conditions
from edge.lab.photos.embeddings import PhotoEmbedder
from edge.lab.photos.plots import plot_conditions, plot_damages, plot_gate, plot_reject
from edge.lab.photos.protocol import subjects
from edge.lab.photos.recognisability import spread_over
from edge.lab.photos.shots import Shots, take_shots
from edge.lab.studies import conditions as condition_study
from edge.lab.studies import damages as damage_study
from edge.lab.studies import fusion as fusions
from edge.lab.studies import gate as gates

ProbesOption = Annotated[int, typer.Option(min=1, help="Genuine probes, and strangers, at most.")]
TargetFpirOption = Annotated[
    float | None, typer.Option(min=1e-6, max=0.5, help="Target of the threshold; default: configured.")
]


def gate(
    images: ImagesOption,
    enroll: EnrolOption = 1,
    min_images: MinImagesOption = 4,
    strangers: Annotated[
        int | None,
        typer.Option(min=1, help="Subjects not enrolled; default: those with one photo, or half of all."),
    ] = None,
    probes: ProbesOption = 500,
    target_fpir: TargetFpirOption = None,
    plots: PlotsOption = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Measure the quality gate: TPIR, FPIR and failures to acquire with and without, on spoiled photos."""
    embedder = options.begin()
    name, settings = embedder.name, embedder.settings
    protocol = gates.door_protocol(images, enroll=enroll, min_images=min_images, strangers=strangers)
    protocol = gates.thinned(protocol, probes)
    rule = embedder.recognizer().rule
    if target_fpir is not None:
        rule = replace(rule, target_fpir=target_fpir, threshold=None)
    ways = degradations()
    known = [path for photos in protocol.gallery.values() for path in photos]
    enrolled = _take(known, ways[:1], embedder, "gallery")[ways[0].name]
    asked = list(dict.fromkeys([*(path for _, path in protocol.genuine), *protocol.strangers]))
    shots = _take(asked, ways, embedder, "probes")
    rows = {path: shot.embedding if shot else None for path, shot in enrolled.items()}
    report: dict[str, Any] = {"schema": "edge.evaluate.gate/1", "images": str(images), "model": name}
    report |= gates.compare(protocol, rows, shots, rule, settings.gallery.prototypes)
    if plots is not None:
        plot_gate(report, plots / "gate.png")
        plot_reject(report, gates.REFUSED, plots / "reject.png")
    options.tell(report, lambda: show_table(_gate_table(report)))


def conditions(
    images: ImagesOption,
    min_images: MinImagesOption = 4,
    probes: ProbesOption = 500,
    target_fpir: TargetFpirOption = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="Try what makes all faces alike instead (upside down, sunglasses, stretched ...): which "
            "share of strangers is let in where the gallery has the same damage, at targets of .01 and .001.",
        ),
    ] = False,
    plots: PlotsOption = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Measure what dark, back-light, infrared and worse cost: TPIR and FMR, clean gallery and spoiled."""
    embedder = options.begin()
    name, settings = embedder.name, embedder.settings
    if shared:
        told = _shared(images, probes, embedder)
        if plots is not None:
            plot_damages(told, plots / "damages.png")
        options.tell(told, lambda: _damages_table(told).print())
        return
    protocol = gates.thinned(gates.door_protocol(images, enroll=1, min_images=min_images), probes)
    recognizer = embedder.recognizer()
    rule, enrolment = recognizer.rule, recognizer.gate.for_enrolment()
    if target_fpir is not None:
        rule = replace(rule, target_fpir=target_fpir, threshold=None)
    shots = _take(list(dict.fromkeys(protocol.photos)), all_conditions(), embedder, "photos")
    report: dict[str, Any] = {"schema": "edge.evaluate.conditions/1", "images": str(images), "model": name}
    report |= condition_study.compare(protocol, shots, rule, enrolment, settings.gallery.prototypes)
    if plots is not None:
        plot_conditions(report, plots / "conditions.png")
    options.tell(report, lambda: _conditions_table(report).print())


def _shared(images: Path, count: int, embedder: PhotoEmbedder) -> dict[str, Any]:
    photos = spread_over([paths[0] for paths in subjects(images).values()], count)
    with progress("photos") as step:
        sights = damage_study.see(photos, damages(), embedder, step)
    report: dict[str, Any] = {
        "schema": "edge.evaluate.damages/1",
        "images": str(images),
        "model": embedder.name,
    }
    return report | damage_study.compare(sights, embedder.recognizer().rule)


def _damages_table(report: dict[str, Any]) -> Listing:
    targets = [f"let in at {target:g}" for target in damage_study.TARGETS]
    fmrs = [f"FMR {target:g}" for target in damage_study.TARGETS]
    table = Listing("condition", "found", "usable", "enrolled", *targets, *fmrs, "shift")
    for name, figures in report["conditions"].items():
        cells = [str(figures[key]) for key in ("found", "shots", "enrolled")]
        cells += [
            f"{each['share']:.4f} ({each['low']:.4f}-{each['high']:.4f})"
            for each in figures["let_in"].values()
        ]
        times = [each["times_promised"] for each in figures["fmr"].values()]
        cells += ["-" if each is None else f"{each:.2f}x" for each in times]
        table.add_row(name, *cells, f"{figures['shift']:.3f}")
    return table


def fusion(
    images: ImagesOption,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Measure how to fuse the shots of a visit: best shot, mean, weighted mean, best score."""
    embedder = options.begin()
    name = embedder.name
    who = fusions.visits(images)
    clean, *worse = degradations()
    ways = [clean, drawn(worse)]
    gallery = _take(who.gallery, ways[:1], embedder, "gallery")[clean.name]
    rows = []
    for path in who.gallery:
        shot = gallery[path]
        if shot is None:
            raise MediaError(f"{path}: no face found; this photo is to be enrolled: replace it")
        rows.append(shot.embedding)
    shots = _take([path for photos in who.photos for path in photos], ways, embedder, "visits")
    report: dict[str, Any] = {"schema": "edge.evaluate.fusion/1", "images": str(images), "model": name}
    report |= fusions.compare(who, np.stack(rows), shots[ways[0].name], shots[ways[1].name])
    title = "TPIR at FPIR " + " and ".join(map(str, fusions.FPIRS))
    table = Table("visits", "", "no shot", *fusions.METHODS, box=None, padding=(0, 1, 0, 0), title=title)
    for column in table.columns:
        column.no_wrap = True
    for condition, gated in report["conditions"].items():
        for kind, figures in gated.items():
            cells = [" ".join(f"{rate:.3f}" for rate in figures[way].values()) for way in fusions.METHODS]
            table.add_row(condition, kind, f"{figures['fta']:.3f}", *cells)
    options.tell(report, partial(show_table, table))


def _take(
    photos: Sequence[Path], ways: Sequence[Degradation], embedder: PhotoEmbedder, what: str
) -> dict[str, Shots]:
    with progress(what) as step:
        return dict(take_shots(photos, ways, embedder, step))


def _gate_table(report: dict[str, Any]) -> Table:
    columns = ("", "FTA", "gated", "TPIR", "gated", "passed", "FPIR", "avoided", "lost", "ratio")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for name, figures in report["conditions"].items():
        shown = [(key, kind) for key in ("fta", "tpir") for kind in ("ungated", "gated")]
        shown += [("tpir", "accepted"), ("fpir", "ungated")]
        table.add_row(name, *(_rate(figures[kind][key]) for key, kind in shown), *_pays(figures["pays"]))
    table.add_row("all", *[""] * 6, *_pays(report["pays"]))
    return table


def _conditions_table(report: dict[str, Any]) -> Listing:
    fmrs = [f"FMR {rate}" for rate in condition_study.FMRS]
    tpirs = [f"TPIR at {rate}" for rate in measure.FPIRS]
    table = Listing(
        "worse", "condition", "enrolled", "FTA", *tpirs, "by rule", "FPIR", *fmrs, "lifted", "recognisable"
    )
    for side in condition_study.SIDES:
        for name, figures in report[side].items():
            rates = [figures["fta"], *(figures["tpir"].get(str(rate)) for rate in measure.FPIRS)]
            cells = [_rate(rate) for rate in (*rates, figures["tpir_by_rule"], figures["fpir_by_rule"])]
            for rate in condition_study.FMRS:
                obtained = figures["fmr"].get(str(rate))
                cells.append("-" if obtained is None else f"{obtained['times_promised']:.2f}x")
            cells += [str(figures["lifted"]), _rate(figures["recognisability"])]
            table.add_row(side, name, str(figures["enrolled"]), *cells)
    return table


def _pays(pays: dict[str, Any]) -> tuple[str, str, str]:
    per_lost = pays["avoided_per_lost"]
    return (
        f"{pays['avoided']}/{pays['errors']}",
        f"{pays['lost']}/{pays['usable']}",
        "-" if per_lost is None else f"{per_lost:.2f}",
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
