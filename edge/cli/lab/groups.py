"""evaluate groups: whether the promise holds for each group of people, as labels divide them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.lab.study import EmbedderStudyOptions, embedded
from edge.cli.options import PlotsOption, photos_option
from edge.cli.output import Listing, progress
from edge.core.errors import ConfigError
from edge.gallery.alike.shift import MIN_SUBJECTS
from edge.lab.photos.plots import plot_groups
from edge.lab.studies import groups as study

TARGETS = (0.01, 0.001)
"""Shares of strangers that are promised, where none are named."""


def groups(
    images: Annotated[Path, photos_option("Folder of photos.")],
    labels: Annotated[
        Path,
        typer.Option(
            help="CSV file with a line for each photo: photo (below the folder), subject where somebody has "
            "several, and a column for each way to divide people, such as age."
        ),
    ],
    enrolled: Annotated[
        int,
        typer.Option(min=MIN_SUBJECTS, help="People of a group in the gallery; the others are strangers."),
    ] = 40,
    target_fpir: Annotated[
        list[float] | None,
        typer.Option(min=1e-6, max=0.5, help="Promised share of strangers; may be repeated."),
    ] = None,
    plots: PlotsOption = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Measure for each group of people how many strangers are let in, over the promise, with intervals."""
    embedder = options.begin()
    name = embedder.name
    rule = embedder.recognizer().rule
    if rule.calibration is None:
        raise ConfigError(
            f"--model: {name} is not calibrated and promises nothing; run `edge calibrate` first"
        )
    found = study.read_labels(images, labels)
    usable, small = study.large_enough(found, enrolled)
    if found.unlabelled:
        typer.echo(
            f"{len(found.unlabelled)} photos below {images} are not in {labels} and are left out, first "
            f"{found.unlabelled[0].relative_to(images)}",
            err=True,
        )
    for group, count in small.items():
        least = enrolled + study.LEAST_STRANGERS
        typer.echo(f"{group}: {count} people, {least} are needed; left out", err=True)
    wanted = {subject for who in usable.values() for subject in who}
    photos = [path for subject in found.photos if subject in wanted for path in found.photos[subject]]
    embeddings = embedded(embedder, list(dict.fromkeys(photos)))
    targets = list(dict.fromkeys(target_fpir or TARGETS))
    report: dict[str, Any] = {
        "schema": "edge.evaluate.groups/1",
        "images": str(images),
        "labels": str(labels),
        "model": name,
        "enrolled": enrolled,
        "targets": targets,
        "left_out": {"unlabelled": len(found.unlabelled), "small": small},
    }
    with progress("groups") as step:
        report["groups"] = study.compare(found.photos, usable, embeddings, rule, targets, enrolled, step)
    if plots is not None:
        plot_groups(report, plots / "groups.png")
    options.tell(report, lambda: _table(report).print())


def _table(report: dict[str, Any]) -> Listing:
    table = Listing(
        "group", "people", "promised", "let in / promised", "with its shift", "TPIR", "with", "shift"
    )
    for name, figures in report["groups"].items():
        for target in report["targets"]:
            kinds = [figures[f"{target:g}"][kind] for kind in ("without_shift", "with_shift")]
            times = [_between(each["times_promised"], each["times_interval"]) for each in kinds]
            tpir = ["-" if each["tpir"] is None else f"{each['tpir']:.3f}" for each in kinds]
            shift = f"{figures[f'{target:g}']['shift'][0]:.3f}"
            table.add_row(name, str(figures["subjects"]), f"{target:g}", *times, *tpir, shift)
    return table


def _between(value: float, bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{value:.2f} ({low:.2f}-{high:.2f})"
