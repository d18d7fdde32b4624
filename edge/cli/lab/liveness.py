"""evaluate liveness: how many pictures pass for people, and how many people are taken for pictures."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.lab.study import StudyOptions
from edge.cli.options import PlotsOption
from edge.cli.output import Listing, progress
from edge.core.errors import ConfigError
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer
from edge.gallery.gallery import Gallery
from edge.lab.photos.plots import plot_liveness
from edge.lab.studies.liveness import liveness_report, read_presentations


def liveness(
    visits: Annotated[
        Path,
        typer.Argument(
            help="Folder with a sub-folder of frames for each visit, and visits.csv: folder, kind (live, or "
            "the kind of attack), and columns to group by."
        ),
    ],
    shrink: Annotated[
        float,
        typer.Option(min=0.05, max=1, help="Reduce frames to this share, as if faces were farther away."),
    ] = 1.0,
    plots: PlotsOption = None,
    *,
    options: StudyOptions,
) -> None:
    """Measure the liveness models on live faces and attacks of yours: APCER, BPCER (ISO/IEC 30107-3)."""
    settings = options.settings()
    recognizer = build_recognizer(settings, Gallery.empty("none"), side_px=PHOTO_SIDE_PX)
    if recognizer.liveness is None:
        raise ConfigError("liveness: no model is in use; run: edge models fetch --recommended")
    rule = settings.decision
    with progress("liveness") as step:
        found = read_presentations(visits, recognizer, max_shots=rule.max_shots, shrink=shrink, progress=step)
    report: dict[str, Any] = {"schema": "edge.evaluate.liveness/1", "models": recognizer.liveness.model_id}
    report |= {"visits": str(visits), "shrink": shrink}
    report |= liveness_report(found, threshold=settings.liveness.threshold, min_shots=rule.min_shots)
    options.tell(report, partial(_show, report))
    if plots is not None:
        plot_liveness(report, plots / "liveness.png")


def _show(report: dict[str, Any]) -> None:
    typer.echo(f"{report['models']}, threshold {report['threshold']}")
    table = Listing("", "attacks", "APCER", "95 %", "live", "BPCER", "95 %")
    rows = {"all": report["all"]} | {kind: {"apcer": each} for kind, each in report["kinds"].items()}
    for column, values in report["groups"].items():
        rows |= {f"{column}: {value}": each for value, each in values.items()}
    rows |= {f"face {px} px": each for px, each in report["face_px"].items()}
    for name, each in rows.items():
        table.add_row(name, *_cells(each.get("apcer")), *_cells(each.get("bpcer")))
    table.print()
    at = report["bpcer_at_apcer"]
    typer.echo(f"EER {report['eer']:.3f}; BPCER {at['bpcer']:.3f} where APCER is {at['apcer']}")


def _cells(share: dict[str, Any] | None) -> tuple[str, str, str]:
    if share is None or share["share"] is None:
        return "-", "-", "-"
    bounds = f"{share['low']:.3f}-{share['high']:.3f}"
    return str(share["total"]), f"{share['share']:.3f}", bounds
