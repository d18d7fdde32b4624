"""evaluate swap: whether a visit stays one person's, when a face takes the place of another one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edge.cli.lab.study import EmbedderStudyOptions
from edge.cli.output import progress, show_table
from edge.core.clock import SystemClock
from edge.core.errors import MediaError
from edge.core.metrics import Metrics
from edge.device.assembly.recognizer import build_pipeline
from edge.device.settings.load import Settings
from edge.lab.demo.media import ORL_PHOTOS, ORL_SUBJECTS, media_dir, orl_photo
from edge.lab.photos.degrade import degradations
from edge.lab.photos.protocol import subjects
from edge.lab.photos.shots import take_shots
from edge.lab.studies.swap import MIN_PHOTOS, SwapStudy, usable
from edge.recognition.pipeline import Pipeline


def swap(
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one sub-folder of photos per subject; the demo's ORL photos by default."
        ),
    ] = None,
    *,
    options: EmbedderStudyOptions,
) -> None:
    """Measure whether a visit stays one person's: wrong names, who takes a place, frames until a match."""
    embedder = options.begin()
    name, settings = embedder.name, embedder.settings
    people = _orl(settings) if images is None else _shown_often(images)
    clean = degradations()[:1]
    with progress("photos") as step:
        photos = [path for each in people.values() for path in each]
        shots = take_shots(photos, clean, embedder, step)[clean[0].name]
    report: dict[str, Any] = {"schema": "edge.evaluate.swap/1", "images": str(images or "ORL"), "model": name}
    report |= SwapStudy(usable(shots, people), embedder.recognizer(), _pipelines(settings)).report()
    options.tell(report, partial(_show, report))


def _orl(settings: Settings) -> dict[str, tuple[Path, ...]]:
    directory = media_dir(settings)
    people = {
        f"s{subject:02}": tuple(orl_photo(directory, subject, number + 1) for number in range(ORL_PHOTOS))
        for subject in range(1, ORL_SUBJECTS + 1)
    }
    if not all(path.is_file() for each in people.values() for path in each):
        raise MediaError(f"{directory}: the demo's photos are not there; run: edge demo --fetch-only")
    return people


def _shown_often(images: Path) -> dict[str, tuple[Path, ...]]:
    return {name: photos for name, photos in subjects(images).items() if len(photos) >= MIN_PHOTOS}


def _pipelines(settings: Settings) -> Callable[[Callable[[], str]], Pipeline]:
    recognition = settings.recognition.model_copy(update={"motion_gate": False})
    settings = settings.model_copy(update={"recognition": recognition})
    clock = SystemClock()

    def make(new_visit_id: Callable[[], str]) -> Pipeline:
        return build_pipeline(
            "front", settings, metrics=Metrics(), clock=clock, live=False, new_visit_id=new_visit_id
        )

    return make


def _show(report: dict[str, Any]) -> None:
    typer.echo(
        f"{report['subjects']} subjects, {report['pairs']} pairs; one shot agrees from "
        f"{report['agrees_from']:.3f}, a visit matches from {report['threshold']:.3f}\n"
        f"{report['stranger_alone']['named']} of {report['stranger_alone']['strangers']} strangers are named "
        "when they come alone"
    )
    title = "one shot of a subject, then a stranger on the same track: named"
    table = Table("", "as the subject, together", "each", "as another, together", "each", title=title)
    for kind, figures in report["one_shot"].items():
        rates = [figures[way][key] for key in ("wrong_names", "other_names") for way in ("together", "each")]
        table.add_row(kind, *map(_percent, rates))
    show_table(table)
    table = Table(
        "", "", "noticed", "after s p50", "p95", "matched then", title="the place of a decided face is taken"
    )
    for fps, kinds in report["place_taken"].items():
        for kind, figures in kinds.items():
            after = figures["noticed_after_s"] or {}
            times = [f"{after[key]:.1f}" if after else "-" for key in ("p50", "p95")]
            table.add_row(fps, kind, _percent(figures["noticed"]), *times, _percent(figures["matched_after"]))
    show_table(table)
    table = Table(
        "shots agree", "visits", "matched", "twice", "frames p50", "p95", "max", title="one subject alone"
    )
    for kind, figures in report["one_subject"].items():
        frames = figures["frames_until_match"] or {}
        cells = [f"{frames[key]:.0f}" if frames else "-" for key in ("p50", "p95", "max")]
        shares = (_percent(figures["matched"]), _percent(figures["matched_twice"]))
        table.add_row(kind, str(figures["visits"]), *shares, *cells)
    show_table(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
