"""How far the product sees: who walks into moving scenes, found in time and named, and what a frame costs.

The same frames go to the product and to the product without its search for far faces, alternately; whole
visits also to the product with its detector at the frame's full width. Synthetic, as `scenes` says.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
from rich.table import Table

from edge.core.clock import SystemClock
from edge.core.download import Progress
from edge.core.errors import EdgeError, MediaError
from edge.core.metrics import Metrics
from edge.core.types import EventType, Frame, Subject, Template
from edge.device.assembly.recognizer import (
    PHOTO_SIDE_PX,
    build_pipeline,
    build_recognizer,
    with_photo_detector,
)
from edge.device.checkup.finding import LENS_DEG
from edge.device.checkup.views import range_m
from edge.device.settings.load import Settings
from edge.gallery.gallery import Gallery
from edge.lab.bench.scenes import (
    FPS,
    WARM_UP,
    Cutout,
    Scene,
    clips_of,
    cut_out,
    load_scene,
    portraits,
    two_each,
    walk,
)
from edge.lab.photos.plots import new_figure, save, share_interval
from edge.recognition.enrolment.enrol import encode_photo
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer

RESOLUTIONS = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
SIZES_PX = (24, 32, 48, 80)
"""Sizes of the faces, the square root of the area of the detector's box."""

VISITS = (("720p", 24), ("720p", 32), ("1080p", 36), ("1080p", 48), ("1080p", 60))
"""Resolutions and sizes of the faces whose whole visits are measured."""

IN_VIEW, VISIT = 30, 45
"""Frames in which a face that is to be found, and one that is to be named, is in view."""

SIZE_RATIO = 1.8
"""A face is the pasted one, not one of the scene's, within this factor of its size."""

IN_TIME_S = 0.5
NAMED = ("named", "named_full_width", "named_reduced_only")
"""The product, with its detector at the frame's full width, and without the search for far faces."""

COSTS = ("ms_mean", "ms_mean_full_width", "ms_mean_reduced_only")
"""CPU ms of a frame, of each of these."""

SHOT_STAGES = ("align", "liveness", "embed", "match", "decide")
"""What is done for a shot of a face, near or far; all else is the search."""

Placed = tuple[Frame, tuple[float, float] | None]


@dataclass(slots=True)
class ClipRun:
    """One clip through one contestant: when the face was followed, what frames cost, who was named.

    `shots_ms` is how much of `spent_ms` all shots took together.
    """

    found_s: float | None = None
    spent_ms: list[float] = field(default_factory=list)
    shots_ms: float = 0.0
    named: set[str] = field(default_factory=set)


