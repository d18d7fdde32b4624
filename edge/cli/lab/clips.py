"""evaluate clips: labelled clips through the real pipeline, decisions against labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edge.cli.lab.study import StudyOptions
from edge.cli.output import progress, show_table
from edge.core.clock import SystemClock
from edge.core.errors import ConfigError
from edge.core.metrics import Metrics
from edge.device.assembly.recognizer import (
    PHOTO_SIDE_PX,
    build_pipeline,
    build_recognizer,
    with_photo_detector,
)
from edge.device.settings.load import Settings
from edge.face.manifest import AUTO
from edge.gallery.gallery import Gallery
from edge.lab.clips import clips as footage
from edge.lab.clips.labels import check_subjects, read_labels
from edge.recognition.pipeline import NewId, Pipeline

CODED = {
    "missed": "missed",
    "duplicated": "twice",
    "wrong_names": "wrong\nname",
    "false_matches": "false\nmatch",
    "false_rejects": "false\nreject",
    "no_decisions": "none",
    "unexpected": "extra",
}
"""Columns that count errors, and their headings: a terminal of 80 characters holds them and a clip's name."""


def clips(
    labels_file: Annotated[
        Path, typer.Argument(metavar="LABELS.toml", help="See deploy/clips.example.toml.")
    ],
    base: Annotated[
        Path | None, typer.Option(help="Where its relative paths start; its own folder when left out.")
    ] = None,
    annotate: Annotated[Path | None, typer.Option(help="Write annotated videos into this directory.")] = None,
    *,
    options: StudyOptions,
) -> None:
    """Run labelled clips: visits found, missed, duplicated, wrong names, false rejects, delays."""
    settings = options.settings()
    clock = SystemClock()
    labels = read_labels(labels_file, base)
    check_subjects(labels_file, labels, lambda name: name in labels.subjects)
    recognizer = build_recognizer(settings, _empty(settings))
    if annotate is not None:
        _prepare(annotate)
    with progress("clips") as step:
        gallery = footage.enrol(
            labels,
            recognizer,
            Gallery.empty(recognizer.embedder.model_id),
            photographer=with_photo_detector(recognizer, PHOTO_SIDE_PX).for_enrolment(),
            clock=clock,
            max_prototypes=settings.gallery.prototypes,
            progress=step,
        )
        watched: list[footage.Watched] = []
        for number, clip in enumerate(labels.clips):
            step(clip.file.name, number, len(labels.clips))
            video = annotate / f"{number:03}-{clip.file.stem}.mp4" if annotate else None
            watched.append(
                footage.watch(
                    clip,
                    labels.tolerance_s,
                    recognizer.with_gallery(gallery),
                    _pipelines(settings, clock),
                    clock=clock,
                    annotate=video,
                )
            )
    report: dict[str, Any] = {"schema": "edge.evaluate.clips/1", "labels": str(labels_file)}
    report |= {"model": recognizer.embedder.model_id, "subjects": gallery.size, **footage.report(watched)}
    options.tell(report, lambda: show_table(_table(report)))


def _prepare(annotate: Path) -> None:
    """Make the folder of annotated videos, or refuse it before minutes of work."""
    try:
        annotate.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--annotate: {annotate}: {error.strerror}; name a folder") from None


def _empty(settings: Settings) -> Gallery | None:
    name = settings.recognition.embedder
    return None if name == AUTO else Gallery.empty(name)


def _pipelines(settings: Settings, clock: SystemClock) -> Callable[[str, NewId], Pipeline]:
    def make(camera: str, new_visit_id: NewId) -> Pipeline:
        return build_pipeline(
            camera, settings, metrics=Metrics(), clock=clock, live=False, new_visit_id=new_visit_id
        )

    return make


def _table(report: dict[str, Any]) -> Table:
    heads = ("visits", "right", *CODED.values(), "match\nafter s", "ms p50/\np95")
    table = Table("clip", *heads, box=None, padding=(0, 1, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.no_wrap = True
    for each in (*report["clips"], {"file": "sum", **report["sum"]}):
        delay, latency = each["delay_s"]["match"], each["capture_to_decision_ms"]
        table.add_row(
            Path(each["file"]).name,
            str(each["visits"]),
            str(each["correct"]),
            *(str(each[key]) for key in CODED),
            f"{delay['p50']:.2f}" if delay else "-",
            f"{latency['p50']:.0f}/{latency['p95']:.0f}" if latency else "-",
        )
    return table