def measure_range(
    settings: Settings,
    *,
    people: int,
    images: Path | None,
    progress: Progress,
    resolutions: Sequence[str] = tuple(RESOLUTIONS),
    sizes_px: Sequence[int] = SIZES_PX,
    visits: Sequence[tuple[str, int]] = VISITS,
    clips: Sequence[Path] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Return the JSON document: shares found and named with 95 % intervals, and costs of a frame.

    The scenes are the first seconds of `clips`, or those of the demo. Another `seed` draws other faces, times
    and walks.

    Raises:
        EdgeError: Models or clips are missing, or no photo shows a face.
    """
    recognizer = build_recognizer(settings)
    nobody = Gallery.empty(recognizer.embedder.model_id, dim=recognizer.embedder.dim)
    recognizer = recognizer.with_gallery(nobody)
    faces = cut_out(recognizer, portraits(settings, images, people + seed), people)
    spans = clips_of(settings, clips)
    asked = [(name, size_px) for name, size_px in visits if name in resolutions]
    known, pairs = _enrol(settings, recognizer, images, people, seed) if asked else (recognizer, [])
    rows, told = [], []
    for name in resolutions:
        scenes = {clip: load_scene(recognizer, span, RESOLUTIONS[name]) for clip, span in spans.items()}
        rows += [
            _found(settings, recognizer, faces, scenes, name, size_px, seed, progress)
            for size_px in (*sizes_px, 0)
        ]
        told += [
            _named(settings, known, pairs, list(scenes.values()), name, size_px, seed, progress)
            for where, size_px in asked
            if where == name
        ]
    return {
        "schema": "edge.bench.range/2",
        "people": len(faces),
        "fps": FPS,
        "seed": seed,
        "scenes": list(spans),
        "rows": rows,
        "visits": told,
    }


def distance_m(width_px: int, size_px: float) -> float:
    """Return how far a face is that is `size_px` wide in a picture `width_px` wide, in metres."""
    return range_m(width_px, size_px, LENS_DEG)


def _found(
    settings: Settings,
    recognizer: Recognizer,
    faces: Sequence[Cutout],
    scenes: Mapping[str, Scene],
    name: str,
    size_px: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Return the row of one size of face, or of scenes without anybody where that is 0."""
    today = replace(recognizer, far=None)
    runs: list[tuple[str, ClipRun, ClipRun]] = []
    chosen = faces if size_px else faces[: 2 * len(scenes)]
    for number, face in enumerate(chosen):
        dice = _dice(name, size_px, number, seed)
        clip = list(scenes)[number % len(scenes)]
        frames = list(walk(scenes[clip], face if size_px else None, size_px or SIZES_PX[0], dice, IN_VIEW))
        ours, theirs = (_run(settings, each, frames, size_px) for each in (recognizer, today))
        runs.append((clip, ours, theirs))
        progress(f"{name}, {size_px or 'no'} px", number + 1, len(chosen))
    costs = np.concatenate([ours.spent_ms for _, ours, _ in runs])
    costs_today = np.concatenate([theirs.spent_ms for _, _, theirs in runs])
    shots_ms, shots_ms_today = (
        sum(each.shots_ms for each in those) / len(costs)
        for those in zip(*((ours, theirs) for _, ours, theirs in runs), strict=True)
    )
    row: dict[str, Any] = {
        "resolution": name,
        "face_px": size_px or None,
        "clips": len(runs),
        "cost_ratio": float(costs.mean() / costs_today.mean()),
        "search_ratio": float((costs.mean() - shots_ms) / (costs_today.mean() - shots_ms_today)),
        "ms_mean": float(costs.mean()),
        "ms_shots": shots_ms,
        "ms_p95": float(np.percentile(costs, 95)),
    }
    if size_px:
        row["found"] = _rate([_in_time(ours) for _, ours, _ in runs])
        row["found_reduced_only"] = _rate([_in_time(theirs) for _, _, theirs in runs])
        row["found_by_scene"] = {
            clip: float(np.mean([_in_time(ours) for where, ours, _ in runs if where == clip]))
            for clip in dict.fromkeys(where for where, _, _ in runs)
        }
        row["distance_m"] = distance_m(RESOLUTIONS[name][0], size_px)
    return row


def _in_time(run: ClipRun) -> bool:
    return run.found_s is not None and run.found_s <= IN_TIME_S


def _rate(hits: Sequence[bool]) -> dict[str, Any]:
    share = sum(hits) / len(hits)
    return {"share": share, "interval": share_interval(share, len(hits))}


def _run(settings: Settings, recognizer: Recognizer, frames: Sequence[Placed], size_px: int) -> ClipRun:
    """Run one clip through a fresh pipeline; costs are CPU ms of each frame since somebody came into view."""
    run, metrics = ClipRun(), Metrics(timer=thread_time)
    pipeline = build_pipeline("range", settings, metrics=metrics, clock=SystemClock(), live=False)
    for frame, place in frames:
        if frame.number == WARM_UP:
            run.shots_ms = -_shot_stages_ms(metrics)
        begun_s = thread_time()
        events = pipeline.process(frame, recognizer)
        if frame.number >= WARM_UP:
            run.spent_ms.append((thread_time() - begun_s) * 1e3)
        if place is not None and run.found_s is None and _follows(pipeline, place, size_px):
            run.found_s = (frame.number - WARM_UP) / FPS
        run.named |= {
            event.subject.subject_id
            for event in events
            if event.event_type == EventType.MATCH and event.subject is not None
        }
    run.shots_ms += _shot_stages_ms(metrics)
    return run


def _shot_stages_ms(metrics: Metrics) -> float:
    totals_ms = metrics.totals_ms()
    return sum(totals_ms.get(stage, 0.0) for stage in SHOT_STAGES)


def _dice(name: str, size_px: int, number: int, seed: int) -> random.Random:
    return random.Random(f"{name} {size_px} {number} {seed}")


def _follows(pipeline: Pipeline, place: tuple[float, float], size_px: int) -> bool:
    """Return whether a face of this size is followed at this place."""
    for track, _ in pipeline.scene():
        x1, y1, x2, y2 = track.box
        alike = 1 / SIZE_RATIO < math.sqrt((x2 - x1) * (y2 - y1)) / size_px < SIZE_RATIO
        if alike and x1 <= place[0] <= x2 and y1 <= place[1] <= y2:
            return True
    return False


def _named(
    settings: Settings,
    known: Recognizer,
    pairs: Sequence[tuple[str, Cutout]],
    scenes: Sequence[Scene],
    name: str,
    size_px: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Return which share of those whom `known` knows was named over a whole visit, at one size of face."""
    width = RESOLUTIONS[name][0]
    contestants = (
        known,
        replace(known, far=None, detector=known.detector.at(width)),
        replace(known, far=None),
    )
    runs = []
    for number, (subject, face) in enumerate(pairs):
        dice = _dice(name, size_px, number, seed)
        frames = list(walk(scenes[number % len(scenes)], face, size_px, dice, VISIT))
        parts = (frames, frames[WARM_UP - 1 :], frames)  # full width is slow and needs no warming up
        those = [_run(settings, each, part, size_px) for each, part in zip(contestants, parts, strict=True)]
        runs.append((subject, those))
        progress(f"visits, {name}, {size_px} px", number + 1, len(pairs))
    row: dict[str, Any] = {
        "resolution": name,
        "face_px": size_px,
        "distance_m": distance_m(width, size_px),
        "gallery": known.matcher.gallery.size,
        "clips": len(runs),
        "wrong": sum(bool(each.named - {subject}) for subject, those in runs for each in those[:1]),
    }
    for place, key in enumerate(NAMED):
        row[key] = _rate([subject in those[place].named for subject, those in runs])
    for place, key in enumerate(COSTS):
        row[key] = float(np.mean([np.mean(those[place].spent_ms) for _, those in runs]))
    return row


def _enrol(
    settings: Settings, recognizer: Recognizer, images: Path | None, people: int, seed: int
) -> tuple[Recognizer, list[tuple[str, Cutout]]]:
    """Return a recognizer that knows up to `people` subjects by one photo, and of each another face.

    Raises:
        MediaError: No subject has two photos that show a face.
    """
    photographer = with_photo_detector(recognizer, PHOTO_SIDE_PX).for_enrolment()
    at = SystemClock().now()
    entries: list[tuple[Subject, list[Template]]] = []
    faces: list[tuple[str, Cutout]] = []
    for name, first, second in two_each(settings, images, people + seed):
        subject = Subject(f"s{len(entries):04}", name)
        try:
            probe = encode_photo(first, name, photographer)
            [face] = cut_out(recognizer, iter([second]), 1)
        except EdgeError:
            continue  # a photo that is no good for it; the next subject serves as well
        entries.append((subject, [Template(probe.embedding, probe.model_id, probe.quality, "photo", at)]))
        faces.append((subject.subject_id, face))
        if len(entries) == people:
            break
    if not entries:
        raise MediaError(
            "no subject has two photos with a face; name a folder with one sub-folder of photos per subject"
        )
    gallery = Gallery.empty(recognizer.embedder.model_id, dim=recognizer.embedder.dim)
    return recognizer.with_gallery(gallery.with_subjects(entries)), faces


def range_tables(report: dict[str, Any]) -> list[Table]:
    """Return the report as tables for people."""
    columns = ("frame", "face px", "metres", "found in .5 s", "reduced frame only")
    costs = ("cost", "without shots", "CPU ms", "p95")
    title = f"{report['people']} people, {report['fps']} frames/s, lens of 78 degrees"
    table = Table(*columns, *costs, title=title)
    for row in report["rows"]:
        shares = [_share(row.get(key)) for key in ("found", "found_reduced_only")]
        metres = f"{row['distance_m']:.1f}" if row["face_px"] else "-"
        ratios = [f"{row[key]:.2f} x" for key in ("cost_ratio", "search_ratio")]
        spent = (*ratios, f"{row['ms_mean']:.1f}", f"{row['ms_p95']:.1f}")
        table.add_row(row["resolution"], str(row["face_px"] or "nobody"), metres, *shares, *spent)
    if not report["visits"]:
        return [table]
    title = f"visits of 3 s, one photo of each of {report['visits'][0]['gallery']} enrolled"
    named = Table(
        "frame", "face px", "metres", "named", "full width", "reduced only", "wrong", "CPU ms of each",
        title=title,
    )  # fmt: skip
    for row in report["visits"]:
        means = " / ".join(f"{row[key]:.1f}" for key in COSTS)
        shares = [_share(row[key]) for key in NAMED]
        metres = f"{row['distance_m']:.1f}"
        named.add_row(row["resolution"], str(row["face_px"]), metres, *shares, str(row["wrong"]), means)
    return [table, named]


def _share(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "-"
    low, high = rate["interval"]
    return f"{rate['share']:.2f} ({low:.2f}-{high:.2f})"


def plot_range(report: dict[str, Any], folder: Path) -> None:
    """Draw the shares found over the distance, with their intervals, into `folder`/range.png."""
    figure = new_figure()
    axes = figure.subplots()
    axes.set_xlabel("distance in metres (face of 15 cm, lens of 78 degrees)")
    axes.set_ylabel("share found within half a second")
    for name in dict.fromkeys(row["resolution"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["resolution"] == name and row["face_px"]]
        metres = [row["distance_m"] for row in rows]
        colour = None
        for key, style, label in (("found", "-", name), ("found_reduced_only", ":", f"{name}, reduced only")):
            shares = np.array([row[key]["share"] for row in rows])
            bounds = np.array([row[key]["interval"] for row in rows]).T
            errors = np.abs(bounds - shares)
            drawn = axes.errorbar(
                metres, shares, errors, fmt=f"o{style}", capsize=3, label=label, color=colour
            )
            colour = drawn[0].get_color()
    axes.set_ylim(-0.02, 1.02)
    title = f"{report['people']} people a point, 95 % intervals"
    figure.legend(loc="outside lower center", ncols=3, title=title)
    save(figure, folder / "range.png")
